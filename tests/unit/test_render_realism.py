# SPDX-License-Identifier: GPL-3.0-or-later
"""Realism: distances between rendered and reference micrographs, and the curves behind them."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import ndimage

from granulo_core.imaging import patch_texture as texture
from granulo_core.imaging.profiles import line_profile
from granulo_render.domain.realism import (
    Comparison,
    compare,
    grey_level_density,
    grey_level_distance,
    radial_spectrum_db,
    spectrum_distance_db,
)

DISTANCES = ("grey_level_distance", "spectrum_distance_db", "feature_distance")


def field(seed: int, sigma_px: float = 2.0, level: float = 0.5, shape=(192, 192)) -> np.ndarray:
    """Blurred noise with a standard deviation of 0.1."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma_px)
    return np.clip(level + 0.1 * noise / noise.std(), 0, 1)


def fields(first: int, count: int = 4, **kwargs) -> list[np.ndarray]:
    return [field(first + i, **kwargs) for i in range(count)]


def distances(comparison: Comparison) -> list[float]:
    return [getattr(comparison, name) for name in DISTANCES]


def test_profile_of_a_ramp_is_the_ramp() -> None:
    image = np.tile(np.arange(20.0), (10, 1))
    x, intensity = line_profile(image, (2.5, 5.0, 12.5, 5.0))
    np.testing.assert_allclose(x, np.arange(11))
    np.testing.assert_allclose(intensity, np.arange(2, 13))
    _, between = line_profile(image, (3.0, 5.0, 5.0, 5.0))
    np.testing.assert_allclose(between, [2.5, 3.5, 4.5])


def test_profile_runs_from_its_first_end_to_its_second_in_steps_of_at_most_a_pixel() -> None:
    image = np.add.outer(np.arange(30.0), 2 * np.arange(30.0))
    x, intensity = line_profile(image, (20.5, 15.5, 5.5, 7.5))
    assert x[-1] == pytest.approx(17)
    assert np.diff(x).max() <= 1
    np.testing.assert_allclose(intensity[[0, -1]], [15 + 40, 7 + 10])


def test_width_of_a_profile_averages_across_the_line() -> None:
    image = np.zeros((11, 20))
    image[5] = 1.0
    _, narrow = line_profile(image, (1, 5.5, 19, 5.5))
    _, wide = line_profile(image, (1, 5.5, 19, 5.5), width_px=5)
    np.testing.assert_allclose(narrow, 1)
    np.testing.assert_allclose(wide, 0.2)


@pytest.mark.parametrize(
    ("line", "message"),
    [((0, 0, 21, 5), "20 x 10 px"), ((3, 3, 3, 3), "length"), ((0, 0, np.nan, 5), "finite")],
)
def test_line_that_gives_no_profile_is_refused(line, message) -> None:
    with pytest.raises(ValueError, match=message):
        line_profile(np.zeros((10, 20)), line)


def test_grey_level_density_integrates_to_one_and_weighs_images_alike() -> None:
    dark, bright = np.zeros((8, 8)), np.ones((64, 64))
    level, density = grey_level_density([dark, bright])
    assert np.sum(density) / 255 == pytest.approx(1)
    np.testing.assert_allclose(density[[0, -1]], density.sum() / 2)
    assert (level[0], level[-1]) == (0, 1)


def test_grey_level_distance_is_the_shift() -> None:
    images = fields(0, 2)
    assert grey_level_distance(images, [i + 20 / 255 for i in images]) == pytest.approx(20 / 255)


@pytest.mark.parametrize("shape", [(256, 256), (300, 171)])
def test_spectrum_of_white_noise_is_its_variance_at_every_frequency_and_size(shape) -> None:
    image = 0.5 + np.random.default_rng(1).normal(0, 0.1, shape)
    frequency, power = radial_spectrum_db(image)
    assert 0 < frequency[0] < frequency[-1] <= 0.5
    assert np.mean(power[10:]) == pytest.approx(-20, abs=0.3)


def test_spectrum_of_a_wave_peaks_at_its_frequency() -> None:
    x = np.arange(200)
    image = 0.5 + 0.2 * np.tile(np.sin(2 * np.pi * 0.15 * x), (160, 1))
    frequency, power = radial_spectrum_db(image)
    assert frequency[np.argmax(power)] == pytest.approx(0.15, abs=0.005)


def test_spectrum_of_an_even_image_is_what_rounding_adds() -> None:
    _, power = radial_spectrum_db(np.full((64, 64), 0.3))
    np.testing.assert_allclose(power, 10 * np.log10(1 / 255**2 / 12))


def test_half_the_contrast_is_six_decibels() -> None:
    images = fields(0, 3, sigma_px=0.7)
    faint = [0.5 + (image - 0.5) / 2 for image in images]
    assert spectrum_distance_db(images, faint) == pytest.approx(6.02, abs=0.1)


def test_equal_sets_are_no_distance_apart_in_any_order() -> None:
    images = fields(0)
    result = compare(images, images[::-1])
    assert distances(result) == pytest.approx([0, 0, 0], abs=1e-12)
    assert result.feature_distance_ratio == 0


