# SPDX-License-Identifier: GPL-3.0-or-later
"""What must not change, or change in a known way, whatever the particles are."""

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from granulo_analyzer.domain.morphology import measure
from granulo_analyzer.domain.morphology.columns import COLUMNS, QUANTITIES

# Blots of a few labels: touching, in pieces, with holes and notches.
BLOTS = arrays(np.uint8, (9, 11), elements=st.integers(0, 3)).map(
    lambda cells: np.kron(cells, np.ones((3, 3), np.uint8))
)
PLACED = {"centroid_x", "centroid_y", "touches_border", "touched_edges", "feret_x", "feret_y"}
TURNED = {"orientation", "max_feret_angle"}
# The first of equal chords, rectangles or paths is taken, and boxes lie on a fixed grid.
CHOSEN = {
    "feret_90", "rectangle_length", "rectangle_width", "geodesic_length", "fibre_width",
    "elongation", "fractal_dimension", "inscribed_diameter", "agglomerate",
}  # fmt: skip
FRAMED = 4
PLATEAU = np.ones((27, 33), np.uint8)
"""Has many circles that are nearly the largest."""
PLATEAU[3:6, 21:24] = 0


def columns_of(labels: np.ndarray, **options: object) -> dict[str, np.ndarray]:
    return dict(measure(np.pad(labels, FRAMED), **options).columns)  # type: ignore[arg-type]


def differing(
    one: dict[str, np.ndarray], other: dict[str, np.ndarray], without: set[str]
) -> list[str]:
    """Columns that differ, of those that are compared."""
    compared = [name for name in one if COLUMNS[name].quantity not in without]
    assert len(compared) > 10
    return [
        name
        for name in compared
        if other[name] != pytest.approx(one[name], rel=1e-4, abs=1e-4, nan_ok=True)
    ]


@given(BLOTS, st.integers(0, 3), st.booleans())
@settings(max_examples=25, deadline=None)
def test_turning_by_90_degrees_and_mirroring_keep_sizes_and_shapes(
    labels: np.ndarray, quarters: int, mirrored: bool
) -> None:
    turned = np.rot90(labels, quarters)[:, :: -1 if mirrored else 1]
    one, other = columns_of(labels), columns_of(turned)
    assert not differing(one, other, PLACED | TURNED | CHOSEN)
    x, y = ("feret_y_px", "feret_x_px") if quarters % 2 else ("feret_x_px", "feret_y_px")
    assert one["feret_x_px"].tolist() == other[x].tolist()
    assert one["feret_y_px"].tolist() == other[y].tolist()


@given(BLOTS, st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=25, deadline=None)
def test_moving_changes_the_place_only(labels: np.ndarray, down: int, right: int) -> None:
    one = columns_of(labels)
    other = columns_of(np.pad(labels, ((down, 0), (right, 0))))
    assert not differing(one, other, {"centroid_x", "centroid_y"} | TURNED | CHOSEN)
    assert other["centroid_x_px"] == pytest.approx(one["centroid_x_px"] + right)
    assert other["centroid_y_px"] == pytest.approx(one["centroid_y_px"] + down)


@given(BLOTS, st.floats(1e-3, 1e4))
@settings(max_examples=15, deadline=None)
def test_lengths_scale_with_the_pixel_and_shapes_do_not(labels: np.ndarray, size: float) -> None:
    plain, known = columns_of(labels), columns_of(labels, pixel_size_nm=(size, size))
    assert not differing(plain, known, set())
    for item in QUANTITIES:
        power = {"length": 1, "area": 2}.get(item.kind)
        if power:
            scaled = plain[item.px_column] * size**power
            assert known[str(item.nm_column)] == pytest.approx(scaled), item.name


@given(BLOTS)
@example(PLATEAU)
@settings(max_examples=15, deadline=None)
def test_oblong_pixels_of_equal_sides_are_square(labels: np.ndarray) -> None:
    # The two ways of computing lengths in nm must meet.
    square = columns_of(labels, pixel_size_nm=(2.0, 2.0))
    oblong = columns_of(labels, pixel_size_nm=(2.0, 2.0 + 1e-9))
    assert not differing(square, oblong, TURNED | CHOSEN - {"inscribed_diameter", "agglomerate"})


@given(BLOTS, st.permutations([1, 2, 3]), st.integers(0, 2**40))
@settings(max_examples=25, deadline=None)
def test_numbering_the_particles_otherwise_reorders_the_rows(
    labels: np.ndarray, order: list[int], offset: int
) -> None:
    new = np.array([0, *(number + offset for number in order)], dtype=np.int64)
    one, other = columns_of(labels), columns_of(new[labels])
    rows = np.argsort(new[one["label"]], kind="stable")
    assert other["label"].tolist() == new[one["label"]][rows].tolist()
    assert not differing(
        {name: values[rows] for name, values in one.items()}, other, {"label", "agglomerate"}
    )


@given(BLOTS)
@settings(max_examples=25, deadline=None)
def test_descriptors_keep_the_order_that_geometry_demands(labels: np.ndarray) -> None:
    found = columns_of(labels)
    close = 1 + 1e-5
    assert np.all(found["min_feret_px"] <= found["max_feret_px"] * close)
    assert np.all(found["feret_90_px"] >= found["min_feret_px"] / close)
    assert np.all(found["rectangle_width_px"] <= found["rectangle_length_px"])
    assert np.all(found["ecd_px"] <= found["max_feret_px"] * close)
    assert np.all(found["max_feret_px"] <= found["geodesic_length_px"] * close)
    assert np.all(found["fibre_width_px"] <= found["geodesic_length_px"] * close)
    assert np.all((found["orientation_deg"] >= 0) & (found["orientation_deg"] < 180))
    assert np.all((found["max_feret_angle_deg"] >= 0) & (found["max_feret_angle_deg"] < 180))
    assert np.all(found["solidity"] <= 1)
    assert np.all(found["roundness"] <= close)
    assert np.all(found["constituents"] <= len(found["label"]))
    assert np.all((found["touched_edges"] > 0) == found["touches_border"])


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_the_number_of_threads_changes_no_figure(seed: int) -> None:
    # Lines as wide over all of their length have several deepest pixels.
    random = np.random.default_rng(seed)
    labels = np.zeros((512, 512), np.uint16)
    for label in range(1, 61):
        start, along = random.uniform(0, 512, 2), random.uniform(-90, 90, 2)
        ends = [tuple(int(value) for value in end) for end in (start, start + along)]
        cv2.line(labels, *ends, label, int(random.integers(5, 17)))
    before = cv2.getNumThreads()
    try:
        found = []
        for threads in (1, 2, 3):
            cv2.setNumThreads(threads)
            found.append(columns_of(labels))
    finally:
        cv2.setNumThreads(before)
    for other in found[1:]:
        for name, values in found[0].items():
            assert np.array_equal(other[name], values, equal_nan=True), name
