# SPDX-License-Identifier: GPL-3.0-or-later
"""Choosing a checkpoint: rankings, the label-free score, kept pictures, the page."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo_core.errors import GranuloError
from granulo_trainer import selections
from granulo_trainer.checkpoints import CheckpointName
from granulo_trainer.domain import label_free
from granulo_trainer.domain.outlines import decode_outlines, encode_outlines
from granulo_trainer.domain.pictures import decode_png, encode_grey_png, encode_label_png
from granulo_trainer.domain.selection import Criterion, choose, default_criterion, rank
from granulo_trainer.page.html import Page, PageEpoch, PageImage, render_page


def history(**columns: list[float]) -> dict[int, dict[str, float]]:
    """Figures by epoch from columns; NaN stands for a figure that is not there."""
    rows = zip(*columns.values(), strict=True)
    return {
        epoch: {
            name: value
            for name, value in zip(columns, row, strict=True)
            if not (name.startswith("gap_") or value != value)
        }
        for epoch, row in enumerate(rows, start=1)
    }


NAN = float("nan")

# Rankings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("criterion", "figure"),
    [
        (Criterion.F1, "validation_dsc"),
        (Criterion.AP50, "validation_ap50"),
        (Criterion.LABEL_FREE, "label_free"),
        (Criterion.HELD_OUT_AP50, "heldout_ap50"),
    ],
)
def test_every_criterion_puts_its_highest_figure_first(criterion: Criterion, figure: str) -> None:
    other = {"validation_dsc", "validation_ap50", "label_free", "heldout_ap50"} - {figure}
    figures = history(**{figure: [0.2, 0.9, 0.5]}, **{key: [0.9, 0.1, 0.95] for key in other})
    ranked = rank(figures, criterion)
    assert [(item.epoch, item.score) for item in ranked] == [(2, 0.9), (3, 0.5), (1, 0.2)]


def test_among_equal_epochs_the_later_goes_first_and_says_so() -> None:
    ranked = rank(history(validation_ap50=[0.6, 0.6, 0.5]), Criterion.AP50)
    assert [item.epoch for item in ranked] == [2, 1, 3]
    assert "as high as that of epoch 1, which is earlier" in ranked[0].explanation
    assert "as high as that of epoch 2, which is later" in ranked[1].explanation


def test_epochs_without_the_figure_come_last_without_a_score() -> None:
    ranked = rank(history(label_free=[NAN, 0.0, NAN, 0.3]), Criterion.LABEL_FREE)
    assert [(item.epoch, item.score) for item in ranked] == [
        (4, 0.3),
        (2, 0.0),
        (3, None),
        (1, None),
    ]
    assert "has no label-free score" in ranked[-1].explanation


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), NAN])
def test_a_figure_that_is_no_number_is_no_figure(value: float) -> None:
    ranked = rank({1: {"validation_ap50": value}, 2: {"validation_ap50": 0.1}}, Criterion.AP50)
    assert [(item.epoch, item.score) for item in ranked] == [(2, 0.1), (1, None)]


def test_explanations_have_the_numbers() -> None:
    best, second = rank(history(validation_ap50=[0.7123, 0.65]), Criterion.AP50)
    assert best.explanation == (
        "AP50 on the annotated validation images 0.712, the highest; next is epoch 2 with 0.650."
    )
    assert second.explanation.endswith("0.062 below epoch 1.")
    only = rank({4: {"heldout_ap50": 0.5}}, Criterion.HELD_OUT_AP50)[0]
    assert only.explanation == "AP50 on held-out renders 0.500, the only one."
    latest, before = rank(history(loss=[1.0, 2.0]), Criterion.LAST)
    assert latest.explanation == "The latest epoch."
    assert before.explanation == "1 before the latest, epoch 2."


def test_the_label_free_ranking_shows_the_parts_of_its_score() -> None:
    figures = {1: label_free.combine([0.5, 0.7], 0.4)}
    best = rank(figures, Criterion.LABEL_FREE)[0]
    assert best.parts == {"agreement": pytest.approx(0.6), "held_out_ap50": 0.4}
    assert "(agreement 0.600, held-out AP50 0.400)" in best.explanation


def test_a_person_does_not_rank_by_a_figure() -> None:
    with pytest.raises(ValueError, match="person"):
        rank(history(validation_ap50=[0.1]), Criterion.VISUAL)


def test_without_a_criterion_the_first_with_figures_is_used() -> None:
    both = history(validation_ap50=[NAN, 0.2], label_free=[0.3, 0.4])
    assert default_criterion(both) is Criterion.AP50
    assert default_criterion(history(label_free=[0.3, 0.1])) is Criterion.LABEL_FREE
    assert default_criterion(history(heldout_ap50=[0.3, 0.1])) is Criterion.LAST
    assert default_criterion({}) is Criterion.LAST


def test_a_training_chooses_by_annotated_images_then_label_free_then_the_last() -> None:
    annotated = history(
        validation_ap50=[0.2, 0.6, 0.6], validation_dsc=[0.9, 0.8, 0.7], label_free=[0.9, 0.1, 0.1]
    )
    for preset, epoch, criterion in (
        ("small", 3, Criterion.AP50), ("base", 3, Criterion.AP50), ("paper", 1, Criterion.F1),
    ):  # fmt: skip
        chosen, best = choose(preset, annotated)
        assert (chosen, best.epoch) == (criterion, epoch)
    unlabelled = history(label_free=[0.3, 0.5, 0.4], heldout_ap50=[0.9, 0.1, 0.2])
    assert choose("paper", unlabelled)[1].epoch == 2
    assert choose("small", history(heldout_ap50=[0.9, 0.1]))[1].epoch == 2
    with pytest.raises(ValueError, match="no epoch"):
        choose("small", {})


@given(
    st.dictionaries(
        st.integers(1, 50),
        st.fixed_dictionaries(
            {}, optional={"label_free": st.floats(0, 1), "loss": st.floats(0, 9)}
        ),
    )
)
def test_every_ranking_is_a_permutation_in_falling_order(
    figures: dict[int, dict[str, float]],
) -> None:
    for criterion in (Criterion.LABEL_FREE, Criterion.LAST):
        ranked = rank(figures, criterion)
        assert sorted(item.epoch for item in ranked) == sorted(figures)
        keys = [(-1.0 if item.score is None else item.score, item.epoch) for item in ranked]
        assert keys == sorted(keys, reverse=True)


# The label-free score ----------------------------------------------------------------------


def discs(shape: tuple[int, int] = (120, 150), pitch: int = 30) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = (y % pitch - pitch / 2) ** 2 + (x % pitch - pitch / 2) ** 2 < (pitch / 3) ** 2
    return (inside * (1 + y // pitch * (shape[1] // pitch) + x // pitch)).astype(np.int32)


def by_brightness(image: np.ndarray) -> np.ndarray:
    """A perfect segmenter of ``discs``: bright regions, whatever their place and size."""
    import cv2

    return cv2.connectedComponents((image > 100).astype(np.uint8), connectivity=4)[1]


def test_a_segmenter_that_sees_the_particles_agrees_with_itself() -> None:
    image = np.where(discs() > 0, 200, 20).astype(np.uint8)
    assert label_free.self_agreement(image, by_brightness(image), by_brightness) > 0.8


def test_a_segmenter_that_goes_by_the_place_disagrees_with_itself() -> None:
    image = np.where(discs() > 0, 200, 20).astype(np.uint8)

    def upper_left(view: np.ndarray) -> np.ndarray:
        found = np.zeros(view.shape, np.int32)
        found[:20, :20] = 1
        return found

    assert label_free.self_agreement(image, upper_left(image), upper_left) < 0.3


def test_finding_nothing_is_no_agreement() -> None:
    nothing = np.zeros((40, 60), np.int32)
    assert label_free.agreement(nothing, nothing) == 0.0
    image = np.zeros((40, 60), np.uint8)
    assert (
        label_free.self_agreement(image, nothing, lambda view: np.zeros(view.shape, np.int32)) == 0
    )


def test_views_are_brought_back_to_the_image_before_they_are_compared() -> None:
    image = np.zeros((50, 90), np.uint8)
    image[5:25, 60:85] = 200
    image[30:45, 10:40] = 220
    seen: list[tuple[int, int]] = []

    def segment(view: np.ndarray) -> np.ndarray:
        seen.append(view.shape)
        return by_brightness(view)

    assert label_free.self_agreement(image, by_brightness(image), segment) == 1.0
    assert seen == [(90, 50), (40, 72)]


def test_the_score_needs_agreement_and_renders_both() -> None:
    assert label_free.combine([0.25], 1.0)["label_free"] == pytest.approx(0.5)
    assert label_free.combine([1.0], 0.0)["label_free"] == 0.0
    assert label_free.combine([0.4], None) == {"label_free": 0.4, "label_free_agreement": 0.4}
    assert label_free.combine([], 0.9) == {}


# Pictures and outlines ---------------------------------------------------------------------


def test_label_pictures_hold_every_id_and_wrap_beyond_sixteen_bits() -> None:
    labels = discs()
    assert np.array_equal(decode_png(encode_label_png(labels)), labels)
    many = np.array([[0, 1, 65_535, 65_536, 65_537]])
    assert decode_png(encode_label_png(many)).tolist() == [[0, 1, 65_535, 1, 2]]
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(decode_png(encode_grey_png(grey)), grey)


def test_label_pictures_of_a_micrograph_are_small() -> None:
    particles = discs((2048, 2048), 64)
    assert len(encode_label_png(particles)) < 200 * particles.max()


def test_what_is_no_png_of_one_channel_is_refused() -> None:
    for data in (b"text", b""):
        with pytest.raises(ValueError, match="PNG"):
            decode_png(data)


def filled(outlines: list[tuple[np.ndarray, bool]], shape: tuple[int, int]) -> np.ndarray:
    """Outlines drawn as the page does: even-odd over the outlines of an instance."""
    import cv2

    instances: list[list[np.ndarray]] = []
    for points, first in outlines:
        instances += [[]] if first else []
        instances[-1].append(points.astype(np.int32))
    found = np.zeros(shape, np.int32)
    for number, polygons in enumerate(instances, start=1):
        mask = np.zeros(shape, np.uint8)
        cv2.fillPoly(mask, polygons, 1)
        found[mask > 0] = number
    return found


def test_outlines_show_the_labels_within_a_pixel() -> None:
    labels = discs()
    outlines = decode_outlines(encode_outlines(labels))
    assert sum(first for _, first in outlines) == labels.max()
    differing = filled(outlines, labels.shape) != labels
    assert differing.mean() < 0.02


def test_outlines_keep_holes_and_parts_with_their_instance() -> None:
    labels = np.zeros((60, 400), np.int32)
    labels[5:55, 5:395] = 1
    labels[20:40, 100:300] = 0
    labels[25:35, 150:250] = 2
    outlines = decode_outlines(encode_outlines(labels))
    assert [first for _, first in outlines] == [True, False, True]
    # Sides of several hundred pixels are walked in steps of an int8.
    assert outlines[0][0].max(axis=0).tolist() == [394, 54]


@given(
    arrays(np.int32, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.integers(0, 5))
)
@settings(deadline=None)
def test_any_labels_have_outlines_that_can_be_read_back(labels: np.ndarray) -> None:
    outlines = decode_outlines(encode_outlines(labels))
    assert sum(first for _, first in outlines) == len(set(labels.ravel()) - {0})
    for points, _ in outlines:
        rows, columns = points[:, 1], points[:, 0]
        assert (labels[rows, columns] > 0).any()


# The page ----------------------------------------------------------------------------------


def page(names: list[str], epochs: int = 3) -> str:
    labels = discs()
    image = np.where(labels > 0, 200, 20).astype(np.uint8)
    return render_page(
        Page(
            version="models/particles/versions/4",
            state="finished",
            criterion="label-free score",
            ranked_figure="label_free",
            images=[PageImage(name, image) for name in names],
            epochs=[
                PageEpoch(
                    epoch=epoch,
                    figures={"label_free": epoch / 10},
                    outlines=[encode_outlines(labels)] * len(names),
                    counts=[int(labels.max())] * len(names),
                    explanation="because",
                )
                for epoch in range(epochs, 0, -1)
            ],
        )
    )


def content_of(html: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', html, re.S)
    content: dict[str, object] = json.loads(found.group(1))
    return content


def test_the_page_loads_nothing_and_names_the_version_for_the_command() -> None:
    html = page(["a.tif", "b.tif"])
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)|@import|url\(|https?://""", html)
    content = content_of(html)
    assert content["version"] == "particles/4"
    assert [item["epoch"] for item in content["epochs"]] == [3, 2, 1]
    assert content["epochs"][0]["counts"] == [20, 20]


