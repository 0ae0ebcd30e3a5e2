# SPDX-License-Identifier: GPL-3.0-or-later
"""Convex bodies with rounded edges."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull

from granulo_render.domain.shapes.icosphere import Array, Faces
from granulo_render.domain.shapes.template import Level

Indices = NDArray[np.int64]

_STEPS = (1, 2, 4, 8)  # across a rounded edge, coarse to fine
_SHARP = 1e-3  # smaller rounding is none


@dataclass(frozen=True, eq=False)
class Polytope:
    """Convex polyhedron."""

    vertices: Array
    """(V, 3)."""
    loops: tuple[Indices, ...]
    """Corners of every face, counter-clockwise from outside."""
    normals: Array
    """(number of faces, 3), outward unit vectors."""


def hull(points: Array) -> Polytope:
    """Make the convex hull of points (N, 3), joining triangles of one plane to one face."""
    solid = ConvexHull(points)
    normals = solid.equations[:, :3]
    faces = _planes(normals, solid.neighbors)
    a, b, c = (points[solid.simplices[:, k]] for k in range(3))
    inward = (np.cross(b - a, c - a) * normals).sum(axis=1) < 0
    triangles = np.where(inward[:, None], solid.simplices[:, ::-1], solid.simplices)
    _, first = np.unique(faces, return_index=True)
    outlines = {int(i): _outline(triangles[faces == faces[i]]) for i in np.sort(first)}
    loops = {
        i: _from_behind(loop, points, normals[i])
        for i, loop in _with_real_corners(outlines).items()
    }
    corners = np.unique(np.concatenate(list(loops.values())))
    return Polytope(
        points[corners],
        tuple(np.searchsorted(corners, loop) for loop in loops.values()),
        normals[list(loops)],
    )


def _planes(normals: Array, neighbours: Indices) -> Indices:
    """(F,) number of the plane of every triangle: neighbours of nearly one direction share it."""
    flat = (normals[:, None] * normals[neighbours]).sum(axis=2) > 1 - 1e-9
    triangle, side = np.nonzero(flat)
    links = (triangle, neighbours[triangle, side])
    graph = coo_array((np.ones(len(triangle)), links), shape=(len(normals),) * 2)
    planes: Indices = connected_components(graph, directed=False)[1].astype(np.int64)
    return planes


def _outline(triangles: Indices) -> Indices:
    """Corners around triangles of one plane, in their sense of rotation.

    By the edges that no two of them share: so neighbouring faces agree on every edge, which
    distances from a plane do not ensure.
    """
    edges = {(int(t[k]), int(t[k - 2])) for t in triangles for k in range(3)}
    following = {v: w for v, w in edges if (w, v) not in edges}
    loop = [min(following)]
    while (corner := following[loop[-1]]) != loop[0]:
        loop.append(corner)
    return np.array(loop)


def _with_real_corners(loops: dict[int, Indices]) -> dict[int, Indices]:
    """Leave out points on an edge, where only two faces meet, and faces that are then no more."""
    while True:
        found, faces = np.unique(np.concatenate(list(loops.values())), return_counts=True)
        real = found[faces > 2]
        if len(real) == len(found):
            return loops
        kept = {i: loop[np.isin(loop, real)] for i, loop in loops.items()}
        loops = {i: loop for i, loop in kept.items() if len(loop) > 2}


def _from_behind(loop: Indices, points: Array, normal: Array) -> Indices:
    """The loop from the corner on that is opposite to its lowest-numbered one."""
    arm = points[loop] - points[loop].mean(axis=0)
    zero = arm[loop.argmin()]
    angle = np.arctan2((arm * np.cross(normal, zero)).sum(axis=1), (arm * zero).sum(axis=1))
    return np.roll(loop, -int(angle.argmin()))


def rounded(solid: Polytope, radius: float) -> tuple[Level, ...]:
    """Roll a ball around a polytope: its Minkowski sum with a ball.

    Faces move outwards by the ball's radius, edges become parts of cylinders, corners parts of
    spheres; their normals stay.

    Parameters
    ----------
    solid : Polytope
        The body within.
    radius : float
        Of the ball; 0 leaves the edges sharp.

    Returns
    -------
    tuple of Level
        Closed meshes, coarse to fine; one if the edges are sharp.
    """
    if radius < _SHARP:
        return (Level(solid.vertices, _fans(solid.loops), 0.0),)
    levels = [_rolled(solid, radius, steps) for steps in _STEPS]
    return (*levels[:-1], Level(levels[-1].vertices, levels[-1].faces, 0.0))


def _fans(loops: tuple[Indices, ...]) -> Faces:
    fans = [
        np.stack([np.full(len(loop) - 2, loop[0]), loop[1:-1], loop[2:]], axis=1) for loop in loops
    ]
    faces: Faces = np.concatenate(fans).astype(np.int32)
    return faces


def _rolled(solid: Polytope, radius: float, steps: int) -> Level:
    """Mesh the rounded body with ``steps`` flat parts across every edge."""
    face = np.concatenate([np.full(len(loop), f) for f, loop in enumerate(solid.loops)])
    start = np.concatenate(solid.loops)
    end = np.concatenate([np.roll(loop, -1) for loop in solid.loops])
    # Corner (face, vertex) number i starts the face's edge start[i] -> end[i].
    corner = {(int(f), int(v)): i for i, (f, v) in enumerate(zip(face, start, strict=True))}
    other = {(int(v), int(w)): int(f) for f, v, w in zip(face, start, end, strict=True)}
    edges = np.array(
        [
            (v, w, f, other[w, v])
            for f, v, w in zip(face.tolist(), start.tolist(), end.tolist(), strict=True)
            if v < w
        ]
    )
    v, w, f, g = edges.T
    bend = _slerp(solid.normals[f], solid.normals[g], steps)  # (E, steps + 1, 3)
    at = [
        np.array(
            [
                [corner[a, b] for a, b in zip(side.tolist(), tip.tolist(), strict=True)]
                for side in (f, g)
            ]
        )
        for tip in (v, w)
    ]
    inner = np.arange(len(edges) * (steps - 1)).reshape(len(edges), steps - 1)
    count = len(start)
    arcs = []  # vertex numbers (E, steps + 1) at both ends of every edge
    for k, tips in enumerate(at):
        between = count + k * inner.size + inner
        arcs.append(np.concatenate([tips[0][:, None], between, tips[1][:, None]], axis=1))
    own = np.concatenate([start, np.repeat(v, steps - 1), np.repeat(w, steps - 1)])
    arc_normals = bend[:, 1:-1].reshape(-1, 3)
    normals = np.concatenate([solid.normals[face], arc_normals, arc_normals])
    strips = _quads(arcs[0][:, :-1], arcs[0][:, 1:], arcs[1][:, 1:], arcs[1][:, :-1])
    caps, own, normals = _caps(arcs, own, normals, steps, len(solid.vertices))
    vertices = solid.vertices[own] + radius * normals
    flat = _fans(tuple(np.split(np.arange(count), np.cumsum([len(x) for x in solid.loops])[:-1])))
    faces = np.concatenate([flat, strips, caps]).astype(np.int32)
    return Level(vertices, faces, radius * _depth(*(normals[caps[:, k]] for k in range(3))))


def _depth(a: Array, b: Array, c: Array) -> float:
    """How far flat triangles with corners on the unit sphere reach into it."""
    sides = np.stack([((q - p) ** 2).sum(axis=1) for p, q in ((a, b), (b, c), (c, a))])
    longest = sides.max(axis=0)
    across = np.cross(b - a, c - a)
    plane = (across * a).sum(axis=1) / np.sqrt((across * across).sum(axis=1))
    # The place nearest to the centre is the foot of the plane, or lies on the longest side.
    obtuse = longest > sides.sum(axis=0) - longest
    return float((1 - np.where(obtuse, np.sqrt(1 - longest / 4), plane)).max())


def _caps(
    arcs: list[Indices], own: Indices, normals: Array, steps: int, corners: int
) -> tuple[Indices, Indices, Array]:
    """Close the spherical corners with rings between their middle and the arcs around them."""
    middle = np.zeros((corners, 3))
    np.add.at(middle, own, normals)
    middle /= np.sqrt((middle * middle).sum(axis=1, keepdims=True))
    ring = _slerp(middle[own], normals, steps)  # (N, steps + 1, 3) from the middle outwards
    count = len(own)
    number = np.empty((count, steps + 1), dtype=np.int64)
    number[:, 0] = count + own
    number[:, 1:-1] = count + corners + np.arange(count * (steps - 1)).reshape(count, steps - 1)
    number[:, -1] = np.arange(count)
    # Around the one end an arc runs from face to face, around the other end backwards.
    begin = np.concatenate([arcs[0][:, 1:].ravel(), arcs[1][:, :-1].ravel()])
    end = np.concatenate([arcs[0][:, :-1].ravel(), arcs[1][:, 1:].ravel()])
    p, q = number[begin], number[end]
    fan = np.stack([p[:, 0], p[:, 1], q[:, 1]], axis=1)
    quads = _quads(p[:, 1:-1], p[:, 2:], q[:, 2:], q[:, 1:-1])
    all_own = np.concatenate([own, np.arange(corners), np.repeat(own, steps - 1)])
    all_normals = np.concatenate([normals, middle, ring[:, 1:-1].reshape(-1, 3)])
    return np.concatenate([fan, quads]), all_own, all_normals


def _quads(a: Indices, b: Indices, c: Indices, d: Indices) -> Indices:
    corners = [part.ravel() for part in (a, b, c, d)]
    halves = [np.stack([corners[k] for k in half], axis=1) for half in ((0, 1, 2), (0, 2, 3))]
    return np.concatenate(halves)


def _slerp(start: Array, end: Array, steps: int) -> Array:
    """Unit vectors (N, steps + 1, 3) at equal angles from ``start`` to ``end``, both (N, 3)."""
    cross = np.cross(start, end)
    sine = np.sqrt((cross * cross).sum(axis=1))
    angle = np.arctan2(sine, (start * end).sum(axis=1))[:, None]
    t = np.linspace(0, 1, steps + 1)
    sine = np.maximum(np.sin(angle), 1e-12)
    mixed: Array = (
        start[:, None] * (np.sin((1 - t) * angle) / sine)[..., None]
        + end[:, None] * (np.sin(t * angle) / sine)[..., None]
    )
    return mixed
