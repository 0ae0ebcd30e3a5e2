# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes whose surface is one distance per direction, sampled on the icosphere."""

from functools import cache

import numpy as np

from granulo_render.domain.shapes.icosphere import FINEST, Array, icosphere
from granulo_render.domain.shapes.template import Template, aligned, make_template, nested_levels

_CORE = 0.8  # rounds the inner distance field, so that few faces never make a needle


@cache
def ball() -> Template:
    """Make the smooth sphere."""
    return _star(icosphere(FINEST)[0], convex=True)


def rough_ball(height: float, rng: np.random.Generator) -> Template:
    """Make a sphere with a wavy, grainy or knobbly texture of relative ``height``."""
    u = icosphere(FINEST)[0]
    kind = rng.random()
    if kind < 0.5:  # wavy
        texture = waves(u, 12, rng.uniform(1.5, 5.0), rng)
    elif kind < 0.75:  # grainy
        texture = np.abs(waves(u, 30, rng.uniform(10.0, 20.0), rng))
    else:  # knobbly
        knobs = directions(int(rng.integers(40, 110)), rng)
        nearest: Array = np.max([dot(u, knob) for knob in knobs], axis=0)
        texture = 2.0 * np.clip((nearest - 0.9) / 0.1, 0, 1) ** 0.6
    return _star(u * np.clip(1 + height * texture, 0.2, None)[:, None])


def half_spaces(
    faces: int, sharpness: float, stretch: Array, roughness: float, rng: np.random.Generator
) -> Template:
    """Make a rounded intersection of random half-spaces.

    Parameters
    ----------
    faces : int
        Number of half-spaces, 4 or more.
    sharpness : float
        p of the p-norm that joins their distances: 4 is well rounded, 12 nearly sharp.
    stretch : (3,) float64
        Factors along x, y and z.
    roughness : float
        Height of the surface's waves relative to the radius.
    rng : numpy.random.Generator
        Draws the half-spaces and the waves.
    """
    u = icosphere(FINEST)[0]
    normals = directions(max(4, faces), rng)
    if rng.random() < 0.6:  # crystals have parallel faces
        normals = np.concatenate([normals[::2], -normals[::2]])
    distances = rng.uniform(0.85, 1.12, len(normals))
    total = np.full(len(u), _CORE**sharpness)
    for normal, distance in zip(normals, distances, strict=True):
        total += np.clip(dot(u, normal) / distance, 0, None) ** sharpness
    radius = total ** (-1 / sharpness)
    radius = np.clip(radius, 0.2, None)
    rough = np.clip(1 + roughness * waves(u, 12, rng.uniform(1.5, 3.5), rng), 0.2, None)
    smooth = u * radius[:, None] * stretch
    return _star(aligned(smooth * rough[:, None], like=smooth))


def directions(count: int, rng: np.random.Generator) -> Array:
    """Draw ``count`` unit vectors, all directions equally likely."""
    vectors = rng.normal(size=(count, 3))
    unit: Array = vectors / np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    return unit


def dot(u: Array, v: Array) -> Array:
    """Scalar products (N,) of vectors (N, 3) with one vector (3,)."""
    product: Array = u[:, 0] * v[0] + u[:, 1] * v[1] + u[:, 2] * v[2]
    return product


def waves(u: Array, count: int, frequency: float, rng: np.random.Generator) -> Array:
    """Evaluate a smooth random field of unit variance at points (N, 3).

    A sum of plane waves of random directions has no seams.
    """
    vectors = directions(count, rng) * frequency
    phases = rng.uniform(0, 2 * np.pi, count)
    total = np.zeros(len(u))
    for wave, phase in zip(vectors, phases, strict=True):
        total += np.cos(dot(u, wave) + phase)
    field: Array = total / np.sqrt(count)
    return field


def _star(vertices: Array, *, convex: bool = False) -> Template:
    levels = nested_levels(vertices, icosphere(FINEST)[1], FINEST - 1)
    return make_template(levels, convex=convex, smooth=True)
