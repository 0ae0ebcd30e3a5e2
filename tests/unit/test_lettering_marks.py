# SPDX-License-Identifier: GPL-3.0-or-later
"""Burned-in letters and scale bars are known as such, particles are not."""

import cv2
import numpy as np
import pytest

from granulo_core.imaging.lettering import writing
from granulo_core.imaging.read import Micrograph
from granulo_segmenter.domain.ink import PaintedOver, find_ink
from granulo_segmenter.domain.model import ModelFacts
from granulo_segmenter.domain.options import Invert, Options
from granulo_segmenter.domain.planes import ArrayPlane, blocks, whole
from granulo_segmenter.domain.segmentation import segment


def marked(image: np.ndarray) -> np.ndarray:
    found = writing(image)
    return found.ink | found.boxes


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
    found = marked(image.astype(dtype) * dtype(1 if dtype is np.uint8 else 200))
    assert np.count_nonzero(found & marks) > 0.8 * np.count_nonzero(marks)
    assert np.count_nonzero(found & ~marks) < 0.05 * np.count_nonzero(marks)


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("letter", ["a", "h", "A"])
@pytest.mark.parametrize("scale", [0.8, 2.0])
def test_a_lone_letter_in_a_corner_labels_a_panel(ink: int, letter: str, scale: float) -> None:
    image = particles(1)
    image[:70, :60] = 70
    drawn = image.copy()
    place = (12, 14 + round(22 * scale))
    cv2.putText(drawn, letter, place, cv2.FONT_HERSHEY_DUPLEX, scale, ink, round(3 * scale))
    marks = drawn != image
    assert np.count_nonzero(marked(drawn) & marks) > 0.8 * np.count_nonzero(marks)
    aside = image.copy()
    cv2.putText(aside, letter, (150, 120), cv2.FONT_HERSHEY_DUPLEX, scale, ink, round(3 * scale))
    assert not marked(aside).any()


@pytest.mark.parametrize("ground", [0, 255])
def test_a_box_with_letters_is_found_as_a_whole(ground: int) -> None:
    image = particles(3)
    image[:50, :65] = 70
    box = np.s_[5:45, 8:60]
    image[box] = ground
    cv2.putText(image, "(b)", (14, 32), cv2.FONT_HERSHEY_DUPLEX, 0.7, 255 - ground, 1)
    found = writing(image).boxes
    assert found[box].all()
    assert np.count_nonzero(found) == found[box].size


@pytest.mark.parametrize("ground", [0, 255])
def test_a_small_box_whose_letters_touch_its_edge_is_found(ground: int) -> None:
    large = np.full((1200, 1680), 110, np.uint8)
    large[1116:1180, 12:132] = ground
    cv2.putText(large, "1 um", (24, 1160), cv2.FONT_HERSHEY_DUPLEX, 1.2, 255 - ground, 3)
    # As a figure is made smaller for print: the edges of letters and box run into one another.
    image = cv2.GaussianBlur(cv2.resize(large, None, fx=0.25, fy=0.25), (0, 0), 0.6)
    found = writing(image).boxes
    assert found[280:294, 4:32].all()
    assert np.count_nonzero(found) < 1.2 * 16 * 30


@pytest.mark.parametrize("level", [190, 225])
def test_an_upright_cuboid_with_dark_pits_is_no_box(level: int) -> None:
    image = np.random.default_rng(6).normal(70, 8, (300, 420))
    image[270:290, 380:400] = 255  # what is white elsewhere
    image[12:60, 12:80] = level
    for column in (30, 45, 60):
        image[30:42, column : column + 4] = 60
    image = cv2.GaussianBlur(image, (0, 0), 0.6).clip(0, 255).astype(np.uint8)
    assert not writing(image).boxes.any()


def test_nothing_is_left_of_the_edge_of_a_box() -> None:
    image = np.full((300, 420), 90, np.uint8)
    image[5:65, 8:90] = 255
    cv2.putText(image, "(b)", (20, 45), cv2.FONT_HERSHEY_DUPLEX, 1.0, 0, 2)
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.2)
    sharpened = blurred + 0.6 * (blurred - cv2.GaussianBlur(blurred, (0, 0), 1.5))
    drawn = ArrayPlane(sharpened.clip(0, 255).astype(np.uint8))
    clean = PaintedOver(drawn, find_ink(drawn)).read(whole(image.shape))
    assert np.abs(clean.astype(int) - 90).max() <= 5


