# SPDX-License-Identifier: GPL-3.0-or-later
"""Warping error: what is wrong with the topology of a segmentation, not with its outlines.

The truth is warped towards the prediction by flipping pixels that change no topology, the *simple
points* of digital topology, as long as a flip removes a disagreement. What disagrees then is a
split, a merger, a hole, a particle that is missing or too many (Jain et al. 2010, "Boundary
learning by optimization with topological constraints"; simple points: Bertrand and Malandain 1994).
As there, flips are made greedily: the optimum is not searched for, and the error is an upper bound.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label

_RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
_REACH = 0.25
"""Outlines may be moved by this share of the typical particle's diameter."""
_LEAST_REACH_PX = 2.0
_FOUR = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
_EIGHT = np.ones((3, 3), dtype=int)


def warping_error(truth: NDArray[np.uint32], predicted: NDArray[np.uint32]) -> float:
    """Share of pixels that disagree after the truth was warped towards the prediction.

    Both label images become binary ones: particles are 4-connected, the ground between them is
    8-connected, and touching particles are parted by a line of ground one pixel wide. Pixels that
    are farther from the truth's outline than a quarter of the typical diameter (the median of
    √(4A/π)), or 2 px where that is less, are not flipped.

    Parameters
    ----------
    truth, predicted : (H, W) uint32
        Labels; 0 is ground.

    Returns
    -------
    float
        0 where the topology agrees; 1 at most.
    """
    warped, target = _apart(truth), _apart(predicted)
    if not truth.any():
        return float(np.mean(target))
    reach_px = max(_LEAST_REACH_PX, _REACH * _typical_diameter_px(truth))
    within = np.pad(warped, 1)
    outline_px = np.where(within, distance_transform_edt(within), distance_transform_edt(~within))
    disagreeing = _warp(within, np.pad(target, 1), outline_px <= reach_px)
    return disagreeing / truth.size


def _warp(warped: NDArray[np.bool_], target: NDArray[np.bool_], movable: NDArray[np.bool_]) -> int:
    """Flip what can be flipped, in place; the images have a margin of one pixel of ground.

    No two pixels of a sublattice with a period of 2 are neighbours, so that flipping all of its
    simple points at once is flipping them one after the other.
    """
    width = warped.shape[1]
    flat, wanted = warped.ravel(), target.ravel()
    ring = np.array([row * width + column for row, column in _RING])
    simple = _simple_points()
    rest = np.flatnonzero((flat != wanted) & movable.ravel())
    lattice = (rest // width % 2) * 2 + rest % width % 2
    parts = [rest[lattice == number] for number in range(4)]
    changed = True
    while changed:
        changed = False
        for number, places in enumerate(parts):
            code = flat[places[:, None] + ring] @ (1 << np.arange(8))
            flips = simple[code]
            if flips.any():
                changed = True
                flat[places[flips]] ^= True
                parts[number] = places[~flips]
    return int(np.count_nonzero(flat != wanted))


@cache
def _simple_points() -> NDArray[np.bool_]:
    """(256,) whether a pixel is simple, by the bits of its ring of neighbours.

    It is if its particle falls into one piece around it, 4-connected and beside it, and so does the
    ground, 8-connected: no piece is joined, divided, made or removed whichever way it is flipped.
    """
    found = np.zeros(256, dtype=bool)
    for code in range(256):
        inside = np.zeros((3, 3), dtype=bool)
        for bit, (row, column) in enumerate(_RING):
            inside[row + 1, column + 1] = code >> bit & 1
        outside = ~inside
        outside[1, 1] = False
        pieces = label(inside, _FOUR)[0]
        beside = set(pieces[_FOUR.astype(bool)].tolist()) - {0}
        found[code] = len(beside) == 1 and label(outside, _EIGHT)[1] == 1
    return found


def _apart(labels: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Particles without the pixels that touch another one to the right or below."""
    inside = labels > 0
    for axis in (0, 1):
        first, second = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
        touching = (first != second) & (first > 0) & (second > 0)
        np.moveaxis(inside, axis, 0)[:-1] &= ~touching
    return inside


def _typical_diameter_px(labels: NDArray[np.uint32]) -> float:
    areas = np.bincount(np.unique(labels[labels > 0], return_inverse=True)[1])
    return float(np.sqrt(4 * np.median(areas) / np.pi))
