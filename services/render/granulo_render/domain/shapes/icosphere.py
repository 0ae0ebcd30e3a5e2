# SPDX-License-Identifier: GPL-3.0-or-later
"""Subdivision of triangle meshes, and the icosphere made by it."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Faces = NDArray[np.int32]

FINEST = 5
"""Subdivisions of the finest icosphere: 10242 vertices, 20480 faces."""


def split(faces: Faces, count: int) -> tuple[Faces, NDArray[np.int64]]:
    """Split every triangle into four at the middles of its edges.

    Parameters
    ----------
    faces : (F, 3) int32
        Indices of vertices.
    count : int
        Number of vertices; the new ones are numbered from here on.

    Returns
    -------
    faces : (4 F, 3) int32
        Those of triangle ``f`` are ``f``, ``f + F``, ``f + 2 F`` and ``f + 3 F``.
    edges : (E, 2) int64
        The vertices on whose middle the new vertices lie, in order.
    """
    pairs = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1).astype(np.int64)
    keys, inverse = np.unique(pairs[:, 0] * count + pairs[:, 1], return_inverse=True)
    ab, bc, ca = (inverse.reshape(-1, 3) + count).T
    a, b, c = faces.T
    quarters = ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))
    finer = np.concatenate([np.stack(corners, axis=1) for corners in quarters])
    return finer.astype(np.int32), np.stack([keys // count, keys % count], axis=1)


def refine(vertices: Array, faces: Faces, longest: float) -> tuple[Array, Faces]:
    """Halve all edges longer than ``longest``; a closed mesh stays closed and in place.

    Parameters
    ----------
    vertices : (V, 3) float64
    faces : (F, 3) int32
    longest : float
        In the vertices' unit.

    Returns
    -------
    vertices : (V + new, 3) float64
        The given ones first.
    faces : (more, 3) int32
    """
    while True:
        pairs = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        keys, inverse = np.unique(
            pairs[:, 0].astype(np.int64) * len(vertices) + pairs[:, 1], return_inverse=True
        )
        ends = vertices[keys // len(vertices)], vertices[keys % len(vertices)]
        apart = ends[1] - ends[0]
        long = (apart * apart).sum(axis=1) > longest**2
        if not long.any():
            return vertices, faces
        number = np.where(long, len(vertices) + np.cumsum(long) - 1, -1)
        faces = _halved(faces, number[inverse].reshape(-1, 3).astype(np.int32))
        vertices = np.concatenate([vertices, ((ends[0] + ends[1]) / 2)[long]])


@cache
def icosphere(subdivisions: int) -> tuple[Array, Faces]:
    """Make a unit icosphere: vertices (V, 3), faces (F, 3); coarser vertices come first."""
    if subdivisions == 0:
        return _icosahedron()
    vertices, faces = icosphere(subdivisions - 1)
    faces, edges = split(faces, len(vertices))
    middle = vertices[edges].sum(axis=1)
    middle /= np.sqrt((middle * middle).sum(axis=1, keepdims=True))
    return np.concatenate([vertices, middle]), faces


def _icosahedron() -> tuple[Array, Faces]:
    g = (1 + 5**0.5) / 2
    points: list[tuple[float, float, float]]
    points = [(-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g)]
    points += [(0, -1, -g), (0, 1, -g), (g, 0, -1), (g, 0, 1), (-g, 0, -1), (-g, 0, 1)]
    vertices = np.array(points, dtype=np.float64) / np.sqrt(1 + g * g)
    corners = "0-11-5 0-5-1 0-1-7 0-7-10 0-10-11 1-5-9 5-11-4 11-10-2 10-7-6 7-1-8 "
    corners += "3-9-4 3-4-2 3-2-6 3-6-8 3-8-9 4-9-5 2-4-11 6-2-10 8-6-7 9-8-1"
    faces = np.array([[int(i) for i in c.split("-")] for c in corners.split()], dtype=np.int32)
    return vertices, faces


def _halved(faces: Faces, middle: Faces) -> Faces:
    """Split triangles at the given middles of their edges ab, bc and ca; -1 is none."""
    # Turning a triangle brings its split edges to the front, so that few cases remain.
    split = middle >= 0
    count = split.sum(axis=1)
    turn = np.where(
        count == 1, split.argmax(axis=1), np.where(count == 2, (~split).argmax(axis=1) + 1, 0)
    )
    order = (np.arange(3) + turn[:, None]) % 3
    a, b, c = np.take_along_axis(faces, order, axis=1).T
    ab, bc, ca = np.take_along_axis(middle, order, axis=1).T
    cases = (
        (count == 0, ((a, b, c),)),
        (count == 1, ((a, ab, c), (ab, b, c))),
        (count == 2, ((ab, b, bc), (a, ab, bc), (a, bc, c))),
        (count == 3, ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))),
    )
    return np.concatenate(
        [np.stack(corners, axis=1)[chosen] for chosen, parts in cases for corners in parts]
    )
