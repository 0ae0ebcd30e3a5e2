# SPDX-License-Identifier: GPL-3.0-or-later
"""Template particles: closed triangle meshes of unit size in several levels of detail."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.shapes.icosphere import Array, Faces

TOLERANCE_PX = 0.05
"""A coarser level may differ from the finest by this much."""


@dataclass(frozen=True, eq=False)
class Level:
    """One level of detail."""

    vertices: Array
    """(V, 3)."""
    faces: Faces
    """(F, 3), counter-clockwise from outside."""
    error: float
    """Largest distance of its surface from the finest level's."""


@dataclass(frozen=True, eq=False)
class Template:
    """One particle geometry of unit size.

    The volume is that of the unit sphere and the centroid is the origin. The bounding box is
    longest along x and shortest along z, but for roughness.
    """

    levels: tuple[Level, ...]
    """Coarse to fine; all of them closed."""
    extent: float
    """Largest distance of a vertex from the centroid."""
    half_sizes: tuple[float, float, float]
    """Half of the bounding box along x, y and z."""
    convex: bool
    smooth: bool
    """Shade with interpolated normals (round things) or flat (facets)."""

    @property
    def vertices(self) -> Array:
        """Vertices (V, 3) of the finest level."""
        return self.levels[-1].vertices

    def mesh(self, radius_px: float) -> tuple[Array, Faces]:
        """Take the coarsest level that is within 0.05 px of the finest.

        Parameters
        ----------
        radius_px : float
            Pixels per unit: the radius of the sphere of equal volume, or the largest of the
            three scales of a particle that is scaled differently along its axes.

        Returns
        -------
        vertices : (V, 3) float64
        faces : (F, 3) int32
            Closed, counter-clockwise from outside.
        """
        fine = (x for x in self.levels if x.error * radius_px <= TOLERANCE_PX)
        level = next(fine, self.levels[-1])
        return level.vertices, level.faces


def make_template(levels: Sequence[Level], *, convex: bool, smooth: bool) -> Template:
    """Bring a shape to unit volume and its centroid to the origin.

    Parameters
    ----------
    levels : sequence of Level
        Closed meshes of one shape, coarse to fine, in any unit. The finest one's volume counts.
    convex, smooth : bool
        See `Template`.
    """
    finest = levels[-1]
    unit, centroid = unit_body(finest.vertices, finest.faces)
    scaled = tuple(
        Level((level.vertices - centroid) * unit, level.faces, level.error * unit)
        for level in levels
    )
    vertices = scaled[-1].vertices
    half = (vertices.max(axis=0) - vertices.min(axis=0)) / 2
    extent = float(np.sqrt((vertices * vertices).sum(axis=1)).max())
    sizes = (float(half[0]), float(half[1]), float(half[2]))
    return Template(scaled, extent, sizes, convex=convex, smooth=smooth)


def aligned(points: Array, like: Array | None = None) -> Array:
    """Exchange axes so that a bounding box is longest along x and shortest along z.

    Parameters
    ----------
    points : (N, 3) float64
        What to turn. A symmetric shape keeps its symmetry: axes are exchanged, never mixed.
    like : (M, 3) float64, optional
        Points whose box counts instead of that of ``points``.
    """
    box = np.ptp(points if like is None else like, axis=0)
    order = np.argsort(-np.round(box / box.max(), 6), kind="stable")
    # An odd exchange would turn faces inside out, so it mirrors one axis as well.
    odd = tuple(order) in ((0, 2, 1), (1, 0, 2), (2, 1, 0))
    turned: Array = points[:, order] * np.array([1.0, 1.0, -1.0 if odd else 1.0])
    return turned


def nested_levels(vertices: Array, faces: Faces, splits: int) -> tuple[Level, ...]:
    """Make the levels of a mesh whose faces were split ``splits`` times.

    Parameters
    ----------
    vertices : (V, 3) float64
        Moved anywhere after the splitting, but in its order.
    faces : (F, 3) int32
        Of the finest level, as `icosphere.split` orders them.
    splits : int
        Number of coarser levels to offer.

    Returns
    -------
    tuple of Level
        ``splits + 1`` levels, coarse to fine.
    """
    # A vertex lies over the ancestor of each of its faces, so its distance from that one's plane
    # is the distance between the two surfaces.
    own = _any_face(faces)
    levels = []
    for corners in _unsplit(faces, splits)[:-1]:
        normal, at = _planes(vertices, corners)
        ancestor = own % len(corners)
        distance = np.abs(((vertices - at[ancestor]) * normal[ancestor]).sum(axis=1))
        levels.append(Level(vertices[: corners.max() + 1], corners, float(distance.max())))
    return (*levels, Level(vertices, faces, 0.0))


def volume(vertices: Array, faces: Faces) -> float:
    """Volume of a closed triangle mesh."""
    _, cells = _tetrahedra(vertices, faces)
    return float(cells.sum() / 6)


def unit_body(vertices: Array, faces: Faces) -> tuple[float, Array]:
    """Measure what brings a closed mesh to unit size.

    Returns
    -------
    scale : float
        Gives it the volume of the unit sphere.
    centroid : (3,) float64
        Its centre of mass, before scaling.
    """
    corners, cells = _tetrahedra(vertices, faces)
    total = cells.sum()
    return float((8 * np.pi / total) ** (1 / 3)), (corners * cells).sum(axis=1) / (4 * total)


def _tetrahedra(vertices: Array, faces: Faces) -> tuple[Array, Array]:
    """Sums of the corners (3, F) and six times the volumes (F,) of the cells to the origin."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = (
        np.ascontiguousarray(vertices.T)[:, corner] for corner in faces.T
    )
    cells = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
    return np.stack([ax + bx + cx, ay + by + cy, az + bz + cz]), cells


def _any_face(faces: Faces) -> NDArray[np.intp]:
    face = np.zeros(faces.max() + 1, dtype=np.intp)
    face[faces] = np.arange(len(faces))[:, None]
    return face


def _unsplit(faces: Faces, splits: int) -> list[Faces]:
    # `split` keeps a triangle's corners as the first corners of its first three quarters.
    found = [faces]
    for _ in range(splits):
        count = len(found[0]) // 4
        corners = [found[0][k * count : (k + 1) * count, 0] for k in range(3)]
        found.insert(0, np.stack(corners, axis=1))
    return found


def _planes(vertices: Array, faces: Faces) -> tuple[Array, Array]:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    length = np.sqrt((normal * normal).sum(axis=1, keepdims=True))
    return normal / np.maximum(length, 1e-300), a
