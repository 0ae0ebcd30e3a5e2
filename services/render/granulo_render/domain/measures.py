# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures of whole particles as the camera projects them, from their geometry, not from pixels."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.ellipsoids import balls_of, shadow_axes
from granulo_render.domain.outlines import Outliner, covered_area
from granulo_render.domain.scanning import Array, Index, camera_matrices
from granulo_render.domain.scene import Scene

_DETAIL_PX = 50.0
"""Meshes are as fine as for particles of this radius: 0.1 % off the finest."""


@dataclass(frozen=True, eq=False)
class Projections:
    """One entry per particle that was measured."""

    area_nm2: Array
    feret_min_nm: Array
    """Least distance of two parallel lines that touch the projection from both sides."""
    feret_max_nm: Array
    """Largest distance of two of its points."""
    cut: NDArray[np.bool_]
    """A part lies outside of the image."""


def measure(scene: Scene, members: Index) -> Projections:
    """Measure the projections of particles, hidden and cut-off parts included.

    Parameters
    ----------
    scene : Scene
    members : (M,) int64
        Indices of the particles.

    Returns
    -------
    Projections
        Balls and ellipsoids by the formula of the ellipse, others from their meshes: Feret
        diameters by the hull of the outline, areas less than 0.5 % off.
    """
    matrix, shift = camera_matrices(scene)
    matrix, shift = matrix[members], shift[members]
    long, short = shadow_axes(matrix)
    area, least, most = np.pi * long * short, 2 * short, 2 * long
    reach = np.sqrt((matrix[:, :2] ** 2).sum(axis=2))
    first, last = shift[:, :2] - reach, shift[:, :2] + reach
    outliners: dict[int, Outliner] = {}
    round_ones = balls_of(scene.templates, scene.template)[members]
    for k in np.flatnonzero(~round_ones).tolist():
        template = scene.templates[scene.template[members[k]]]
        vertices, faces = template.mesh(_DETAIL_PX)
        if id(vertices) not in outliners:
            outliners[id(vertices)] = Outliner.of(vertices, faces)
        outline = outliners[id(vertices)].outline(matrix[k], np.zeros(3))
        convex = template.convex
        area[k] = outliners[id(vertices)].seen_area(matrix[k]) if convex else covered_area(outline)
        least[k], most[k] = feret_diameters(outline.start)
        first[k] = outline.start.min(axis=1) + shift[k, :2]
        last[k] = outline.start.max(axis=1) + shift[k, :2]
    pixel = scene.pixel_size_nm
    cut = (first < -0.5) | (last > scene.size_px - 0.5)
    return Projections(area * pixel**2, least * pixel, most * pixel, cut.any(axis=1))


def feret_diameters(points: Array) -> tuple[float, float]:
    """Least and largest Feret diameter of points in the plane.

    Parameters
    ----------
    points : (2, K) float64

    Returns
    -------
    tuple of float
        The least one is taken across an edge of the convex hull, as it always lies there
        (Freeman and Shapira 1975).
    """
    hull = cv2.convexHull(points.T.astype(np.float32))[:, 0].astype(np.float64).T
    apart = hull[:, :, None] - hull[:, None, :]
    most = float(np.sqrt((apart * apart).sum(axis=0).max()))
    edges = np.roll(hull, -1, axis=1) - hull
    length = np.sqrt((edges * edges).sum(axis=0))
    across = np.abs(apart[0] * edges[1][None] - apart[1] * edges[0][None]).max(axis=0)
    solid = length > 0
    least = float((across[solid] / length[solid]).min()) if solid.any() else 0.0
    return least, most
