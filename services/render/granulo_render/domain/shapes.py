# SPDX-License-Identifier: GPL-3.0-or-later
"""Template particles as triangle meshes, all star-shaped on one icosphere."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.recipe import Ellipsoid, Polyhedron, Shape, Sphere
from granulo_render.domain.sampling import draw

Array = NDArray[np.float64]

SUBDIVISIONS = 5
_SPHERE_TEMPLATES = 4
_CORE = 0.8  # rounds the inner distance field, so that few faces never make a needle


@dataclass(frozen=True, eq=False)
class Template:
    """One particle geometry of unit size.

    The volume is that of the unit sphere and the centroid is the origin. The long axis is x.
    Vertices are those of the icosphere in order of subdivision, so the first 162, 642 and 2562
    are coarser versions of the same surface.
    """

    vertices: Array
    """(V, 3)."""
    extent: float
    """Largest distance of a vertex from the centroid."""

    def mesh(self, subdivisions: int = SUBDIVISIONS) -> tuple[Array, NDArray[np.int32]]:
        """Vertices (V, 3) and faces (F, 3), counter-clockwise from outside, coarse or fine."""
        sphere, faces = icosphere(subdivisions)
        return self.vertices[: len(sphere)], faces


@cache
def icosphere(subdivisions: int) -> tuple[Array, NDArray[np.int32]]:
    """Make a unit icosphere: vertices (V, 3), faces (F, 3); coarser vertices come first."""
    g = (1 + 5**0.5) / 2
    points: list[tuple[float, float, float]]
    points = [(-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g)]
    points += [(0, -1, -g), (0, 1, -g), (g, 0, -1), (g, 0, 1), (-g, 0, -1), (-g, 0, 1)]
    vertices = np.array(points, dtype=np.float64)
    vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    corners = "0-11-5 0-5-1 0-1-7 0-7-10 0-10-11 1-5-9 5-11-4 11-10-2 10-7-6 7-1-8 "
    corners += "3-9-4 3-4-2 3-2-6 3-6-8 3-8-9 4-9-5 2-4-11 6-2-10 8-6-7 9-8-1"
    faces = np.array([[int(i) for i in c.split("-")] for c in corners.split()], dtype=np.int64)
    for _ in range(subdivisions):
        edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        unique, inverse = np.unique(edges, axis=0, return_inverse=True)
        middle = vertices[unique].sum(axis=1)
        middle /= np.linalg.norm(middle, axis=1, keepdims=True)
        ab, bc, ca = (inverse.reshape(-1, 3) + len(vertices)).T
        a, b, c = faces.T
        faces = np.concatenate(
            [np.stack(t, axis=1) for t in ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))]
        )
        vertices = np.concatenate([vertices, middle])
    return vertices, faces.astype(np.int32)


def make_templates(shape: Shape, rng: np.random.Generator) -> tuple[Template, ...]:
    """Make the templates that one scene uses for a class of particles.

    Returns
    -------
    tuple of Template
        One for a smooth sphere, four for rough spheres and ellipsoids, and as many as the
        recipe says for polyhedra.
    """
    match shape:
        case Sphere(roughness):
            heights = [draw(roughness, rng) for _ in range(_SPHERE_TEMPLATES)]
            if not any(heights):
                return (_finish(icosphere(SUBDIVISIONS)[0]),)
            return tuple(_rough_sphere(height, rng) for height in heights)
        case Ellipsoid(aspect_ratio):
            return tuple(_ellipsoid(draw(aspect_ratio, rng)) for _ in range(_SPHERE_TEMPLATES))
        case Polyhedron() as solid:
            return tuple(_polyhedron(solid, rng) for _ in range(solid.templates))


def random_rotation(rng: np.random.Generator, *, lying: bool) -> Array:
    """Draw a rotation matrix (3, 3): uniform, or with the long axis (x) near the substrate."""
    if lying:
        roll, tilt, turn = (
            rng.uniform(0, 2 * np.pi),
            rng.normal(0, 0.15),
            rng.uniform(0, 2 * np.pi),
        )
        ca, sa, cb, sb = np.cos(roll), np.sin(roll), np.cos(tilt), np.sin(tilt)
        cc, sc = np.cos(turn), np.sin(turn)
        return np.array(
            [
                [cc * cb, cc * sb * sa - sc * ca, cc * sb * ca + sc * sa],
                [sc * cb, sc * sb * sa + cc * ca, sc * sb * ca - cc * sa],
                [-sb, cb * sa, cb * ca],
            ]
        )
    q = rng.normal(size=4)
    w, x, y, z = q / np.sqrt((q * q).sum())
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def rotate(vertices: Array, rotation: Array) -> Array:
    """Turn vertices (V, 3); no BLAS, whose last digit may depend on the number of threads."""
    turned: Array = np.einsum("vk,ik->vi", vertices, rotation)
    return turned


def volume(vertices: Array, faces: NDArray[np.int32]) -> float:
    """Volume of a closed triangle mesh."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def _rough_sphere(height: float, rng: np.random.Generator) -> Template:
    u = icosphere(SUBDIVISIONS)[0]
    kind = rng.random()
    if kind < 0.5:  # wavy
        texture = _waves(u, 12, rng.uniform(1.5, 5.0), rng)
    elif kind < 0.75:  # grainy
        texture = np.abs(_waves(u, 30, rng.uniform(10.0, 20.0), rng))
    else:  # knobbly
        knobs = _directions(int(rng.integers(40, 110)), rng)
        nearest: Array = np.max([_dot(u, knob) for knob in knobs], axis=0)
        texture = 2.0 * np.clip((nearest - 0.9) / 0.1, 0, 1) ** 0.6
    return _finish(u * (1 + height * texture)[:, None])


