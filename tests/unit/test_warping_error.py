# SPDX-License-Identifier: GPL-3.0-or-later
"""The warping error sees topology and not the course of borders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from granulo_analyzer.domain.warping import _NEIGHBOURS, SIMPLE, foreground, warp, warping_error

EIGHT = np.ones((3, 3), dtype=int)
masks = arrays(np.bool_, (9, 11))


def disc(shape: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(columns - x, rows - y) <= radius


def topology(mask: np.ndarray) -> tuple[int, int]:
    """Number of 4-connected objects and of 8-connected parts of the background."""
    padded = np.pad(mask, 1)
    return ndimage.label(padded)[1], ndimage.label(~padded, EIGHT)[1]


@pytest.fixture
def truth() -> np.ndarray:
    """Four discs of 16 px radius."""
    labels = np.zeros((100, 120), np.uint16)
    for number, (x, y) in enumerate(((25, 25), (80, 25), (25, 70), (80, 70)), start=1):
        labels[disc(labels.shape, x, y, 16)] = number
    return labels


def test_simple_pixels_are_those_whose_flip_changes_no_number_of_parts() -> None:
    for code in range(256):
        around = np.zeros((3, 3), dtype=bool)
        for bit, (row, column) in enumerate(_NEIGHBOURS):
            around[1 + row, 1 + column] = code >> bit & 1
        objects = ndimage.label(around)[0]
        beside = {int(objects[1 + r, 1 + c]) for r, c in _NEIGHBOURS[::2]} - {0}
        # Objects that touch the pixel by a side, and background that touches it at all: by the
        # definition of Kong and Rosenfeld 1989.
        holes = ~around
        holes[1, 1] = False
        parts = len(set(np.unique(ndimage.label(holes, EIGHT)[0])) - {0})
        assert SIMPLE[code] == (len(beside) == 1 and parts == 1), code


@settings(max_examples=150, deadline=None)
@given(masks, masks, st.floats(1, 12))
def test_warping_keeps_the_topology_and_removes_disagreements_only(
    mask: np.ndarray, target: np.ndarray, limit_px: float
) -> None:
    warped = warp(mask, target, limit_px)
    assert topology(warped) == topology(mask)
    moved = warped != mask
    assert (warped[moved] == target[moved]).all()


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, (12, 12), elements=st.integers(0, 3)))
def test_equal_labels_have_no_error(labels: np.ndarray) -> None:
    assert warping_error(labels, labels) == 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(-4, 4), st.integers(-4, 4), st.floats(13.0, 19.0))
def test_a_shifted_border_is_no_error(dx: int, dy: int, radius: float) -> None:
    truth = disc((60, 60), 30, 30, 16).astype(np.uint8)
    assert warping_error(truth, disc((60, 60), 30 + dx, 30 + dy, radius).astype(np.uint8)) == 0.0


def test_a_border_moved_beyond_the_limit_is_an_error(truth: np.ndarray) -> None:
    grown = disc(truth.shape, 25, 25, 24).astype(np.uint16)
    alone = (truth == 1).astype(np.uint16)
    assert warping_error(alone, grown, limit_px=20) == 0.0
    assert warping_error(alone, grown, limit_px=3) > 0.0


def test_a_split_is_an_error_with_and_without_a_gap(truth: np.ndarray) -> None:
    gap, touching = truth.copy(), truth.copy()
    gap[:, 25][truth[:, 25] == 1] = 0
    touching[:, 25:][truth[:, 25:] == 1] = 9
    # Either way a line of 33 px, less one end at which the truth could not have been cut.
    for predicted in (gap, touching):
        assert 0 < warping_error(truth, predicted) * truth.size <= 33


def test_a_merge_a_hole_and_a_missing_or_additional_object_are_errors(truth: np.ndarray) -> None:
    bridge, hole, missing, more = (truth.copy() for _ in range(4))
    bridge[25, 41:64] = 1
    bridge[bridge == 2] = 1
    hole[20:30, 20:30] = 0
    missing[truth == 4] = 0
    more[48:52, 50:54] = 7
    for predicted in (bridge, hole, missing, more):
        assert warping_error(truth, predicted) > 0
        assert warping_error(predicted, truth) > 0


def test_particles_that_touch_stay_apart() -> None:
    labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 3, 0]])
    assert ndimage.label(foreground(labels))[1] == 3
    merged = np.minimum(labels, 1)
    assert warping_error(labels, labels) == 0
    assert warping_error(labels, merged) > 0


def test_nothing_and_everything_are_compared_too() -> None:
    nothing, everything = np.zeros((6, 6), np.uint8), np.ones((6, 6), np.uint8)
    assert warping_error(nothing, nothing) == 0
    assert warping_error(nothing, everything) == 1
    assert 0 < warping_error(everything, nothing) <= 1
    assert warping_error(np.zeros((0, 5), np.uint8), np.zeros((0, 5), np.uint8)) == 0