def test_a_box_without_letters_is_a_particle() -> None:
    image = particles(3)
    image[5:45, 8:60] = 255
    assert not marked(image).any()


def test_dull_letters_are_found_and_bright_rims_are_not() -> None:
    rng = np.random.default_rng(5)
    image = rng.normal(60, 6, (300, 420))
    cv2.circle(image, (300, 80), 30, 255.0, -1)
    for column in range(30, 400, 34):  # rims of spheres in a row, each as bright as it happens
        level = float(rng.uniform(170, 240))
        cv2.circle(image, (column, 200 + int(rng.integers(-4, 5))), 12, level, 2)
    image = cv2.GaussianBlur(image, (0, 0), 0.6).clip(0, 255).astype(np.uint8)
    assert not marked(image).any()
    drawn = image.copy()
    cv2.putText(drawn, "200 nm", (20, 280), cv2.FONT_HERSHEY_DUPLEX, 0.7, 200, 2)
    marks = drawn != image
    assert np.count_nonzero(marked(drawn) & marks) > 0.8 * np.count_nonzero(marks)


@pytest.mark.parametrize("seed", range(6))
def test_particles_are_no_letters(seed: int) -> None:
    assert not marked(particles(seed)).any()
    assert not marked(255 - particles(seed)).any()


def test_bars_without_letters_are_rods() -> None:
    image = np.full((200, 300), 60, np.uint8)
    for row in range(20, 180, 30):
        cv2.rectangle(image, (40, row), (200, row + 6), 255, -1)
    assert not marked(image).any()


@pytest.mark.parametrize("value", [0, 7, 255])
def test_flat_images_hold_no_writing(value: int) -> None:
    assert not marked(np.full((40, 50), value, np.uint8)).any()


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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_ink_is_painted_over_from_its_surroundings_and_nothing_else_changes(dtype: type) -> None:
    image, marks = burned(particles(4), 255)
    image = image.astype(dtype) * dtype(100 if dtype is np.uint16 else 1)
    plane = ArrayPlane(image.copy())
    ink = find_ink(plane)
    clean = PaintedOver(plane, ink).read(whole(image.shape))
    near = cv2.dilate(marks.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    assert clean.dtype == image.dtype
    assert (clean[~near] == image[~near]).all()
    assert not marked(clean).any()
    assert (plane.array == image).all()


def test_what_is_painted_over_does_not_depend_on_the_window() -> None:
    image, _ = burned(particles(4), 0)
    clean = PaintedOver(ArrayPlane(image), find_ink(ArrayPlane(image)))
    at_once = clean.read(whole(image.shape))
    for block in blocks(image.shape, 37):
        assert (clean.read(block) == at_once[block.slices]).all()


def test_particles_under_writing_are_found_whole() -> None:
    image = np.full((300, 420), 40, np.uint8)
    cv2.circle(image, (110, 250), 40, 160, -1)
    drawn, _ = burned(image, 255, 0.7)
    drawn[:60, :80] = 255
    cv2.circle(drawn, (80, 60), 25, 160, -1)
    drawn[5:50, 5:70] = 0
    cv2.putText(drawn, "(b)", (14, 32), cv2.FONT_HERSHEY_DUPLEX, 0.7, 255, 1)
    drawn[50:60, :80] = drawn[:50, 70:80] = drawn[:5, :80] = drawn[:50, :5] = 40
    cv2.circle(drawn, (95, 70), 18, 160, -1)

    def predict(tiles, names):  # type: ignore[no-untyped-def]
        for tile in tiles:
            mask = (tile > 128).astype(np.float32)
            yield {name: cv2.blur(mask, (3, 3)) * mask for name in names}

    facts = ModelFacts(stride=8, tile_px=512)
    micrograph = Micrograph(drawn, None, drawn.shape[0], "test")
    found = segment(micrograph, facts, predict, options=Options(invert=Invert.NO))
    assert found.particle_count == 2
    disc = cv2.circle(np.zeros_like(image), (110, 250), 40, 1, -1) > 0
    own = found.labels == found.labels[225, 110]
    assert np.count_nonzero(own & disc) > 0.9 * np.count_nonzero(own | disc)
    assert not found.labels[5:50, 5:70].any()  # a box shows nothing of what is under it
