# SPDX-License-Identifier: GPL-3.0-or-later
"""The paper's recipe: its sizes follow the pixel size, and touching discs are divided."""

from pathlib import Path

import numpy as np
import pytest

from granulo_core.imaging.classic import (
    SIO2,
    TIO2,
    PaperParams,
    chamfer_distance,
    otsu_watershed,
    segment_mask,
    segment_probability,
)
from granulo_core.imaging.labels import decode_labels
from granulo_core.imaging.matching import evaluate
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.read import read_micrograph

PAPER = PixelSize.square(1 / 1.0309)


def discs(*circles: tuple[float, float, float], shape: tuple[int, int] = (200, 200)) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, dtype=bool)
    for row, column, radius in circles:
        mask |= (y - row) ** 2 + (x - column) ** 2 <= radius**2
    return mask


def test_chamfer_distance_equals_the_definition() -> None:
    rng = np.random.default_rng(2)
    mask = rng.random((23, 31)) > 0.1
    y, x = np.nonzero(~mask)
    rows, columns = np.mgrid[:23, :31]
    dy = np.abs(rows[..., None] - y)
    dx = np.abs(columns[..., None] - x)
    expected = (3 * np.maximum(dx, dy) + np.minimum(dx, dy)).min(axis=-1)
    np.testing.assert_array_equal(chamfer_distance(mask), expected)


def test_a_mask_without_background_has_its_middle_farthest() -> None:
    distance = chamfer_distance(np.ones((9, 9), dtype=bool))
    assert distance.argmax() == 40
    assert distance[0, 0] == 3


def test_touching_discs_are_divided_and_keep_every_pixel() -> None:
    mask = discs((100, 60, 30), (100, 115, 30), (40, 160, 20))
    labels = segment_mask(mask, PAPER)
    assert labels.max() == 3
    np.testing.assert_array_equal(labels > 0, mask)
    assert len({labels[100, 60], labels[100, 115], labels[40, 160]}) == 3


def test_an_ellipse_is_not_divided() -> None:
    y, x = np.mgrid[:200, :200]
    mask = ((y - 100) / 30) ** 2 + ((x - 100) / 70) ** 2 <= 1
    assert segment_mask(mask, PAPER).max() == 1


def test_the_dynamic_decides_about_a_neck() -> None:
    mask = discs((100, 70, 30), (100, 110, 30))
    assert segment_mask(mask, params=PaperParams(dynamic_px=4)).max() == 2
    assert segment_mask(mask, params=PaperParams(dynamic_px=12)).max() == 1


@pytest.mark.parametrize(("params", "paper_px"), [(SIO2, 400), (TIO2, 600)])
def test_area_opening_removes_the_paper_s_areas_at_the_paper_s_scale(
    params: PaperParams, paper_px: int
) -> None:
    mask = np.zeros((200, 200), dtype=bool)
    mask[:10, : paper_px // 10] = True
    assert segment_mask(mask, PAPER, params).max() == 1
    mask[0, 0] = False
    assert segment_mask(mask, PAPER, params).max() == 0


def test_area_opening_follows_the_pixel_size() -> None:
    mask = discs((100, 100, 4))
    assert segment_mask(mask, PAPER).max() == 0
    assert segment_mask(mask, PixelSize.square(7.344)).max() == 1


def test_without_a_pixel_size_scraps_are_judged_by_the_median() -> None:
    mask = discs((40, 40, 20), (40, 120, 22), (120, 40, 21), (150, 150, 3))
    assert segment_mask(mask).max() == 3


def test_a_component_too_shallow_for_the_dynamic_stays_one_particle() -> None:
    mask = discs((100, 100, 5))
    params = PaperParams(min_area_px=0, dynamic_px=20)
    np.testing.assert_array_equal(segment_mask(mask, params=params) > 0, mask)


def test_the_threshold_is_above_0_51() -> None:
    foreground = np.full((100, 100), 0.51)
    assert segment_probability(foreground, PAPER).max() == 0
    foreground[20:60, 20:60] = 0.52
    assert segment_probability(foreground, PAPER).max() == 1


def test_nothing_to_find_gives_no_particles() -> None:
    assert otsu_watershed(np.full((64, 64), 7, np.uint8)).max() == 0
    assert segment_mask(np.zeros((64, 64), dtype=bool)).max() == 0


def test_parameters_that_make_no_sense_are_refused() -> None:
    for options in ({"threshold": 1.0}, {"min_area_px": -1}, {"dynamic_nm": float("nan")}):
        with pytest.raises(ValueError, match="must"):
            PaperParams(**options)


def test_otsu_finds_bright_discs_in_noise() -> None:
    mask = discs((50, 50, 25), (50, 98, 25), (140, 100, 30))
    rng = np.random.default_rng(1)
    pixels = (rng.normal(60, 10, mask.shape) + 100 * mask).clip(0, 255).astype(np.uint8)
    assert otsu_watershed(pixels).max() == 3


def test_otsu_is_a_fair_baseline_on_real_micrographs(shared_micrographs: Path) -> None:
    scores = []
    for path in sorted(shared_micrographs.glob("tio2_sem/*_m.tif")):
        truth = decode_labels(path, "binary")[:712]
        micrograph = read_micrograph(path.with_name(path.name.replace("_m", "")))
        scores.append(evaluate(truth, otsu_watershed(micrograph.content))["f1"])
    assert np.mean(scores) > 0.8
