# SPDX-License-Identifier: GPL-3.0-or-later
"""Data bars of many makes are cut to the row, and micrographs without one are left whole."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from granulo_core.imaging.databar import find_content_height, find_content_height_in
from granulo_core.imaging.read import read_micrograph

HEIGHT, WIDTH = 480, 640
WORDS = "EHT = 20.00 kV   WD = 4.9 mm   Mag = 50.00 K X   200 nm"


def micrograph(level: float = 70, noise: float = 6, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.normal(level, noise, (HEIGHT, WIDTH))
    for _ in range(40):
        at = (int(rng.uniform(0, WIDTH)), int(rng.uniform(0, HEIGHT)))
        disc = cv2.circle(np.zeros(image.shape, np.uint8), at, int(rng.uniform(8, 25)), 100, -1)
        image += disc
    return image.clip(1, 250).astype(np.uint8)


def drawn(height: int, width: int, ground: int, ink: int, extras: str = "") -> np.ndarray:
    picture = Image.new("L", (width, height), ground)
    draw = ImageDraw.Draw(picture)
    if "frame" in extras:
        draw.rectangle((0, 0, width - 1, height - 1), outline=ink)
    if "columns" in extras:
        for column in range(width // 5, width, width // 5):
            draw.line((column, 0, column, height), fill=ink)
    draw.text((width // 20, height // 2 - 5), WORDS, fill=ink)
    draw.rectangle((width - 90, height // 2 + 6, width - 30, height // 2 + 8), fill=ink)
    if "logo" in extras:
        draw.rectangle((width - 28, 4, width - 6, height - 5), fill=ink)
    return np.asarray(picture)


def below(bar: np.ndarray, image: np.ndarray | None = None) -> np.ndarray:
    return np.vstack([micrograph() if image is None else image, bar])


@pytest.mark.parametrize(
    "bar",
    [
        drawn(56, WIDTH, 0, 255),
        drawn(44, WIDTH, 255, 0, "logo"),
        drawn(60, WIDTH, 0, 255, "frame logo"),
        drawn(70, WIDTH, 255, 0, "frame columns"),
        drawn(48, WIDTH, 40, 230, "columns"),
        drawn(120, WIDTH, 0, 190),
        drawn(24, WIDTH, 128, 255),
    ],
    ids=["JEOL", "Zeiss white", "Zeiss framed", "Thermo Fisher", "TESCAN", "tall", "grey"],
)
@pytest.mark.parametrize("level", [30, 70, 160])
def test_a_bar_across_the_image_is_cut_to_the_row(bar: np.ndarray, level: int) -> None:
    found = find_content_height(below(bar, micrograph(level)))
    # A frame of one pixel belongs to the bar, whether it is counted or not.
    assert HEIGHT <= found <= HEIGHT + 1


@pytest.mark.parametrize(("ground", "ink"), [(0, 255), (255, 0)])
@pytest.mark.parametrize("margin", [10, 43, 90])
def test_a_box_within_the_image_is_cut_where_it_begins(ground: int, ink: int, margin: int) -> None:
    image = micrograph()
    image[420:460, margin : WIDTH - margin] = drawn(40, WIDTH - 2 * margin, ground, ink)
    assert find_content_height(image) == 420


def test_a_small_box_is_left_in() -> None:
    image = micrograph()
    image[430:465, 400:620] = drawn(35, 220, 255, 0)
    assert find_content_height(image) == HEIGHT


def test_a_box_without_writing_is_left_in() -> None:
    image = micrograph()
    image[420:460, 40:600] = 0
    assert find_content_height(image) == HEIGHT


@settings(max_examples=12, deadline=None)
@given(
    level=st.floats(0, 255), noise=st.floats(0, 40), seed=st.integers(0, 99),
    ramp=st.floats(-0.4, 0.4),
)  # fmt: skip
def test_no_micrograph_without_a_bar_is_cut(
    level: float, noise: float, seed: int, ramp: float
) -> None:
    image = micrograph(level, noise, seed).astype(float) + ramp * np.arange(HEIGHT)[:, None]
    assert find_content_height(image.clip(0, 255).astype(np.uint8)) == HEIGHT


@pytest.mark.parametrize("value", [0, 255])
def test_black_white_and_saturated_images_are_left_whole(value: int) -> None:
    assert find_content_height(np.full((HEIGHT, WIDTH), value, np.uint8)) == HEIGHT
    image = micrograph()
    image[(image > 60) if value else (image < 120)] = value
    assert find_content_height(image) == HEIGHT


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3), (17, 17)])
def test_images_too_small_for_a_bar_are_left_whole(shape: tuple[int, int]) -> None:
    assert find_content_height(np.eye(*shape, dtype=np.uint8)) == shape[0]


def test_only_the_foot_of_a_large_image_is_looked_at() -> None:
    asked: list[tuple[int, int]] = []

    def rows(top: int, bottom: int) -> np.ndarray:
        asked.append((top, bottom))
        return np.full((bottom - top, 100), 9, np.uint8)

    assert find_content_height_in(rows, (20_000, 100)) == 20_000
    assert asked == [(20_000 - 1024 - 4, 20_000)]


def test_the_box_of_old_fei_files_is_cut(shared_micrographs: Path) -> None:
    paths = sorted(shared_micrographs.glob("vendor_tiff/*.tif"))
    assert len(paths) == 2
    for path in paths:
        found = read_micrograph(path)
        assert 415 <= found.content_height_px <= 423, path
        ground = (found.content[-40:] == 0).mean()
        assert ground < 0.01