def test_a_name_cannot_break_out_of_the_page() -> None:
    name = '</script><script>alert(1)</script>"\u2028.tif'
    html = page([name])
    assert html.count("</script>") == 2
    assert content_of(html)["images"][0]["name"] == name


def test_an_image_is_embedded_once_however_many_epochs_there_are() -> None:
    few, many = len(page(["a.tif"], 2)), len(page(["a.tif"], 52))
    assert (many - few) / 50 < 3_000


# Messages ----------------------------------------------------------------------------------


def test_all_unusable_fields_of_a_choice_are_told_at_once() -> None:
    request = pb.SelectCheckpointRequest(name="x", selected_by="  ", reason="r" * 2001)
    with pytest.raises(GranuloError) as caught:
        selections.check_person(request)
    assert [item.field for item in caught.value.violations] == ["selected_by", "reason"]


def test_nothing_can_be_ranked_by_what_a_person_sees_or_by_an_unknown_criterion() -> None:
    for value in (pb.CRITERION_VISUAL, 77):
        with pytest.raises(GranuloError) as caught:
            selections.wanted_criterion(pb.RankCheckpointsRequest(criterion=value))
        assert [item.field for item in caught.value.violations] == ["criterion"]
    assert selections.wanted_criterion(pb.RankCheckpointsRequest()) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "models/m/versions/1",
        "models/m/versions/1/checkpoints/0",
        "models/m/versions/1/checkpoints/01",
        "models/m/versions/x/checkpoints/1",
        "models/m/versions/1/checkpoints/1/x",
    ],
)
def test_what_is_no_checkpoint_name_is_not_found(name: str) -> None:
    with pytest.raises(GranuloError) as caught:
        CheckpointName.parse(name)
    assert caught.value.code.name == "NOT_FOUND"


def test_checkpoint_names_survive_parsing() -> None:
    name = "models/m-1/versions/12/checkpoints/340"
    assert str(CheckpointName.parse(name)) == name
    assert CheckpointName.parse(name).folder.endswith("/checkpoints/000340")
