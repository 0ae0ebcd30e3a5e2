# SPDX-License-Identifier: GPL-3.0-or-later
"""Convex hulls of all particles, and what follows from them: Feret diameters and rectangles."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain.morphology.outlines import Outlines
from granulo_analyzer.domain.morphology.runs import (
    Floats,
    Ints,
    Runs,
    first_of_each,
    line_angles_deg,
)


@dataclass(frozen=True)
class Hulls:
    """Convex polygons, one a particle."""

    corners: Floats
    """(c, 2) x and y in pixels from the upper left corner of the particle's box."""
    first: Ints
    """(n,) index of every particle's first corner."""


def parts_of(values: NDArray[Any], first: Ints) -> Iterator[NDArray[Any]]:
    """Give the part of every particle; `numpy.split` takes longer than most of what follows."""
    for start, end in pairwise([*first.tolist(), len(values)]):
        yield values[start:end]


def outline_hulls(outlines: Outlines, box: Ints) -> Hulls:
    """Hulls of the smoothed outlines."""
    # OpenCV works in single precision: near the origin that is exact enough.
    local = (outlines.points - box[outlines.particle, :2]).astype(np.float32)
    parts = [cv2.convexHull(part)[:, 0] for part in parts_of(local, outlines.first)]
    sizes = np.array([len(part) for part in parts])
    return Hulls(np.concatenate(parts).astype(np.float64), np.cumsum(sizes) - sizes)


def hull_pixels(runs: Runs) -> Floats:
    """(n,) pixels with their centre in the hull of the particle's pixel centres."""
    ends = np.empty((2 * len(runs.row), 2), dtype=np.int32)
    ends[0::2, 0], ends[1::2, 0] = runs.start, runs.start + runs.length - 1
    ends[0::2, 1] = ends[1::2, 1] = runs.row
    parts = [cv2.convexHull(part)[:, 0] for part in parts_of(ends, 2 * runs.first)]
    sizes = np.array([len(part) for part in parts])
    first = np.cumsum(sizes) - sizes
    corners = np.concatenate(parts).astype(np.int64)
    following = np.arange(1, len(corners) + 1)
    following[first + sizes - 1] = first
    x, y = (corners - np.repeat(corners[first], sizes, axis=0)).T
    twice_area = np.abs(np.add.reduceat(x * y[following] - x[following] * y, first))
    on_edges = np.add.reduceat(np.gcd(np.abs(x[following] - x), np.abs(y[following] - y)), first)
    # Pick's theorem: the polygon has its corners on pixel centres.
    pixels: Floats = (twice_area + on_edges) / 2 + 1
    return pixels