def test_distances_are_symmetric() -> None:
    first, second = fields(0), fields(10, 3, sigma_px=3.0, level=0.4)
    assert distances(compare(first, second)) == pytest.approx(distances(compare(second, first)))


def test_distances_grow_with_the_difference() -> None:
    references = fields(0)
    steps = [
        distances(compare(references, fields(10, sigma_px=2 + step, level=0.5 + step / 10)))
        for step in (0, 0.4, 1, 2)
    ]
    for near, far in itertools.pairwise(steps):
        assert np.all(np.greater(far, near))


def test_ratio_is_about_one_for_more_of_the_same_and_large_for_something_else() -> None:
    references = fields(0)
    assert compare(references, fields(10)).feature_distance_ratio < 1.3
    assert compare(references, fields(10, sigma_px=4.0)).feature_distance_ratio > 5


def test_texture_tells_lines_from_noise_of_the_same_spectrum() -> None:
    lines, more_lines, scrambled = [], [], []
    for seed in range(8):
        band = np.abs(field(seed, sigma_px=3.0, shape=(256, 256)) - 0.5) < 0.03
        image = 0.4 + 0.2 * ndimage.gaussian_filter(band.astype(float), 1.0, mode="wrap")
        (lines if seed < 4 else more_lines).append(image)
        if seed >= 4:
            noise = np.random.default_rng(seed).normal(size=image.shape)
            phases = np.exp(1j * np.angle(np.fft.fft2(noise - noise.mean() + 1)))
            scrambled.append(np.fft.ifft2(np.abs(np.fft.fft2(image)) * phases).real)
    like, unlike = compare(lines, more_lines), compare(lines, scrambled)
    assert unlike.spectrum_distance_db < 1
    assert like.feature_distance_ratio < 1.3
    assert unlike.feature_distance_ratio > 2 * like.feature_distance_ratio


def test_images_of_different_sizes_compare() -> None:
    first, second = fields(0, shape=(192, 300)), fields(10, shape=(256, 200))
    result = compare(first, second)
    assert result.patch_px == 72
    assert result.feature_distance_ratio < 1.5
    assert result.spectrum_distance_db < 1.5


def test_images_smaller_than_a_patch_use_a_smaller_patch() -> None:
    result = compare(fields(0, 8, shape=(60, 90)), fields(10))
    assert result.patch_px == 60
    assert np.isfinite(distances(result)).all()


def test_single_reference_is_halved_by_its_patches() -> None:
    result = compare([field(0)], [field(1, sigma_px=4.0)])
    assert result.patch_px == 36
    assert 1 < result.feature_distance_ratio < np.inf


def test_references_that_are_all_alike_give_an_infinite_ratio() -> None:
    alike = np.full((96, 96), 0.5)
    result = compare([alike, alike], [field(0, shape=(96, 96))])
    assert result.feature_distance_ratio == np.inf
    assert np.isfinite(distances(result)).all()


def test_large_images_are_described_by_a_limited_number_of_patches() -> None:
    images = [np.full((24 * 30, 24 * 30), 0.5), np.full((48, 48), 0.5)]
    features = texture.image_features(images, 24)
    assert sum(len(part) for part in features) <= 401
    assert len(features[1]) >= 1


def test_patches_reach_from_edge_to_edge_and_share_no_pixel() -> None:
    image = np.arange(100 * 130, dtype=float).reshape(100, 130)
    patches = texture.cut_patches(image, 40)
    assert patches.shape == (6, 40, 40)
    assert len(np.unique(patches)) == patches.size
    assert {0, image[0, -1], image[-1, 0], image[-1, -1]} <= set(patches.ravel())


def test_comparison_has_a_curve_for_every_image_and_set() -> None:
    result = compare(fields(0, 2), fields(10, 1))
    assert [c.label for c in result.profiles] == ["reference 1", "reference 2", "rendered 1"]
    for curves in (result.grey_levels, result.spectra):
        assert {c.label for c in curves} == {
            "references", "reference 1", "reference 2", "rendered", "rendered 1"
        }  # fmt: skip
        assert all(c.x.shape == c.y.shape and np.isfinite(c.y).all() for c in curves)
    assert result.profiles[0].x[-1] == 191


def test_comparison_is_the_same_every_time() -> None:
    first, second = (
        dataclasses.asdict(compare(fields(0, 2), fields(5, 2, sigma_px=3.0))) for _ in range(2)
    )
    for name in (*DISTANCES, "feature_distance_ratio"):
        assert first[name] == second[name]


def test_unusable_images_are_refused_by_name() -> None:
    good = fields(0, 1)
    with pytest.raises(ValueError, match="no rendered image"):
        compare(good, [])
    with pytest.raises(ValueError, match=r"reference 2 .*shape"):
        compare([*good, np.zeros((5, 5))], good)
    with pytest.raises(ValueError, match=r"rendered 1 .*finite"):
        compare(good, [np.full((32, 32), np.nan)])
    with pytest.raises(ValueError, match=r"rendered 1: the profile .* leaves the image"):
        compare(good, fields(1, 1, shape=(64, 64)), line=(0, 0, 100, 100))
