# SPDX-License-Identifier: GPL-3.0-or-later
"""Outlines of meshes in the image: the edges between the faces that are seen and the others.

They bound all that a particle covers and are far fewer than its triangles.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.scanning import (
    Array,
    Index,
    expand,
    face_normals,
    facing,
    project,
    slope,
)

_ROWS = 256  # of a particle whose area is measured


@dataclass(frozen=True, eq=False)
class Outline:
    """Edges in the image, their seen faces to the left as one goes along on the screen."""

    start: Array
    """(2, E) column and row, px."""
    end: Array
    """(2, E)."""


@dataclass(frozen=True, eq=False)
class Outliner:
    """Finds the outline of a closed mesh from any side."""

    vertices: Array
    edges: Index
    """(2, E) indices of vertices, in the direction of the first face."""
    sides: Index
    """(2, E) indices of the two faces at each edge."""
    normals: Array
    """(3, F), see `scanning.face_normals`."""

    @classmethod
    def of(cls, vertices: Array, faces: NDArray[np.int32]) -> "Outliner":
        """Prepare a closed mesh of counter-clockwise faces."""
        directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).T
        keys = directed.min(axis=0).astype(np.int64) * len(vertices) + directed.max(axis=0)
        # In a closed mesh every edge occurs twice, so the sorted ones come in twos.
        order = np.argsort(keys, kind="stable").reshape(-1, 2).T
        return cls(
            vertices=vertices,
            edges=directed[:, order[0]].astype(np.int64),
            sides=order % len(faces),
            normals=face_normals(vertices, faces),
        )

    def outline(self, matrix: Array, shift: Array) -> Outline:
        """Outline under an affine map, see `scanning.camera_matrices`."""
        seen = facing(self.normals, matrix) > 0
        border = np.flatnonzero(seen[self.sides[0]] != seen[self.sides[1]])
        along = seen[self.sides[0, border]]
        start, end = self.edges[:, border]
        points = project(self.vertices[np.concatenate([start, end])], matrix, shift)[:2]
        first, second = points[:, : len(border)], points[:, len(border) :]
        return Outline(np.where(along, first, second), np.where(along, second, first))

    def seen_area(self, matrix: Array) -> float:
        """Area in the image of all faces that are seen, px^2; those of a convex mesh are apart."""
        area = facing(self.normals, matrix)
        return float(area[area > 0].sum()) / 2


def fill_convex(outlines: list[Outline], size_px: int) -> tuple[Index, Index, Index]:
    """Pixel centres within convex outlines.

    Parameters
    ----------
    outlines : list of Outline
    size_px : int
        Side of the image.

    Returns
    -------
    owner, row, column : (P,) int64
        The outline's number and the pixel's place, sorted by all three.
    """
    owner = np.repeat(np.arange(len(outlines)), [part.start.shape[1] for part in outlines])
    start = np.concatenate([part.start for part in outlines], axis=1)
    end = np.concatenate([part.end for part in outlines], axis=1)
    of, row, crossing = _crossings(start, end, 0, size_px - 1)
    line = owner[of] * size_px + row
    left = np.full(len(outlines) * size_px, np.inf)
    right = np.full(len(outlines) * size_px, -np.inf)
    np.minimum.at(left, line, crossing)
    np.maximum.at(right, line, crossing)
    filled = np.flatnonzero(left <= right)
    first = np.maximum(np.ceil(left[filled]), 0).astype(np.int32)
    last = np.minimum(np.floor(right[filled]), size_px - 1).astype(np.int32)
    of, column = expand(first, np.maximum(last - first + 1, 0))
    line = filled[of]
    return line // size_px, line % size_px, column.astype(np.int64)


def covered_area(outline: Outline) -> float:
    """Area that a mesh of any shape covers, holes and overlaps counted as they are seen.

    Parameters
    ----------
    outline : Outline

    Returns
    -------
    float
        In px^2; sampled in 256 rows, less than 0.5 % off.
    """
    low, high = float(outline.start[1].min()), float(outline.start[1].max())
    pitch = (high - low) / _ROWS
    if pitch <= 0:
        return 0.0
    # Rows at half pitches, so that neither the uppermost nor the lowest point lies on one.
    unit = np.array([[1.0], [1 / pitch]])
    origin = np.array([[0.0], [low + pitch / 2]])
    start, end = (outline.start - origin) * unit, (outline.end - origin) * unit
    of, row, crossing = _crossings(start, end, 0, _ROWS - 1, half_open=True)
    # A row enters one more seen face at an edge that runs down the screen, and leaves one at an
    # edge that runs up; it is over the particle while it is in any.
    turn = np.where(end[1, of] > start[1, of], 1, -1)
    order = np.lexsort((crossing, row))
    row, crossing, depth = row[order], crossing[order], np.cumsum(turn[order])
    inside = (depth[:-1] > 0) & (row[1:] == row[:-1])
    return float(np.diff(crossing)[inside].sum() * pitch)


def _crossings(
    start: Array, end: Array, first: int, last: int, *, half_open: bool = False
) -> tuple[Index, NDArray[np.int32], Array]:
    """Number of the edge, row and column wherever edges cross the rows ``first`` to ``last``.

    Half-open edges leave out their lower ends, so that a chain of them crosses a row once.
    """
    swap = start[1] > end[1]
    xa, ya = np.where(swap, end, start)
    xb, yb = np.where(swap, start, end)
    low = np.maximum(np.ceil(ya), first).astype(np.int32)
    lowest = np.ceil(yb) - 1 if half_open else np.floor(yb)
    high = np.minimum(lowest, last).astype(np.int32)
    of, row = expand(low, np.maximum(high - low + 1, 0))
    return of, row, xa[of] + (row - ya[of]) * slope(xa, ya, xb, yb)[of]
