# SPDX-License-Identifier: GPL-3.0-or-later
"""The warping error counts what is wrong with the topology, and nothing else."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from granulo_analyzer.domain.warping import _apart, _simple_points, _warp, warping_error

_RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


def discs(*places: tuple[int, int, int], side: int = 120) -> np.ndarray:
    labels = np.zeros((side, side), np.int32)
    for number, (x, y, radius) in enumerate(places, start=1):
        cv2.circle(labels, (x, y), radius, number, cv2.FILLED)
    return labels.astype(np.uint32)


TWO = ((40, 60, 20), (85, 60, 15))


def holes_and_pieces(image: np.ndarray) -> tuple[int, int]:
    return (
        label(image, np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]]))[1],
        label(~image, np.ones((3, 3)))[1],
    )


@pytest.mark.parametrize("other", [TWO, ((42, 61, 20), (85, 60, 15)), ((40, 60, 17), (85, 60, 18))])
def test_moved_outlines_are_no_error(other: tuple[tuple[int, int, int], ...]) -> None:
    assert warping_error(discs(*TWO), discs(*other)) == 0.0
    assert warping_error(discs(*other), discs(*TWO)) == 0.0


def test_numbers_of_particles_do_not_matter() -> None:
    truth = discs(*TWO)
    assert warping_error(truth, np.where(truth > 0, 100 - truth, 0).astype(np.uint32)) == 0.0


def test_a_missing_particle_costs_its_last_pixels_and_a_false_one_its_area() -> None:
    truth, one = discs(*TWO), discs(TWO[0])
    area = np.count_nonzero(discs(TWO[1]))
    missed, added = (warping_error(*pair) * truth.size for pair in ((truth, one), (one, truth)))
    assert 1 <= missed < area
    assert added == area


def test_touching_particles_that_are_one_disagree_in_their_parting_line() -> None:
    truth = discs((45, 60, 20), (75, 60, 20))
    merged = (truth > 0).astype(np.uint32)
    cut = 2 * int(np.sqrt(20**2 - 15**2))
    for pair in ((truth, merged), (merged, truth)):
        wrong = warping_error(*pair) * truth.size
        assert 1 <= wrong <= 1.6 * cut


def test_a_hole_is_an_error() -> None:
    truth = discs(TWO[0])
    pierced = truth.copy()
    pierced[58:63, 38:43] = 0
    assert warping_error(truth, pierced) * truth.size == pytest.approx(25)


def test_outlines_are_not_moved_without_limit() -> None:
    small, large = discs((60, 60, 10)), discs((60, 60, 50))
    assert warping_error(small, large) > 0.3


@pytest.mark.parametrize("fill", [0, 1])
def test_flat_images(fill: int) -> None:
    flat = np.full((20, 30), fill, np.uint32)
    assert warping_error(flat, flat) == 0.0
    assert warping_error(flat, 1 - flat) > 0.1


def test_simple_points_are_those_whose_flip_keeps_pieces_and_holes() -> None:
    """By brute force: both numbers of the 3 x 3 surroundings in a margin of ground."""
    simple = _simple_points()
    for code in range(256):
        image = np.zeros((5, 5), bool)
        for bit, (row, column) in enumerate(_RING):
            image[2 + row, 2 + column] = code >> bit & 1
        before = holes_and_pieces(image)
        image[2, 2] = True
        keeps = before == holes_and_pieces(image)
        # A pixel of a ring of particles' corners may keep the numbers by joining and dividing at
        # once; simple points never change them.
        assert keeps or not simple[code]
    assert simple[0b00000010]
    assert not simple[0]
    assert not simple[255]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_warping_keeps_the_topology_and_ends_nearer(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def blobs() -> np.ndarray:
        return cv2.GaussianBlur(rng.normal(size=(24, 24)), (0, 0), 1.5) > 0.02

    warped, target = np.pad(blobs(), 1), np.pad(blobs(), 1)
    before = holes_and_pieces(warped)
    apart = np.count_nonzero(warped != target)
    left = _warp(warped, target, np.ones_like(warped))
    assert holes_and_pieces(warped) == before
    assert left == np.count_nonzero(warped != target) <= apart


def test_touching_particles_are_parted() -> None:
    labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 0, 2]], np.uint32)
    assert label(_apart(labels))[1] == 3
