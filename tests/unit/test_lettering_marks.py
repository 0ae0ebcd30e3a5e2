# SPDX-License-Identifier: GPL-3.0-or-later
"""Burned-in letters and scale bars are known as such, particles are not."""

import cv2
import numpy as np
import pytest

from granulo_core.imaging.lettering import writing
from granulo_core.imaging.read import Micrograph
from granulo_segmenter.domain.model import ModelFacts
from granulo_segmenter.domain.options import Invert, Options
from granulo_segmenter.domain.segmentation import segment


def particles(seed: int, height: int = 300, width: int = 420) -> np.ndarray:
    """Bright discs in rows of three sizes, some overexposed: the likeness of letters."""
    rng = np.random.default_rng(seed)
    image = rng.normal(70, 8, (height, width))
    for row in range(25, height - 60, 35):
        for column in range(20, width, 30):
            level = float(rng.choice([160, 200, 300]))
            cv2.circle(image, (column, row), int(rng.integers(5, 12)), level, -1)
    return cv2.GaussianBlur(image, (0, 0), 0.8).clip(0, 255).astype(np.uint8)


def burned(image: np.ndarray, ink: int, scale: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    drawn = image.copy()
    height = image.shape[0]
    cv2.putText(
        drawn, "200 nm", (60, height - 25), cv2.FONT_HERSHEY_DUPLEX, scale, ink, round(2 * scale)
    )
    cv2.rectangle(drawn, (60, height - 15), (170, height - 10), ink, -1)
    return drawn, drawn != image


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("scale", [0.5, 0.7, 1.2])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_letters_and_their_bar_are_found(ink: int, scale: float, dtype: type) -> None:
    image, marks = burned(particles(1), ink, scale)
    found = writing(image.astype(dtype) * dtype(1 if dtype is np.uint8 else 200))
    assert np.count_nonzero(found & marks) > 0.8 * np.count_nonzero(marks)
    assert np.count_nonzero(found & ~marks) < 0.05 * np.count_nonzero(marks)


@pytest.mark.parametrize("seed", range(6))
def test_particles_are_no_letters(seed: int) -> None:
    assert not writing(particles(seed)).any()
    assert not writing(255 - particles(seed)).any()


def test_bars_without_letters_are_rods() -> None:
    image = np.full((200, 300), 60, np.uint8)
    for row in range(20, 180, 30):
        cv2.rectangle(image, (40, row), (200, row + 6), 255, -1)
    assert not writing(image).any()


@pytest.mark.parametrize("value", [0, 7, 255])
def test_flat_images_hold_no_writing(value: int) -> None:
    assert not writing(np.full((40, 50), value, np.uint8)).any()


def test_letters_are_no_particles_of_a_segmentation() -> None:
    image, marks = burned(particles(2), 255)

    def predict(tiles, names):  # type: ignore[no-untyped-def]
        for tile in tiles:
            mask = (tile > 128).astype(np.float32)
            yield {name: cv2.blur(mask, (3, 3)) * mask for name in names}

    facts = ModelFacts(stride=8, tile_px=512)
    micrograph = Micrograph(image, None, image.shape[0], "test")
    found = segment(micrograph, facts, predict, options=Options(invert=Invert.NO))
    assert not found.labels[marks].any()
    assert found.particle_count > 50