class Calipers:
    """Distances of parallel lines that touch a particle (Toussaint 1983), all hulls at once.

    Parameters
    ----------
    hulls : Hulls
    scale : (2,) float64
        Width and height of a pixel, in whose unit all lengths are.
    """

    def __init__(self, hulls: Hulls, scale: Floats) -> None:
        self._ring = _Ring.of(hulls, scale)

    @cached_property
    def _chord(self) -> Floats:
        """(n, 2) between the two corners that are furthest apart."""
        ring = self._ring
        ends = np.stack((ring.corners, ring.corners[ring.following]))
        # Every two corners with parallel lines through them are the end of an edge and its
        # opposite.
        apart = ends - ring.touching(ring.particle, ring.angle + np.pi)
        squared = (apart**2).sum(axis=2)
        further = np.where((squared[0] < squared[1])[:, None], apart[1], apart[0])
        return further[ring.first_extreme(squared.max(axis=0), np.maximum)]

    @cached_property
    def largest(self) -> Floats:
        """(n,) maximum Feret diameters."""
        lengths: Floats = np.hypot(self._chord[:, 0], self._chord[:, 1])
        return lengths

    @cached_property
    def angle_deg(self) -> Floats:
        """(n,) of the largest to the x axis, counter-clockwise as seen, in [0, 180)."""
        return line_angles_deg(*self._chord.T)

    @cached_property
    def across_largest(self) -> Floats:
        """(n,) at 90° to the largest."""
        angle = np.arctan2(self._chord[:, 0], -self._chord[:, 1])
        return self._ring.widths(np.arange(len(angle)), angle)

    @cached_property
    def _across_edges(self) -> Floats:
        """(c,) the smallest one is the smallest of all directions."""
        return self._ring.widths(self._ring.particle, self._ring.angle + np.pi / 2)

    @cached_property
    def smallest(self) -> Floats:
        """(n,) minimum Feret diameters."""
        widths: Floats = np.minimum.reduceat(self._across_edges, self._ring.first)
        return widths

    @cached_property
    def rectangle(self) -> tuple[Floats, Floats]:
        """(n,) length and width of the rectangle of the smallest area."""
        # It, too, lies along an edge of the hull.
        along = self._ring.widths(self._ring.particle, self._ring.angle)
        best = self._ring.first_extreme(along * self._across_edges, np.minimum)
        one, other = along[best], self._across_edges[best]
        return np.maximum(one, other), np.minimum(one, other)

    @cached_property
    def perimeter(self) -> Floats:
        """(n,) of the hulls."""
        ring = self._ring
        edges = ring.corners[ring.following] - ring.corners
        lengths: Floats = np.add.reduceat(np.hypot(edges[:, 0], edges[:, 1]), ring.first)
        return lengths


@dataclass(frozen=True)
class _Ring:
    """Edges of all hulls by rising angle, so that a corner is found by the angle of a line."""

    particle: Ints
    """(c,)"""
    first: Ints
    """(n,) index of every particle's first edge."""
    corners: Floats
    """(c, 2) where the edge begins."""
    angle: Floats
    """(c,) of the edge, in [0, 2π)."""
    following: Ints
    """(c,) index of the next edge of the same hull."""

    @staticmethod
    def of(hulls: Hulls, scale: Floats) -> "_Ring":
        counts = np.diff(hulls.first, append=len(hulls.corners))
        particle = np.repeat(np.arange(len(counts)), counts)
        following = np.arange(1, len(particle) + 1)
        following[hulls.first + counts - 1] = hulls.first
        corners = hulls.corners * scale
        edges = corners[following] - corners
        turns = np.add.reduceat(
            corners[:, 0] * corners[following, 1] - corners[following, 0] * corners[:, 1],
            hulls.first,
        )
        backwards = (turns < 0)[particle]
        corners = np.where(backwards[:, None], corners[following], corners)
        edges = np.where(backwards[:, None], -edges, edges)
        angle = np.arctan2(edges[:, 1], edges[:, 0]) % (2 * np.pi)
        order = np.lexsort((angle, particle))
        return _Ring(particle, hulls.first, corners[order], angle[order], following)

    def touching(self, particle: Ints, angle: Floats) -> Floats:
        """(q, 2) the corner that a line of an angle touches, with the particle on its left."""
        keys = 2 * np.pi * self.particle + self.angle
        place = np.searchsorted(keys, 2 * np.pi * particle + angle % (2 * np.pi), side="right")
        end = np.append(self.first[1:], len(self.particle))[particle]
        corners: Floats = self.corners[np.where(place == end, self.first[particle], place)]
        return corners

    def widths(self, particle: Ints, angle: Floats) -> Floats:
        """(q,) extents of particles along directions."""
        across = self.touching(particle, angle + np.pi / 2) - self.touching(
            particle, angle - np.pi / 2
        )
        extents: Floats = across[:, 0] * np.cos(angle) + across[:, 1] * np.sin(angle)
        return extents

    def first_extreme(self, values: Floats, pick: np.ufunc) -> Ints:
        """(n,) index of the first smallest or largest of (c,) values of every particle."""
        extreme = pick.reduceat(values, self.first)
        return first_of_each(self.particle, values == extreme[self.particle])
