# SPDX-License-Identifier: GPL-3.0-or-later
"""The largest circle in, and the smallest around, every particle."""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from granulo_analyzer.domain.morphology.hulls import Hulls, parts_of
from granulo_analyzer.domain.morphology.outlines import Outlines
from granulo_analyzer.domain.morphology.runs import Floats, Runs, first_of_each

_ROUNDS = 4
"""Of the search for the centre: the last step is 1/16 px."""
_EQUAL = 1e-6
"""Relative difference below which two radii are the same."""


def depth_of(framed: NDArray[np.int32], outlines: Outlines, scale: Floats) -> NDArray[np.float32]:
    """Distance of every pixel to the nearest pixel on an outline.

    Nothing leaves a particle without passing a pixel on its outline, so that touching particles
    need no line between them.

    Parameters
    ----------
    framed : (H + 2, W + 2) int32
    outlines : Outlines
    scale : (2,) float64
        Width and height of a pixel.

    Returns
    -------
    (H + 2, W + 2) float32
        In the unit of the scale; 0 on outlines, and of no meaning in the background.
    """
    inner = np.ones(framed.shape, dtype=np.uint8)
    inner.ravel()[outlines.pixel] = 0
    if scale[0] == scale[1]:
        distance = np.asarray(
            cv2.distanceTransform(inner, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), dtype=np.float32
        )
        # OpenCV's last digit depends on the number of its threads, and with it which of several
        # deepest pixels is the first. Squares are whole numbers, up to 2000 px without doubt.
        np.sqrt(np.rint(np.square(distance, out=distance), out=distance), out=distance)
        return distance * np.float32(scale[0])
    distance = ndimage.distance_transform_edt(inner, sampling=(scale[1], scale[0]))
    return np.asarray(distance, dtype=np.float32)


def inscribed_diameters(
    runs: Runs, outlines: Outlines, depth: NDArray[np.float32], scale: Floats
) -> Floats:
    """(n,) diameters of the largest circles within the smoothed outlines.

    The deepest pixel is the first guess of the centre; from there the centre moves to where the
    nearest point of the outline is furthest. The circle then touches the outline's nearest edge.
    """
    centre: Floats = _deepest_pixels(runs, depth)
    own = outlines.particle
    reach = 2 * float(np.hypot(*scale))
    apart = np.hypot(*((outlines.points - centre[own]) * scale).T)
    radius: Floats = np.minimum.reduceat(apart, outlines.first)
    # The centre moves by a pixel at most: points further away stay out of it.
    near = apart <= radius[own] + reach
    own = own[near]
    x, y = (outlines.points[near] * scale).T.copy()
    first = np.flatnonzero(np.diff(own, prepend=-1))
    centre *= scale
    step = 0.5 * scale
    for _ in range(_ROUNDS):
        start = centre.copy()
        for direction in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)):
            moved = start + step * direction
            squared = (x - moved[own, 0]) ** 2 + (y - moved[own, 1]) ** 2
            found = np.sqrt(np.minimum.reduceat(squared, first))
            # By more than rounding, or chance would choose the way on a plateau.
            better = found > radius * (1 + _EQUAL)
            radius[better], centre[better] = found[better], moved[better]
        step /= 2
    return 2 * _outline_distances(outlines, centre, scale)


def _outline_distances(outlines: Outlines, centre: Floats, scale: Floats) -> Floats:
    """(n,) distances of points, in the unit of the scale, to their outlines, edges included."""
    start = outlines.points * scale - centre[outlines.particle]
    edge = (outlines.points[outlines.following] - outlines.points) * scale
    squared = (edge**2).sum(axis=1)
    along = -(start * edge).sum(axis=1) / np.where(squared == 0, 1.0, squared)
    nearest = start + np.clip(along, 0.0, 1.0)[:, None] * edge
    distances: Floats = np.minimum.reduceat(np.hypot(nearest[:, 0], nearest[:, 1]), outlines.first)
    return distances


def _deepest_pixels(runs: Runs, depth: NDArray[np.float32]) -> Floats:
    """(n, 2) x and y of the centre of one of the deepest pixels of every particle."""
    inner = depth[1:-1, 1:-1]
    deepest = runs.reduce(np.maximum, inner)
    best = np.maximum.reduceat(deepest, runs.first)
    run = first_of_each(runs.particle, deepest == best[runs.particle])
    # Within its run the first of the deepest.
    length = runs.length[run]
    own = np.repeat(np.arange(len(run)), length)
    column = np.arange(len(own)) - np.repeat(np.cumsum(length) - length, length)
    column += runs.start[run][own]
    chosen = first_of_each(own, inner[runs.row[run][own], column] == best[own])
    return np.stack((column[chosen] + 0.5, runs.row[run] + 0.5), axis=1)


def circumscribed_diameters(hulls: Hulls, scale: Floats) -> Floats:
    """(n,) diameters of the smallest circles around the hulls (Welzl 1991)."""
    scaled = (hulls.corners * scale).astype(np.float32)
    return np.array([2 * cv2.minEnclosingCircle(part)[1] for part in parts_of(scaled, hulls.first)])
