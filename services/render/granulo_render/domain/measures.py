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

_DETAIL_PX = 10.0
"""Meshes are at least as fine as for particles of this radius: 0.5 % of it off the finest."""


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
    largest_px = scene.scale_nm[members].max(axis=1, initial=0) / scene.pixel_size_nm
    outliners: dict[int, Outliner] = {}
    round_ones = balls_of(scene.templates, scene.template)[members]
    for k in np.flatnonzero(~round_ones).tolist():
        template = scene.templates[scene.template[members[k]]]
        vertices, faces = template.mesh(max(float(largest_px[k]), _DETAIL_PX))
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
    count = hull.shape[1]
    if count < 3:
        return 0.0, float(np.hypot(*(hull[:, 0] - hull[:, -1])))
    edges = np.roll(hull, -1, axis=1) - hull
    length = np.hypot(*edges)
    # Rotating calipers: opposite to an edge lies the corner at which the edges turn back.
    turn = np.unwrap(np.arctan2(edges[1], edges[0]))
    turn = turn * np.sign(turn[-1] - turn[0])
    ahead = np.concatenate([turn, turn + 2 * np.pi])
    opposite = np.searchsorted(ahead, turn + np.pi) % count
    here = np.arange(count)
    most = 0.0
    for end in (here, (here + 1) % count):
        for step in (-1, 0, 1):  # rounding may miss the corner by one
            apart = hull[:, (opposite + step) % count] - hull[:, end]
            most = max(most, float(np.hypot(*apart).max()))
    far = np.stack([hull[:, (opposite + step) % count] - hull for step in (-1, 0, 1)])
    width = np.abs(far[:, 0] * edges[1] - far[:, 1] * edges[0]).max(axis=0) / length
    return float(width.min()), most
