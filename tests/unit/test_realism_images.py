# SPDX-License-Identifier: GPL-3.0-or-later
"""Patches, noise and edges of micrographs, and the pictures of a comparison."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from granulo_analyzer.domain.jobs import StoredFile
from granulo_analyzer.domain.realism.comparison import compare, pool
from granulo_analyzer.domain.realism.jobs import (
    CompareJob,
    ComparisonSettings,
    DescribedImage,
    ImageOfSet,
)
from granulo_analyzer.domain.realism.patches import (
    at_random,
    count_patches,
    sequential,
    thinned,
    units,
)
from granulo_analyzer.domain.realism.sharpness import edge_width_px, noise_level
from granulo_analyzer.report.realism import map_figure, profile_figure

SETTINGS = ComparisonSettings(patch_px=48, max_patches=1000, perplexity=50.0, seed=0)


def discs(blur_px: float, noise: float, seed: int = 0, size: int = 256) -> np.ndarray:
    """Bright discs on dark ground, drawn at four times the size."""
    rng = np.random.default_rng(seed)
    fine = np.zeros((4 * size, 4 * size), np.uint8)
    for _ in range(14):
        centre = tuple(int(v) for v in rng.integers(0, 4 * size, 2))
        cv2.circle(fine, centre, int(rng.integers(50, 110)), 1, -1)
    blurred = ndimage.gaussian_filter(fine.astype(np.float32), 4 * blur_px)
    image = cv2.resize(blurred, (size, size), interpolation=cv2.INTER_AREA)
    return 0.2 + 0.5 * image + rng.normal(0, noise, image.shape)


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05, 0.1])
def test_noise_is_told_whatever_lies_in_the_image(noise: float) -> None:
    assert noise_level(discs(1.0, noise)) == pytest.approx(noise, rel=0.05, abs=1e-3)


@pytest.mark.parametrize("blur_px", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_edges_are_as_wide_as_the_blur_and_the_smoothing_make_them(
    blur_px: float, noise: float
) -> None:
    width = 2.563 * np.hypot(blur_px, 1.0)
    assert edge_width_px(discs(blur_px, noise)) == pytest.approx(width, rel=0.1)


def test_without_edges_there_is_no_width() -> None:
    rng = np.random.default_rng(0)
    assert np.isnan(edge_width_px(np.full((64, 64), 0.3)))
    assert np.isnan(edge_width_px(0.5 + rng.normal(0, 0.1, (128, 128))))


@settings(max_examples=50, deadline=None)
@given(st.integers(24, 200), st.integers(24, 200), st.integers(24, 60), st.integers(1, 12))
def test_patches_lie_in_the_image_and_sequential_ones_do_not_overlap(
    height: int, width: int, side: int, most: int
) -> None:
    count = count_patches((height, width), side)
    if not count:
        assert min(height, width) < side
        return
    real, rendered = (
        sequential((height, width), side, most),
        at_random((height, width), side, most, seed=1),
    )
    assert len(real) == len(rendered) == min(count, most)
    for corners in (real, rendered):
        assert (corners >= 0).all()
        assert (corners + side <= (height, width)).all()
    seen = np.zeros((height, width), int)
    for y, x in real:
        seen[y : y + side, x : x + side] += 1
    assert seen.max() == 1


def test_thinning_spreads_evenly_and_a_single_image_counts_as_two_halves() -> None:
    assert thinned(10, 4).tolist() == [0, 2, 5, 7]
    assert thinned(3, 4).tolist() == [0, 1, 2]
    assert units(np.array([4, 4, 7, 7]), np.zeros(4, int)).tolist() == [0, 0, 1, 1]
    assert units(np.array([4, 4, 4, 4]), np.array([50, 0, 0, 50])).tolist() == [1, 0, 0, 1]


def described(set_name: str, number: int, name: str = "") -> DescribedImage:
    name = name or f"{set_name}-{number}"
    file = StoredFile(f"uploads/{name}", f"sha256:{name}", name)
    return DescribedImage(
        ImageOfSet(set_name, number, file), StoredFile("", "", ""), 0.01 * number, None
    )


def tables(images: list[DescribedImage], count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(count, 6)), np.zeros((count, 2), np.int64)) for _ in images]


def test_jobs_travel_as_json() -> None:
    weights = StoredFile("uploads/w", "sha256:w", "w.h5")
    settings_ = replace(SETTINGS, vgg16_weights=weights, line=(0.0, 1.0, 2.5, 3.0))
    job = CompareJob("comparisons/c", (described("real", 1),), settings_, 10)
    assert CompareJob.from_bytes(job.to_bytes()) == job


def test_both_sets_give_as_many_patches() -> None:
    images = [described("real", 1), described("real", 2), described("synthetic", 1)]
    parts = tables(images, 6)
    patches = pool(images, parts, 1000)
    assert np.bincount(patches.image).tolist() == [3, 3, 6]
    assert np.bincount(pool(images, parts, 4).image).tolist() == [2, 2, 4]


def test_the_map_says_how_it_was_made_and_what_weakens_it() -> None:
    images = [described("real", 1, "same"), *(described("synthetic", n) for n in (1, 2))]
    images.append(described("synthetic", 3, "same"))
    found = compare(images, pool(images, tables(images, 8), 1000), SETTINGS)
    figure = map_figure(found, SETTINGS)
    text = "\n".join(item.get_text() for axes in figure.axes for item in axes.texts)
    assert "built-in texture features" in text
    assert "perplexity 5 (not 50: few patches)" in text
    assert "one real image only" in text.replace("\n", " ")
    assert "in both sets" in text.replace("\n", " ")
    assert "expected of identical sets" in text
    facts = found.to_json()
    values = {item["name"]: item["value"] for item in facts["figures"]}
    assert values["edge_width_ratio"] is None
    assert values["noise_ratio"] == pytest.approx(2.0)


def test_the_profile_shows_the_same_line_through_both_images() -> None:
    line = (10.0, 5.0, 50.0, 35.0)
    images = [np.full((60, 80), level) for level in (0.25, 0.75)]
    figure = profile_figure(images, ("a.tif", "b.tif"), replace(SETTINGS, line=line))
    titles = [axes.get_title() for axes in figure.axes]
    assert "real: a.tif" in titles
    assert "synthetic: b.tif" in titles
    curve = next(axes for axes in figure.axes if axes.get_xlabel())
    assert [set(np.round(drawn.get_ydata(), 6)) for drawn in curve.lines] == [{0.25}, {0.75}]
    assert curve.lines[0].get_xdata()[-1] == pytest.approx(50.0)
