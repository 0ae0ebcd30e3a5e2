# SPDX-License-Identifier: GPL-3.0-or-later
from dataclasses import replace

import numpy as np
import pytest

from granulo_core.imaging.annotations import fit_scale_bar
from granulo_core.imaging.appearance import Layers, Look, draw, draw_annotated
from granulo_core.imaging.databar import find_content_height

LOOK = Look(substrate_level=0.4, rim_strength=0.0, gaussian_noise=0.03)
UNITS_NM = {"nm": 1.0, "um": 1e3, "mm": 1e6}


def bare(height: int = 240, width: int = 320, pixel_size_nm: float = 4.0) -> Layers:
    """An empty substrate."""
    normals = np.zeros((height, width, 3), np.int8)
    normals[..., 2] = 127
    return Layers(
        occlusion=np.full((height, width), 255, np.uint8),
        normals=normals,
        height_nm=np.zeros((height, width), np.float16),
        instances=np.zeros((height, width), np.uint16),
        pixel_size_nm=pixel_size_nm,
    )


@pytest.mark.parametrize("pixel_size_nm", [0.03, 0.5, 1.0, 3.7, 48.0, 999.0, 12345.0])
def test_scale_bars_say_their_true_and_round_length(pixel_size_nm: float) -> None:
    bar = fit_scale_bar(pixel_size_nm, 120.0)
    number, unit = bar.label.split()
    printed_nm = float(number) * UNITS_NM[unit]
    assert bar.length_px * pixel_size_nm == pytest.approx(printed_nm, rel=1e-9)
    assert bar.length_nm == pytest.approx(printed_nm, rel=1e-9)
    digits = printed_nm / 10 ** np.floor(np.log10(printed_nm * 1.0000001))
    assert round(digits, 6) in (1, 2, 5)
    assert 0.39 * 120 <= bar.length_px <= 120


@pytest.mark.parametrize("seed", range(8))
def test_the_drawn_bar_is_as_long_as_its_label_says(seed: int) -> None:
    look = replace(LOOK, substrate_level=0.0, particle_level=0.0, gaussian_noise=0.0)
    layers = bare(pixel_size_nm=3.3)
    look = replace(look, scale_bar=1.0, substrate_texture=0.0)
    image, covered = draw_annotated(layers, look, np.random.default_rng(seed))
    rows = np.flatnonzero(covered.any(axis=1))
    on_white_paper = bool(
        np.ptp(covered[rows].sum(axis=1)) == 0 and np.median(image[covered]) > 0.5
    )
    ink = np.where(covered, 1.0 - image, 0.0) if on_white_paper else image
    lengths_px = ink[rows].sum(axis=1)
    # The bar's rows are equal, and longer than any row of letters.
    longest = lengths_px.max()
    assert np.isclose(lengths_px, longest, atol=0.02).sum() >= 2
    lengths_nm = longest * 3.3
    digits = lengths_nm / 10 ** np.floor(np.log10(lengths_nm * 1.001))
    assert np.abs(digits - np.array([1, 2, 5])).min() < 0.01


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.06, 0.1, 0.2])
def test_data_bars_are_found_where_they_were_burned_in(share: float, seed: int) -> None:
    layers = bare(480, 640)
    look = replace(LOOK, data_bar=share)
    image, covered = draw_annotated(layers, look, np.random.default_rng(seed))
    tall = round(share * 480)
    assert covered[-tall:].all()
    assert not covered[:-tall].any()
    pixels = np.rint(image * 255).astype(np.uint8)
    assert abs(find_content_height(pixels) - (480 - tall)) <= 1
    assert len(np.unique(image[-tall:])) > 2


def test_scale_bars_stand_in_the_data_bar_where_there_is_one() -> None:
    look = replace(LOOK, data_bar=0.15)
    for seed in range(6):
        plain = draw(bare(), look, np.random.default_rng(seed))
        image, covered = draw_annotated(
            bare(), replace(look, scale_bar=1.0), np.random.default_rng(seed)
        )
        assert not np.array_equal(image, plain)
        assert np.array_equal(image[:-36], plain[:-36])
        assert covered.sum() == 36 * 320


@pytest.mark.parametrize("seed", range(6))
def test_only_covered_pixels_differ_from_the_bare_micrograph(seed: int) -> None:
    for extra in ({"data_bar": 0.1}, {"scale_bar": 1.0}, {"data_bar": 0.1, "scale_bar": 1.0}):
        image, covered = draw_annotated(bare(), replace(LOOK, **extra), np.random.default_rng(seed))
        plain = draw(bare(), LOOK, np.random.default_rng(seed))
        assert np.array_equal(image[~covered], plain[~covered])
        assert 0.0005 < covered.mean() < 0.3
        assert 0.0 <= image.min() <= image.max() <= 1.0


def test_nothing_is_covered_without_annotations() -> None:
    image, covered = draw_annotated(bare(), LOOK, np.random.default_rng(0))
    assert not covered.any()
    assert np.array_equal(image, draw(bare(), LOOK, np.random.default_rng(0)))


def test_annotations_are_deterministic_and_differ_from_scene_to_scene() -> None:
    look = replace(LOOK, data_bar=0.1, scale_bar=1.0)
    masks = [draw(bare(), look, np.random.default_rng(seed))[-24:] for seed in (1, 1, 2, 3)]
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])
    assert not np.array_equal(masks[2], masks[3])


@pytest.mark.parametrize("side", [16, 33, 64])
def test_small_images_take_annotations_too(side: int) -> None:
    look = replace(LOOK, data_bar=0.2, scale_bar=1.0)
    for chosen in (look, replace(look, data_bar=0.0)):
        for seed in range(4):
            image, covered = draw_annotated(bare(side, side), chosen, np.random.default_rng(seed))
            assert image.shape == (side, side)
            assert covered.any()
