# SPDX-License-Identifier: GPL-3.0-or-later
"""Warping error: what differs in topology, and not only in where borders lie (Jain et al. 2010).

V. Jain et al., "Boundary learning by optimization with topological constraints", CVPR 2010: the
truth is warped towards the prediction by flipping simple pixels, which changes no number of objects
or holes; the pixels that still disagree are the error. Objects are 4-connected and the background
8-connected, as where binary truth is split into particles; beyond the frame is background.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

LIMIT_PX = 10.0
"""Only pixels this near to a border of the truth are warped."""

# The eight neighbours in a circle from the right one on; even places share a side with the pixel.
_NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
_WEIGHTS = 1 << np.arange(8)


def _simple_codes() -> NDArray[np.bool_]:
    """Whether a pixel is simple, by the code of its neighbours, (256,).

    It is where Yokoi's connectivity number for 4-connected objects is 1 (Yokoi, Toriwaki and
    Fukumura 1975, Comput. Graph. Image Process. 4, 63).
    """
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    sides, corners, next_sides = bits[:, ::2], bits[:, 1::2], np.roll(bits[:, ::2], -1, axis=1)
    return np.asarray((sides - sides * corners * next_sides).sum(axis=1) == 1)


SIMPLE = _simple_codes()


def warping_error(
    truth: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]],
    limit_px: float = LIMIT_PX,
) -> float:
    """Share of the pixels that disagree after warping the truth towards the prediction.

    Parameters
    ----------
    truth, predicted : (H, W) integer
        Label images of one shape; 0 is background. What is compared is `foreground` of both.
    limit_px : float
        As of `warp`.

    Returns
    -------
    float
        0 to 1. 0 where the two differ only in the course of borders, by less than the limit.
    """
    true_mask, mask = foreground(truth), foreground(predicted)
    if not mask.size:
        return 0.0
    return float(np.count_nonzero(warp(true_mask, mask, limit_px) != mask) / mask.size)


def foreground(labels: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Particles as 4-connected objects: where two touch, a line of background parts them.

    Parameters
    ----------
    labels : (H, W) integer
        0 is background.

    Returns
    -------
    (H, W) bool
        Without the pixels whose right or lower neighbour belongs to another particle.
    """
    mask = labels > 0
    for first, second in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        mask[first] &= (labels[first] == labels[second]) | (labels[second] == 0)
    return np.asarray(mask)


def warp(
    mask: NDArray[np.bool_], target: NDArray[np.bool_], limit_px: float = LIMIT_PX
) -> NDArray[np.bool_]:
    """Warp a mask towards another without changing its topology.

    Simple pixels that disagree are flipped until none is left. The minimum over all ways is a
    search without a known fast solution; like Jain et al. every flip here removes a disagreement,
    which is the minimum where one mask contains the other, and else an upper bound of it. The order
    is always the same.

    Parameters
    ----------
    mask, target : (H, W) bool
    limit_px : float
        Pixels whose distance to the nearest pixel of the other kind in `mask` is larger are not
        flipped.

    Returns
    -------
    (H, W) bool
        With the 4-connected objects and 8-connected holes that `mask` has.
    """
    warped = np.pad(mask, 1)
    wanted = np.pad(target, 1)
    free = (warped != wanted) & np.pad(_near_border(mask, limit_px), 1)
    flat, flat_wanted, flat_free = warped.reshape(-1), wanted.reshape(-1), free.reshape(-1)
    width = warped.shape[1]
    offsets = np.array([row * width + column for row, column in _NEIGHBOURS])
    waiting = np.flatnonzero(flat_free)
    while len(waiting):
        flipped = []
        # Pixels of one of four sub-lattices are no neighbours: flipping one leaves the others
        # simple, so that all of them are flipped at once.
        place = waiting // width % 2 * 2 + waiting % width % 2
        for lattice in range(4):
            chosen = waiting[place == lattice]
            codes = flat[chosen[:, None] + offsets] @ _WEIGHTS
            chosen = chosen[SIMPLE[codes]]
            flat[chosen] = flat_wanted[chosen]
            flat_free[chosen] = False
            flipped.append(chosen)
        # Only next to what has changed can another pixel have become simple.
        beside = np.unique((np.concatenate(flipped)[:, None] + offsets).ravel())
        waiting = beside[flat_free[beside]]
    return warped[1:-1, 1:-1]


def _near_border(mask: NDArray[np.bool_], limit_px: float) -> NDArray[np.bool_]:
    if mask.all() or not mask.any():
        return np.zeros_like(mask)
    depth = np.where(mask, distance_transform_edt(mask), distance_transform_edt(~mask))
    return np.asarray(depth <= limit_px)
