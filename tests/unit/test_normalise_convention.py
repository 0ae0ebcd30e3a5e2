# SPDX-License-Identifier: GPL-3.0-or-later
import numpy as np
import pytest

from granulo_core.imaging.normalise import (
    GreyLevels,
    InputConvention,
    stretch,
    to_network_input,
)


def gradient(dtype: type, scale: float) -> np.ndarray:
    rows = np.linspace(0.0, 1.0, 64)
    return (np.add.outer(rows, rows) / 2 * scale).astype(dtype)


def test_depth_of_the_file_does_not_change_the_input() -> None:
    eight = to_network_input(gradient(np.uint8, 255))
    sixteen = to_network_input(gradient(np.uint16, 65535))
    real = to_network_input(gradient(np.float32, 1.0))
    assert np.abs(eight.astype(int) - sixteen).max() <= 2
    assert np.abs(real.astype(int) - sixteen).max() <= 1
    assert eight.dtype == np.uint8


def test_offset_and_gain_do_not_change_the_input() -> None:
    image = gradient(np.float32, 1.0)
    assert np.abs(to_network_input(image).astype(int) - to_network_input(40 * image + 7)).max() <= 1


def test_rgb_with_equal_channels_is_grey() -> None:
    image = gradient(np.uint8, 255)
    rgb = np.dstack([image] * 3)
    assert np.abs(to_network_input(rgb).astype(int) - to_network_input(image)).max() <= 1


def test_flat_image_is_black() -> None:
    for value in (0, 17, 255):
        assert not to_network_input(np.full((20, 30), value, np.uint8)).any()


def test_few_bright_pixels_on_a_flat_ground_survive() -> None:
    image = np.zeros((200, 200), np.uint16)
    image[100, 100] = 900
    assert to_network_input(image)[100, 100] > 100


def test_values_that_are_not_finite_count_as_the_lowest() -> None:
    image = gradient(np.float32, 1.0)
    image[3, 3] = np.nan
    image[4, 4] = np.inf
    result = to_network_input(image)
    assert result[3, 3] == 0
    assert result[4, 4] == 0
    assert result.max() > 200


def test_clahe_raises_local_contrast() -> None:
    image = gradient(np.uint8, 255).repeat(4, 0).repeat(4, 1)
    image[100:110, 100:110] += 4
    plain = to_network_input(image, InputConvention())
    local = to_network_input(image, InputConvention(clahe_clip_limit=4.0))

    def contrast(a: np.ndarray) -> float:
        return float(a[100:110, 100:110].mean()) - float(a[90:120, 90:120].mean())

    assert contrast(local) > contrast(plain)


@pytest.mark.parametrize("shape", [(0, 5), (4, 4, 2), (2, 2, 2, 2), (7,)])
def test_arrays_that_are_no_image_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected one grey or RGB image"):
        to_network_input(np.zeros(shape, np.uint8))


def test_convention_survives_json_and_refuses_unknown_keys() -> None:
    convention = InputConvention(low_percentile=1.0, clahe_clip_limit=2.0)
    assert InputConvention.from_json(convention.to_json()) == convention
    with pytest.raises(ValueError, match="newer version"):
        InputConvention.from_json({**convention.to_json(), "sharpen": 1})


def test_impossible_conventions_are_refused() -> None:
    with pytest.raises(ValueError, match="percentiles"):
        InputConvention(low_percentile=60, high_percentile=50)
    with pytest.raises(ValueError, match="white_level"):
        InputConvention(white_level=0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_image_in_strips_is_normalised_as_the_whole(dtype: type) -> None:
    image = (np.random.default_rng(2).gamma(3.0, 20.0, (90, 50)).clip(0, 255)).astype(dtype)
    levels = GreyLevels(image.shape)
    for first in range(0, 90, 40):
        levels.add(image[first : first + 40], first)
    found = levels.range(InputConvention())
    assert found.black == pytest.approx(np.percentile(image, 0.5), rel=1e-6)
    assert found.white == pytest.approx(np.percentile(image, 99.7), rel=1e-6)
    parts = [stretch(image[first : first + 40], found) for first in range(0, 90, 40)]
    np.testing.assert_array_equal(np.vstack(parts), to_network_input(image))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_inverted_image_is_normalised_as_its_negative(dtype: type) -> None:
    image = (np.random.default_rng(2).gamma(3.0, 20.0, (90, 50)).clip(0, 255)).astype(dtype)
    levels = GreyLevels(image.shape)
    levels.add(image)
    found = stretch(image, levels.range(InputConvention(), inverted=True))
    negative = to_network_input(255 - image)
    assert np.abs(found.astype(int) - negative.astype(int)).max() <= 1
