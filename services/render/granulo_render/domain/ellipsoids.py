# SPDX-License-Identifier: GPL-3.0-or-later
"""Balls and ellipsoids: the formulas of their surfaces and shadows.

A fine mesh of a ball has more triangles than the ball has pixels, and spheres are what most scenes
are made of, so this is ten times as fast as `scanning`.
"""

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.scanning import Array, Index
from granulo_render.domain.shapes import Template

_BALL_EXTENT = 1.001  # meshes of balls reach a little beyond the sphere of their volume


def is_ball(template: Template) -> bool:
    """Tell whether a template is a ball: no other shape of its volume has so little extent."""
    return template.extent < _BALL_EXTENT


def balls_of(templates: tuple[Template, ...], template: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Tell which particles are balls, by the index of their template (N,)."""
    ball = np.array([is_ball(item) for item in templates], dtype=bool)
    result: NDArray[np.bool_] = ball[template] if len(template) else np.zeros(0, dtype=bool)
    return result


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


def shadow_axes(matrix: Array) -> tuple[Array, Array]:
    """Semi-axes of the ellipses that unit balls become in the image.

    Parameters
    ----------
    matrix : (M, 3, 3) float64
        See `scanning.camera_matrices`.

    Returns
    -------
    long, short : (M,) float64
        In pixels; roots of the eigenvalues of the upper left of A A^T.
    """
    form = np.einsum("mij,mkj->mik", matrix[:, :2], matrix[:, :2])
    mean = (form[:, 0, 0] + form[:, 1, 1]) / 2
    apart = np.hypot((form[:, 0, 0] - form[:, 1, 1]) / 2, form[:, 0, 1])
    return np.sqrt(mean + apart), np.sqrt(np.maximum(mean - apart, 0))
