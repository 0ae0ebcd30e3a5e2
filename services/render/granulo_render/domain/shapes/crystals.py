# SPDX-License-Identifier: GPL-3.0-or-later
"""Facetted particles: random hulls, regular solids and platelets."""

from itertools import permutations, product

import numpy as np

from granulo_render.domain.recipe import Family
from granulo_render.domain.shapes.bevel import Polytope, hull, rounded
from granulo_render.domain.shapes.icosphere import Array, Faces, refine
from granulo_render.domain.shapes.rounded import directions, waves
from granulo_render.domain.shapes.template import (
    Level,
    Template,
    aligned,
    make_template,
    unit_body,
)

# A rough surface starts from a level of the smooth one and halves its edges: (level, longest).
_ROUGH = ((0, 0.5), (1, 0.25), (1, 0.14))


def crystal(corners: Array, bevel: float, roughness: float, rng: np.random.Generator) -> Template:
    """Make a convex facetted particle with rounded edges.

    Parameters
    ----------
    corners : (N, 3) float64
        The particle before rounding is their convex hull.
    bevel : float
        Rounding of the edges relative to the radius of the sphere of equal volume: the body is
        ``(1 - bevel)`` times itself plus a ball of that radius.
    roughness : float
        Height of the surface's waves relative to the radius.
    rng : numpy.random.Generator
        Draws the waves, nothing else.
    """
    solid = hull(aligned(corners))
    scale, centroid = unit_body(solid.vertices, rounded(solid, 0.0)[0].faces)
    within = (solid.vertices - centroid) * (scale * (1 - bevel))
    levels = rounded(Polytope(within, solid.loops, solid.normals), bevel)
    if roughness > 0:
        levels = _rough(levels, roughness, rng)
    return make_template(levels, convex=roughness <= 0, smooth=False)


def random_corners(count: int, stretch: Array, rng: np.random.Generator) -> Array:
    """Draw the corners (N, 3) of a random hull, spread well over all directions."""
    chosen = directions(1, rng)
    while len(chosen) < max(4, count):
        trials = directions(6, rng)
        nearest = (trials[:, None] * chosen).sum(axis=2).max(axis=1)
        chosen = np.concatenate([chosen, trials[nearest.argmin()][None]])
    corners: Array = chosen * rng.uniform(0.85, 1.1, (len(chosen), 1)) * stretch
    return corners


def regular_corners(family: Family, rng: np.random.Generator) -> Array:
    """Corners (N, 3) of a regular solid with a face across z, so that it lies on that face.

    A bipyramid's and a prism's axis is x; a bipyramid draws its number of sides, 4 to 6.
    """
    g = (1 + 5**0.5) / 2
    signs = np.array(list(product((-1.0, 1.0), repeat=3)))
    match family:
        case Family.CUBE:
            return signs
        case Family.OCTAHEDRON:
            upper, lower = (_ring(3, phase) * (2 / 3) ** 0.5 for phase in (0.0, np.pi / 3))
            flat = np.concatenate([upper, lower])
            return np.insert(flat, 2, np.repeat([1.0, -1.0], 3) / 3**0.5, axis=1)
        case Family.TRUNCATED_OCTAHEDRON:
            around = {p for s in signs for p in permutations((0.0, s[0], 2 * s[1]))}
            return np.array(sorted(around))
        case Family.DODECAHEDRON:
            edges = [(0.0, a / g, b * g) for a, b in product((-1, 1), repeat=2)]
            corners = np.concatenate([signs, *(np.roll(edges, k, axis=1) for k in range(3))])
            return _about_x(corners, np.arctan2(g, 1))
        case Family.BIPYRAMID:
            sides = int(rng.integers(4, 7))
            tips = np.array([(1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)])
            return np.concatenate([np.insert(_ring(sides, 0.0), 0, 0.0, axis=1), tips])
        case Family.HEXAGONAL_PRISM:
            return np.concatenate([np.insert(_ring(6, 0.0), 0, x, axis=1) for x in (-1.0, 1.0)])
        case Family.HALF_SPACES | Family.RANDOM_HULL:
            raise ValueError(f"{family.name} is not a regular solid.")


def platelet(outline: Array, thickness_ratio: float, bevel: float) -> tuple[Template, float]:
    """Make a flat prism with rounded edges.

    Parameters
    ----------
    outline : (N, 2) float64
        Corners of the face, on about the unit circle.
    thickness_ratio : float
        Thickness over the diameter of the circle of the face's area, about.
    bevel : float
        Rounding of the edges relative to half of the thickness, 0 to 1.

    Returns
    -------
    template : Template
        The normal of its faces is z.
    face_radius : float
        Of the circle that has the area of its projection along z, in the template's unit.
    """
    half = thickness_ratio
    ball = half * min(bevel, 0.95)
    within = outline * max(1 - ball, 0.05)
    corners = [np.insert(within, 2, z, axis=1) for z in (ball - half, half - ball)]
    levels = rounded(hull(np.concatenate(corners)), ball)
    template = make_template(levels, convex=True, smooth=False)
    finest = template.levels[-1]
    a, b, c = (finest.vertices[finest.faces[:, k]] for k in range(3))
    # Of a convex body, the upward parts of the surface cover the projection once.
    upward = np.cross(b - a, c - a)[:, 2] / 2
    return template, float(np.sqrt(upward[upward > 0].sum() / np.pi))


def random_outline(corners: int, rng: np.random.Generator) -> Array:
    """Draw a slightly irregular convex polygon (N, 2), longest along x."""
    step = 2 * np.pi / corners
    angles = (np.arange(corners) + rng.uniform(-0.12, 0.12, corners)) * step
    length = rng.uniform(1.0, 1.15)
    outline: Array = np.stack([np.cos(angles) * length, np.sin(angles) / length], axis=1)
    wide = np.ptp(outline, axis=0)
    if wide[0] < wide[1]:
        outline = outline[:, ::-1] * np.array([1.0, -1.0])
    return outline


def _rough(
    levels: tuple[Level, ...], roughness: float, rng: np.random.Generator
) -> tuple[Level, ...]:
    frequency, seed = rng.uniform(1.5, 3.5), int(rng.integers(2**32))
    made = []
    finer: dict[int, tuple[Array, Faces]] = {}
    for step, longest in _ROUGH:
        smooth = levels[min(step, len(levels) - 1)]
        base = finer.get(step, (smooth.vertices, smooth.faces))
        vertices, faces = finer[step] = refine(*base, longest)
        surface = _wavy(vertices, roughness, frequency, seed)
        flat = surface[faces].mean(axis=1) - _wavy(
            vertices[faces].mean(axis=1), roughness, frequency, seed
        )
        error = smooth.error + float(np.sqrt((flat * flat).sum(axis=1)).max())
        made.append(Level(surface, faces, error))
    return (*made[:-1], Level(made[-1].vertices, made[-1].faces, 0.0))


def _wavy(points: Array, roughness: float, frequency: float, seed: int) -> Array:
    # Every level moves by the same waves, so they are drawn anew from their own seed.
    field = waves(points, 12, frequency, np.random.default_rng(seed))
    moved: Array = points * np.clip(1 + roughness * field, 0.2, None)[:, None]
    return moved


def _ring(count: int, phase: float) -> Array:
    angles = np.arange(count) * (2 * np.pi / count) + phase
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _about_x(corners: Array, angle: float) -> Array:
    x, y, z = corners.T
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([x, y * c - z * s, y * s + z * c], axis=1)