def _ellipsoid(aspect: float) -> Template:
    return _finish(icosphere(SUBDIVISIONS)[0] * np.array([aspect, 1.0, 1.0]))


def _polyhedron(solid: Polyhedron, rng: np.random.Generator) -> Template:
    u = icosphere(SUBDIVISIONS)[0]
    normals = _directions(max(4, round(draw(solid.faces, rng))), rng)
    if rng.random() < 0.6:  # crystals have parallel faces
        normals = np.concatenate([normals[::2], -normals[::2]])
    distances = rng.uniform(0.85, 1.12, len(normals))
    p = draw(solid.sharpness, rng)
    total = np.full(len(u), _CORE**p)
    for normal, distance in zip(normals, distances, strict=True):
        total += np.clip(_dot(u, normal) / distance, 0, None) ** p
    radius = total ** (-1 / p)
    radius *= 1 + draw(solid.roughness, rng) * _waves(u, 12, rng.uniform(1.5, 3.5), rng)
    aspect = draw(solid.aspect_ratio, rng)
    stretch = np.array([aspect, rng.uniform(0.9, 1.1), rng.uniform(0.8, 1.05)])
    return _finish(u * np.clip(radius, 0.2, None)[:, None] * stretch)


def _finish(vertices: Array) -> Template:
    faces = icosphere(SUBDIVISIONS)[1]
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    cells = (a * np.cross(b, c)).sum(axis=1, keepdims=True)
    centred = vertices - ((a + b + c) * cells).sum(axis=0) / (4 * cells.sum())
    unit = centred * (4 * np.pi / 3 / volume(centred, faces)) ** (1 / 3)
    extent = float(np.sqrt((unit * unit).sum(axis=1)).max())
    return Template(vertices=unit, extent=extent)


def _directions(count: int, rng: np.random.Generator) -> Array:
    vectors = rng.normal(size=(count, 3))
    unit: Array = vectors / np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    return unit


def _dot(u: Array, v: Array) -> Array:
    product: Array = u[:, 0] * v[0] + u[:, 1] * v[1] + u[:, 2] * v[2]
    return product


def _waves(u: Array, count: int, frequency: float, rng: np.random.Generator) -> Array:
    # A sum of plane waves of random directions is a smooth random field without seams.
    waves = _directions(count, rng) * frequency
    phases = rng.uniform(0, 2 * np.pi, count)
    total = np.zeros(len(u))
    for wave, phase in zip(waves, phases, strict=True):
        total += np.cos(_dot(u, wave) + phase)
    field: Array = total / np.sqrt(count)
    return field
