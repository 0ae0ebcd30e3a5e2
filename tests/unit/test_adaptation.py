# SPDX-License-Identifier: GPL-3.0-or-later
"""`granulo adapt` before and after the work: the studies it is made of, and what it reports."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from granulo_client.adaptation import plan
from granulo_client.adaptation.gain import estimate, gains
from granulo_client.adaptation.page import write_page
from granulo_client.adaptation.report import Report
from granulo_client.cli import run_command
from granulo_client.errors import UsageError
from granulo_client.study import Study, load_study
from granulo_client.truth import find_micrographs

SHARES = st.floats(0.0, 1.0)


def asked(folder: Path, **change: Any) -> plan.Adaptation:
    images = []
    for number in range(6):
        images.append(folder / f"x{number}.tif")
        images[-1].write_bytes(b"image")
    given = plan.Adaptation(
        images=tuple(images), recipe="tio2", model="mine", scenes=24, minutes=3.0, steps=None,
        seed=5, pixel_size_nm=None, size_px=None, truth=None, content_height_px=0,
    )  # fmt: skip
    return replace(given, **change)


def test_both_studies_measure_the_same_and_only_one_trains(tmp_path: Path) -> None:
    given = asked(tmp_path, truth=tmp_path)
    before, after = (
        plan.before_study(given, "models/b/versions/1"),
        plan.after_study(given, "b", 512),
    )

    assert (before.train, before.render) == (None, ())
    assert before.segment is not None
    assert after.segment is not None
    assert after.train is not None
    assert (before.segment.model, after.segment.model) == ("models/b/versions/1", None)
    assert before.segment.images == after.segment.images
    assert before.segment.heldout == after.segment.heldout
    assert before.evaluate == after.evaluate is not None
    assert after.train.base_version == "b"
    # Nothing is trained or chosen on the true labels, and few images are predicted every epoch.
    assert [item.labels for item in after.train.validation] == [None] * 4
    trained = {(item.recipe, item.seed) for item in after.render}
    assert not trained & {(item.recipe, item.seed) for item in after.segment.heldout}
    assert after.render[1].recipe == "mixed_any"
    assert sum(item.weight or 0.0 for item in after.render) == pytest.approx(1.0)


def test_a_study_that_is_kept_is_read_as_it_was(tmp_path: Path) -> None:
    study = plan.after_study(asked(tmp_path, steps=50, minutes=None), "models/b/versions/1", 128)
    values = study.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values))
    assert load_study(tmp_path / "study.yaml") == study == Study.model_validate(values)
    assert study.train is not None
    assert (study.train.max_steps, study.train.epochs, study.train.patch_px) == (50, 2, 128)


def test_patches_are_never_larger_than_scenes(tmp_path: Path) -> None:
    for scene_px, patch_px in ((64, 64), (100, 96), (255, 224), (256, None), (1024, None)):
        train = plan.after_study(asked(tmp_path), "b", scene_px).train
        assert train is not None
        assert train.patch_px == patch_px
    with pytest.raises(UsageError, match="scenes of 63 px are too small to train on; give --size"):
        plan.after_study(asked(tmp_path), "b", 63)


def test_images_too_large_to_predict_every_epoch_are_left_to_the_segmentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = asked(tmp_path)
    monkeypatch.setattr(plan, "_MAX_VALIDATION_BYTES", 10)
    given.images[0].write_bytes(b"x" * 11)
    train = plan.after_study(given, "b", 512).train
    assert train is not None
    assert train.validation
    assert given.images[0] not in [item.image for item in train.validation]
    monkeypatch.setattr(plan, "_MAX_VALIDATION_BYTES", 1)
    train = plan.after_study(given, "b", 512).train
    assert train is not None
    assert train.validation == ()


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("tio2", "tio2-adapted"),
        ("my/Zinc Oxide (2).yaml", "zinc-oxide-2-adapted"),
        ("default.yaml", "default-adapted"),
        ("ß.yml", "model-adapted"),
    ],
)
def test_a_model_is_called_by_its_recipe(recipe: str, name: str) -> None:
    assert plan.model_name(recipe) == name


@settings(max_examples=60, deadline=None)
@given(st.lists(SHARES, min_size=1, max_size=12))
def test_an_estimate_lies_in_its_interval_and_is_always_the_same(values: list[float]) -> None:
    found = estimate(values)
    assert found == estimate(values)
    if len(values) < 3:
        assert found.lower is None
        assert found.upper is None
        return
    assert found.lower is not None
    assert found.upper is not None
    slack = 1e-9
    assert min(values) - slack <= found.lower <= found.value + slack
    assert found.value - slack <= found.upper <= max(values) + slack


def evaluation(*values: float) -> dict[str, Any]:
    return {
        "images": [{"metrics": {"ap50": v, "ap75": v, "f1": v}} for v in values],
        "metrics": {"ap50": sum(values) / len(values)},
    }


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        ((0.5, 0.6, 0.7, 0.8), "better"),
        ((0.1, 0.2, 0.3, 0.4), "worse"),
        ((0.4, 0.3, 0.6, 0.5), "unclear"),
        ((0.3, 0.4, 0.5, 0.6), "unclear"),
    ],
)
def test_only_what_is_beyond_chance_is_called_better_or_worse(
    after: tuple[float, ...], verdict: str
) -> None:
    found = gains(evaluation(0.3, 0.4, 0.5, 0.6), evaluation(*after))["ap50"]
    assert found.verdict() == verdict
    assert f"({found.difference.value:+.3f}, 95 % from " in found.line()


def study_document(folder: Path, count: int, *scores: float) -> dict[str, Any]:
    image = {
        "image": "/mine/a & b.tif", "page": None, "particle_count": count,
        "labels": "x", "overlay": str(folder / "a b_overlay.png"),
    }  # fmt: skip
    summaries = [{"quantity": "ecd", "unit": "[px]", "median": 12.5}] if count else []
    return {
        "model_version": "models/mine/versions/1",
        "datasets": ["datasets/a"],
        "training_metrics": {"base_label_free_agreement": 0.4, "label_free_agreement": 0.6},
        "sets": {
            "images": {
                "images": [image],
                "analysis": {"particle_count": count, "summaries": summaries},
                "evaluation": evaluation(scores[0]),
            },
            "heldout-1-tio2": {"evaluation": evaluation(*scores)},
        },
    }


@pytest.fixture
def report_of(tmp_path: Path) -> Callable[..., Report]:
    def make(**change: Any) -> Report:
        return Report(
            asked=asked(tmp_path, **change),
            base="models/packaged-default/versions/7",
            before=study_document(tmp_path / "before", 0, 0.3, 0.4, 0.5),
            after=study_document(tmp_path / "after", 9, 0.6, 0.8, 0.7),
            agreement=evaluation(0.25),
            validated=1,
        )

    return make


def test_a_report_says_what_was_gained_and_what_to_do(
    report_of: Callable[..., Report], tmp_path: Path
) -> None:
    report = report_of(truth=tmp_path)
    text = "\n".join(report.lines())
    for told in (
        "models/mine/versions/1, trained further from models/packaged-default/versions/7",
        "renders of tio2, not trained on: AP50 0.400 to 0.700 (+0.300, 95 % from +0.200 to",
        "your labels: AP50 0.300 to 0.600 (+0.300)",
        "0 to 9 particles, median diameter unknown to 12.5 px",
        "the two models agree with AP50 0.25",
        "(1 of your images): 0.40 to 0.60",
        "The adapted model is better on renders of the recipe",
    ):
        assert told in text
    document = report.document()
    assert document["truth"]["f1"]["gain"]["value"] == pytest.approx(0.3)
    assert document["images"][0]["before"]["particle_count"] == 0
    assert report_of().document()["truth"] is None


def test_the_page_shows_overlays_by_relative_paths(
    report_of: Callable[..., Report], tmp_path: Path
) -> None:
    page = write_page(report_of(), tmp_path)
    assert 'src="before/a%20b_overlay.png"' in page
    assert 'src="after/a%20b_overlay.png"' in page
    assert "a &amp; b.tif" in page
    assert "a & b.tif" not in page
    assert str(tmp_path) not in page


def test_labels_and_notes_in_a_folder_are_no_micrographs(tmp_path: Path) -> None:
    for name in ("b.TIF", "a.dm4", "a_labels.tif", "b_m.tif", "notes.txt", "c_labels.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "d.tif").mkdir()
    assert [path.name for path in find_micrographs(tmp_path)] == ["a.dm4", "b.TIF"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--images", "none"], "none is no folder"),
        (["--images", "."], "has no micrograph"),
        (["--steps", "5", "--minutes", "1"], "exclude each other"),
        (["--minutes", "nan"], "--minutes is nan"),
        (["--steps", "0"], "--steps is 0; give a whole number from 1"),
        (["--scenes", "1"], "--scenes is 1; give a whole number from 2"),
        (["--seed", "-1"], "--seed is -1"),
        (["--pixel-size", "0"], "--pixel-size is 0"),
        (["--recipe", "bad.yaml"], "bad.yaml:2: clases: "),
        (["--recipe", "none.yaml"], "none.yaml does not exist"),
        (["--truth", "truth"], "truth has no true labels for m_labels.tif"),
        (["--truth", "mine"], "mine has no true labels for m.tif, only the image itself"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_started(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "truth").mkdir()
    (tmp_path / "mine" / "m.tif").write_bytes(b"image")
    (tmp_path / "bad.yaml").write_text("version: 1\nclases: []\n")
    usual = ["adapt", "--images", "mine", "--recipe", "tio2", "--out", "out", "--data", "data"]
    assert run_command([*usual, *words]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "data").exists()
