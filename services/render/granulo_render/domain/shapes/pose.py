# SPDX-License-Identifier: GPL-3.0-or-later
"""Turning particles: rotations drawn at random, upright or lying."""

import numpy as np

from granulo_render.domain.shapes.icosphere import Array
from granulo_render.domain.shapes.template import Template

_TILT_RAD = 0.15  # of short lying particles; long ones cannot rise as much
_FALLS = 15.0  # length over thickness above which nothing stands
_FLAT = 0.8  # thickness over width below which a particle lies on its flat side


def random_rotation(
    rng: np.random.Generator, *, lying: bool, flat: bool = False, slenderness: float = 2.0
) -> Array:
    """Draw a rotation matrix.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the draw.
    lying : bool
        Put the long axis (x) near the substrate; otherwise all directions are equally likely.
    flat : bool
        Of lying particles, put the short axis (z) near the substrate's normal, either way up.
    slenderness : float
        Length over thickness; the tilt of a lying particle shrinks with it.

    Returns
    -------
    (3, 3) float64
        From the particle's axes to the specimen's.
    """
    if not lying:
        return _from_quaternion(rng.normal(size=4))
    steep = _TILT_RAD * min(1.0, 2.0 / slenderness)
    if flat:
        roll = rng.normal(0, steep) + np.pi * int(rng.integers(2))
    else:
        roll = rng.uniform(0, 2 * np.pi)
    tilt, turn = rng.normal(0, steep), rng.uniform(0, 2 * np.pi)
    ca, sa, cb, sb = np.cos(roll), np.sin(roll), np.cos(tilt), np.sin(tilt)
    cc, sc = np.cos(turn), np.sin(turn)
    return np.array(
        [
            [cc * cb, cc * sb * sa - sc * ca, cc * sb * ca + sc * sa],
            [sc * cb, sc * sb * sa + cc * ca, sc * sb * ca - cc * sa],
            [-sb, cb * sa, cb * ca],
        ]
    )


def random_pose(
    template: Template,
    scale_nm: tuple[float, float, float],
    rng: np.random.Generator,
    *,
    lying: bool,
) -> Array:
    """Draw how one particle lies or stands: a rotation matrix (3, 3).

    Facetted, flat and bent particles lie on their broad side, round ones on any. Very long ones
    always lie.
    """
    x, y, z = (half * scale for half, scale in zip(template.half_sizes, scale_nm, strict=True))
    flat = not template.smooth or z < _FLAT * y
    return random_rotation(rng, lying=lying or x > _FALLS * z, flat=flat, slenderness=x / z)


def rotate(vertices: Array, rotation: Array) -> Array:
    """Turn vertices (V, 3); no BLAS, whose last digit may depend on the number of threads."""
    turned: Array = np.einsum("vk,ik->vi", vertices, rotation)
    return turned


def _from_quaternion(q: Array) -> Array:
    w, x, y, z = q / np.sqrt((q * q).sum())
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
