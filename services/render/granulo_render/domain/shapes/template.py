# SPDX-License-Identifier: GPL-3.0-or-later
"""Template particles: closed triangle meshes of unit size in several levels of detail."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.shapes.icosphere import Array, Faces

TOLERANCE_PX = 0.05
"""A coarser level may differ from the finest by this much."""
_MAX_POINTS = 10_000


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
    _points: dict[int, Array] = field(default_factory=dict, repr=False)

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
        level = self._level(TOLERANCE_PX / max(radius_px, 1e-9))
        return level.vertices, level.faces

    def points(self, spacing: float) -> Array:
        """Sample the surface.

        Parameters
        ----------
        spacing : float
            No place of the surface is farther from a sample than this, in unit radii; more
            where 10,000 points do not suffice.

        Returns
        -------
        (K, 3) float64
            At most 10,000 points; the same array for about the same spacing.
        """
        step = math.floor(2 * math.log2(max(spacing, 1e-4)))
        if step not in self._points:
            self._points[step] = self._sampled(2 ** (step / 2))
        return self._points[step]

    def _level(self, tolerance: float) -> Level:
        return next((level for level in self.levels if level.error <= tolerance), self.levels[-1])

    def _sampled(self, spacing: float) -> Array:
        # Less than this would need too many points even if each stood for a whole square.
        spacing = max(spacing, math.sqrt(_area(self.levels[0]) / _MAX_POINTS))
        while True:
            level = self._level(spacing / 8)
            points = _sample(level.vertices, level.faces, spacing)
            if len(points) <= _MAX_POINTS:
                return points
            if len(level.vertices) > _MAX_POINTS and level is self.levels[0]:
                return _thin(points, spacing)
            spacing *= 1.2


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
    unit = unit_scale(finest.vertices, finest.faces)
    origin = centroid(finest.vertices, finest.faces)
    scaled = tuple(
        Level((level.vertices - origin) * unit, level.faces, level.error * unit) for level in levels
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
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def centroid(vertices: Array, faces: Faces) -> Array:
    """Centre of mass (3,) of a closed triangle mesh."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    cells = (a * np.cross(b, c)).sum(axis=1, keepdims=True)
    centre: Array = ((a + b + c) * cells).sum(axis=0) / (4 * cells.sum())
    return centre


def unit_scale(vertices: Array, faces: Faces) -> float:
    """Factor that gives a closed mesh the volume of the unit sphere."""
    return float((4 * np.pi / 3 / volume(vertices, faces)) ** (1 / 3))


def _area(level: Level) -> float:
    a, b, c = (level.vertices[level.faces[:, k]] for k in range(3))
    return float(_length(np.cross(b - a, c - a)).sum() / 2)


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


def _sample(vertices: Array, faces: Faces, spacing: float) -> Array:
    """Vertices, points on long edges and points inside of large faces."""
    pairs = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1).astype(np.int64)
    keys = np.unique(pairs[:, 0] * len(vertices) + pairs[:, 1])
    start, end = vertices[keys // len(vertices)], vertices[keys % len(vertices)]
    found = [vertices]
    for parts, chosen in _by_parts(_length(end - start), spacing):
        for k in range(1, parts):
            t = k / parts
            found.append(start[chosen] * (1 - t) + end[chosen] * t)
    corners = vertices[faces]
    a, b, c = corners.transpose(1, 0, 2)
    longest = np.max([_length(b - a), _length(c - b), _length(a - c)], axis=0)
    # Points on its edges are enough for a narrow face.
    height = _length(np.cross(b - a, c - a)) / np.maximum(longest, 1e-300)
    longest[height <= 1.5 * spacing] = 0
    for parts, chosen in _by_parts(longest, spacing):
        a, b, c = corners[chosen].transpose(1, 0, 2)
        for i in range(1, parts):
            found += [(a * i + b * j + c * (parts - i - j)) / parts for j in range(1, parts - i)]
    return np.concatenate(found)


def _thin(points: Array, spacing: float) -> Array:
    """Keep one point per cubic cell, of cells as small as the number of points allows."""
    while len(points) > _MAX_POINTS:
        cells = np.floor(points / spacing).astype(np.int64)
        points = points[np.sort(np.unique(cells, axis=0, return_index=True)[1])]
        spacing *= 1.2
    return points


def _by_parts(lengths: Array, spacing: float) -> list[tuple[int, NDArray[np.intp]]]:
    # No more than 141 parts: a face cut finer would hold more than 10,000 points alone.
    parts: NDArray[np.int64] = np.minimum(np.ceil(lengths / spacing), 141).astype(np.int64)
    return [(int(n), np.flatnonzero(parts == n)) for n in np.unique(parts[parts > 1])]


def _length(vectors: Array) -> Array:
    length: Array = np.sqrt((vectors * vectors).sum(axis=1))
    return length
