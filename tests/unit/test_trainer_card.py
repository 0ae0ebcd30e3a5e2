# SPDX-License-Identifier: GPL-3.0-or-later
"""The model card says what the data and the run were, and nothing that was not measured."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from granulo_core.imaging.instances import InstanceParams
from granulo_core.store.manifest import producer
from granulo_trainer.card import CardFacts, write_card
from granulo_trainer.domain.config import preset_config
from granulo_trainer.domain.contact_sheet import Example, contact_sheet
from granulo_trainer.domain.tuning import Tuning
from granulo_trainer.lineage import Source

SOURCE = Source(
    name="datasets/ds-1",
    digest="sha256:" + "a" * 64,
    recipe="ag_rods",
    seed=11,
    images=40,
    particles=3185,
    modality="helium ion microscope",
    shapes=("rod", "polyhedron"),
    maker="render 0.1.0, Blender 4.5.15",
)
TUNING = Tuning(InstanceParams(marker_depth=0.18), 0.41, 0.47, 0.012, 4, 12, 27)


def facts(**changes: Any) -> CardFacts:
    made = CardFacts(
        version="models/rods/versions/3",
        config=preset_config("small"),
        epoch=5,
        chosen="Epoch 5 of 8 has the highest AP50.",
        figures={"loss": 0.4, "validation_dsc": 0.913, "validation_ap50": 0.702},
        precision="mixed_bfloat16",
        instances=TUNING.params,
        tuning=TUNING,
        parameter_count=1_038_888,
        weights_digest="sha256:" + "b" * 64,
        outputs=("foreground", "distance"),
        sources=(SOURCE,),
        trained_px=(14.0, 100.0),
        base_version="",
        base_digest="",
        labelled=1,
        producer=producer("trainer", 0),
        licence="CC-BY-4.0",
        has_picture=True,
    )
    return replace(made, **changes)


def test_lineage_figures_thresholds_and_licence_stand_in_the_card() -> None:
    text = write_card(facts(base_version="models/rods/versions/1", base_digest="sha256:c"))
    for expected in (
        "# Model card: `models/rods/versions/3`",
        f"`datasets/ds-1`: `{SOURCE.digest}`",
        "first weights from `models/rods/versions/1`: `sha256:c`",
        "| `datasets/ds-1` | ag_rods | 11 | 40 | 3,185 |",
        "1,038,888",
        "mixed_bfloat16",
        "| 0.913 | 0.702 |",
        "mean AP 0.410 with those of `models/rods/versions/1`, 0.470 with these",
        "| `marker_depth` | 0.18 |",
        "14 to 100 px",
        "![Examples",
        "CC-BY-4.0.",
    ):
        assert expected in text
    defaults = write_card(facts())
    assert "mean AP 0.410 with the defaults, 0.470 with these" in defaults


def test_what_was_not_measured_is_said_and_not_invented() -> None:
    text = write_card(facts(figures={"loss": 0.4}, tuning=None, labelled=0, has_picture=False))
    assert "Nothing was measured" in text
    assert "real ones is unknown" in text
    assert "The defaults. They are tuned where" in text
    assert "No picture" in text
    assert "AP50 |" not in text


def test_the_papers_network_has_the_papers_threshold() -> None:
    text = write_card(facts(config=preset_config("paper"), tuning=None, outputs=("foreground",)))
    assert "0.51, as in the paper; not tuned" in text


@pytest.mark.parametrize(
    ("modality", "sentence"),
    [
        ("helium ion microscope", "none in transmission"),
        ("transmission", "Only dark particles"),
        ("any microscope", "rare in the training data"),
        ("", None),
    ],
)
def test_limits_follow_from_what_the_recipes_imitate(modality: str, sentence: str | None) -> None:
    text = write_card(facts(sources=(replace(SOURCE, modality=modality),)))
    if sentence is None:
        assert "transmission" not in text
    else:
        assert sentence in text


def test_every_table_has_as_many_cells_as_its_head() -> None:
    text = write_card(facts(sources=(SOURCE, replace(SOURCE, particles=None, recipe="a|b"))))
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 4
    for block in blocks:
        counts = {line.replace("\\|", "").count("|") for line in block.splitlines()}
        assert len(counts) == 1


def test_a_contact_sheet_shows_the_outlines_of_every_particle() -> None:
    labels = np.zeros((200, 300), np.uint16)
    for number, column in enumerate(range(20, 280, 40), start=1):
        labels[90:110, column : column + 20] = number
    image = np.full(labels.shape, 77, np.uint8)
    png = contact_sheet([Example(f"scene {n}", image, labels) for n in range(5)])
    sheet = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert sheet.shape[1] > 4 * 280
    assert sheet.shape[0] > 2 * 280
    coloured = (sheet.max(axis=2).astype(int) - sheet.min(axis=2)) > 60
    assert coloured.sum() > 5 * 500
    assert (sheet == 77).all(axis=2).mean() > 0.3


def test_a_contact_sheet_refuses_labels_of_another_size() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        contact_sheet([Example("a", np.zeros((9, 9), np.uint8), np.zeros((9, 8), np.uint16))])
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])
