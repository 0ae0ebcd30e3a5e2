# SPDX-License-Identifier: GPL-3.0-or-later
"""Balls and ellipsoids in the image: outlines from their meshes, heights from the formula.

A fine mesh of a ball has more triangles than the ball has pixels, and spheres are what most scenes
are made of, so this is ten times as fast as `scanning` and covers the same pixels.
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
from granulo_render.domain.shapes import Template


@dataclass(frozen=True, eq=False)
class Outliner:
    """Finds the outline of a convex mesh from any side."""

    vertices: Array
    edges: Index
    """(E, 2) indices of vertices."""
    sides: Index
    """(E, 2) indices of the two faces at each edge."""
    normals: Array
    """(3, F), see `scanning.face_normals`."""

    @classmethod
    def of(cls, vertices: Array, faces: NDArray[np.int32]) -> "Outliner":
        """Prepare a closed, convex mesh."""
        pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]))
        keys = pairs[:, 0].astype(np.int64) * len(vertices) + pairs[:, 1]
        # In a closed mesh every edge occurs twice, so the sorted ones come in twos.
        order = np.argsort(keys, kind="stable").reshape(-1, 2)
        return cls(
            vertices=vertices,
            edges=pairs[order[:, 0]].astype(np.int64),
            sides=order % len(faces),
            normals=face_normals(vertices, faces),
        )

    def outline(self, matrix: Array, shift: Array) -> Array:
        """Outline of the mesh under an affine map.

        Parameters
        ----------
        matrix : (3, 3) float64
        shift : (3,) float64
            See `scanning.camera_matrices`.

        Returns
        -------
        (2, 2, K) float64
            First and second end, column and row, of the edges between the faces that are seen and
            those that are not.
        """
        seen = facing(self.normals, matrix) > 0
        border = self.edges[seen[self.sides[:, 0]] != seen[self.sides[:, 1]]]
        ends = project(self.vertices[border.T.reshape(-1)], matrix, shift)[:2]
        return ends.reshape(2, 2, -1).transpose(1, 0, 2)


def is_ball(template: Template) -> bool:
    """Tell whether a template is a smooth ball."""
    square = (template.vertices * template.vertices).sum(axis=1)
    return bool(square.max() - square.min() < 1e-6 * square.max())


def fill_outlines(outlines: list[Array], size_px: int) -> tuple[Index, Index, Index]:
    """Pixel centres within convex outlines.

    Parameters
    ----------
    outlines : list of (2, 2, K) float64
        See `Outliner.outline`.
    size_px : int
        Side of the image.

    Returns
    -------
    owner, row, column : (P,) int64
        The outline's number and the pixel's place, sorted by all three.
    """
    ends = np.concatenate(outlines, axis=2)
    owner = np.repeat(np.arange(len(outlines)), [part.shape[2] for part in outlines])
    swap = ends[0, 1] > ends[1, 1]
    (xa, ya), (xb, yb) = np.where(swap, ends[::-1], ends)
    low = np.maximum(np.ceil(ya), 0).astype(np.int32)
    high = np.minimum(np.floor(yb), size_px - 1).astype(np.int32)
    of, row = expand(low, np.maximum(high - low + 1, 0))
    crossing = xa[of] + (row - ya[of]) * slope(xa, ya, xb, yb)[of]
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


def heights(
    matrix: Array, shift: Array, radius: Array, owner: Index, row: Index, column: Index
) -> tuple[Array, Array]:
    """Upper and lower surface of ellipsoids at pixel centres.

    Parameters
    ----------
    matrix, shift : (M, 3, 3), (M, 3) float64
        Maps of the M balls, see `scanning.camera_matrices`.
    radius : (M,) float64
        Of the balls, before they are mapped.
    owner, row, column : (P,) int64
        Number of the ball and place of the pixel.

    Returns
    -------
    upper, lower : (P,) float64
        Heights in nm. The mesh's outline may lie a little outside of the ellipsoid's; heights
        there are those of its rim.
    """
    # With S = A A^T, the points A s + t of a ball |s| <= r are those with d^T S^-1 d <= r^2 for
    # d = p - t; solved for the height by completing the square (Schur complement of S).
    form = np.einsum("mij,mkj->mik", matrix, matrix)
    area = form[:, 0, 0] * form[:, 1, 1] - form[:, 0, 1] ** 2
    xx, xy, yy = form[:, 1, 1] / area, -form[:, 0, 1] / area, form[:, 0, 0] / area
    lean_x = form[:, 0, 2] * xx + form[:, 1, 2] * xy
    lean_y = form[:, 0, 2] * xy + form[:, 1, 2] * yy
    depth = form[:, 2, 2] - form[:, 0, 2] * lean_x - form[:, 1, 2] * lean_y
    x, y = column - shift[owner, 0], row - shift[owner, 1]
    inside = radius[owner] ** 2 - xx[owner] * x * x - 2 * xy[owner] * x * y - yy[owner] * y * y
    half = np.sqrt(np.maximum(inside * depth[owner], 0))
    middle = shift[owner, 2] + lean_x[owner] * x + lean_y[owner] * y
    return middle + half, middle - half
