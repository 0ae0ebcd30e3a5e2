# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a particle comes to rest on the substrate and on the particles already there."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.shapes import Particle, Template, rotate

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Index = NDArray[np.int64]

_TOUCH = 1e-3  # spheres this close, in radii, touch and do not overlap
_COVERAGE_CELLS = 512  # per side of the image, to measure coverage by spheres
_MESH_PX = 2.4  # contacts need no finer mesh than a particle of this radius in pixels
_ELONGATED = 1.4  # length over width of bodies that have an axis
_AROUND_Z = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


@dataclass(frozen=True, eq=False)
class Body:
    """A particle that looks for its place; lengths in nm."""

    kind: int
    """Index of the particle class."""
    particle: Particle
    template: Template
    rotation: Array
    """(3, 3) from the template's axes to the specimen's."""
    radius_nm: float
    """Of the sphere of equal volume."""
    half_nm: float
    """Half of its smallest extent: the radius of a sphere, half the thickness of a rod."""
    reach_nm: float
    """Largest distance of the surface from the centroid."""
    ground_nm: float
    """Height of the centroid when the body lies on the bare substrate."""
    vertices: Array
    """(V, 3) about the centroid, in the specimen's axes; none among spheres."""
    faces: NDArray[np.int32]
    """(F, 3)."""


def make_sphere(kind: int, particle: Particle, template: Template, rotation: Array) -> Body:
    """Make a body for `Spheres`; its surface texture does not count in contacts."""
    radius = particle.radius_nm
    none, no_faces = np.empty((0, 3)), np.empty((0, 3), dtype=np.int32)
    return Body(kind, particle, template, rotation, radius, radius, radius, radius, none, no_faces)


def make_body(kind: int, particle: Particle, template: Template, rotation: Array) -> Body:
    """Make a body of any shape for `HeightMap`."""
    scale = np.array(particle.scale_nm)
    vertices, faces = template.mesh(_MESH_PX * float(scale.max()) / particle.radius_nm)
    turned = rotate(vertices * scale, rotation)
    return Body(
        kind,
        particle,
        template,
        rotation,
        radius_nm=particle.radius_nm,
        half_nm=float((np.array(template.half_sizes) * scale).min()),
        reach_nm=float(np.sqrt((turned * turned).sum(axis=1).max())),
        ground_nm=-float(turned[:, 2].min()),
        vertices=turned,
        faces=faces,
    )


def turn(body: Body, angle: float) -> Body:
    """Turn a body about the vertical, counter-clockwise from above, in radians."""
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    about = cosine * np.diag([1.0, 1.0, 0.0]) + sine * _AROUND_Z + np.diag([0.0, 0.0, 1.0])
    rotation = np.einsum("ij,jk->ik", about, body.rotation)
    if not len(body.vertices):
        return make_sphere(body.kind, body.particle, body.template, rotation)
    return make_body(body.kind, body.particle, body.template, rotation)


def extent_nm(body: Body, angle: float) -> float:
    """Distance from the centroid to the body's end in a horizontal direction, in radians."""
    if not len(body.vertices):
        return body.radius_nm
    x, y, _ = body.vertices.T
    return float((x * np.cos(angle) + y * np.sin(angle)).max())


def axis_nm(body: Body) -> tuple[float, float]:
    """Middle line of a long, straight, lying body, from the centroid to its end; else zeros."""
    length, width, _ = (
        half * scale
        for half, scale in zip(body.template.half_sizes, body.particle.scale_nm, strict=True)
    )
    x, y = float(body.rotation[0, 0]), float(body.rotation[1, 0])
    long = body.template.convex and length >= _ELONGATED * width and x * x + y * y > 0.5
    along = (length - width) * long
    return along * x, along * y


def aligned(body: Body, angle: float) -> Body:
    """Turn a long, straight, lying body's axis to an angle in radians; leave others."""
    x, y = axis_nm(body)
    return turn(body, angle - float(np.arctan2(y, x))) if x or y else body


class Ground(Protocol):
    """What lies on the substrate already. Places (T,) are tried together; lengths in nm."""

    grid_nm: float
    """Distance between the places at which bodies may lie; 0: anywhere."""

    @property
    def coverage(self) -> float:
        """Share of the image that lies under particles, seen from above."""

    def rest_nm(self, body: Body, x_nm: Array, y_nm: Array) -> Array:
        """Heights (T,) of the body's centroid when it is lowered there until it touches."""

    def clear(self, body: Body, x_nm: Array, y_nm: Array) -> Flags:
        """Tell at which places (T,) the body may lie on the substrate and cut into nothing."""

    def approach(
        self, body: Body, x_nm: Array, y_nm: Array, angle: Array, start_nm: Array
    ) -> Array:
        """Slide the body over the substrate towards places.

        Parameters
        ----------
        body : Body
        x_nm, y_nm : (T,) float64
            Where each slide would end.
        angle : (T,) float64
            Direction from there to where it starts, in radians.
        start_nm : (T,) float64
            Distance of the start from the end; infinite: from beyond everything.

        Returns
        -------
        (T,) float64
            Distance from the end at which the body touches something; 0 if it arrives, NaN if
            there is no room at the start.
        """

    def touched(self, body: Body, x_nm: float, y_nm: float) -> int:
        """Index of the body that one at this place on the substrate cuts into most; -1: none."""

    def smallest_near(self, body: Body, x_nm: float, y_nm: float) -> float:
        """Half thickness of the thinnest body within reach, the body itself included."""

    def add(self, body: Body, x_nm: float, y_nm: float, z_nm: float) -> tuple[float, float]:
        """Leave the body there for good, and tell exactly where that is."""


class Known:
    """Bodies placed so far, as bounding spheres."""

    def __init__(self) -> None:
        self.count = 0
        self._table = np.empty((5, 256))

    def add(self, body: Body, x_nm: float, y_nm: float, z_nm: float) -> None:
        """Remember one more."""
        if self.count == self._table.shape[1]:
            self._table = np.concatenate([self._table, np.empty_like(self._table)], axis=1)
        self._table[:, self.count] = x_nm, y_nm, z_nm, body.reach_nm, body.half_nm
        self.count += 1

    @property
    def table(self) -> Array:
        """(5, N): x, y, z, reach, half thickness."""
        return self._table[:, : self.count]

    def near(self, x_nm: Array, y_nm: Array, margin_nm: float) -> Index:
        """Indices of bodies within ``margin_nm`` of the box that holds the places."""
        x, y, _, reach, _ = self.table
        left, right, low, high = x_nm.min(), x_nm.max(), y_nm.min(), y_nm.max()
        room = reach + (margin_nm + (right - left) / 2)
        inside = np.abs(x - (left + right) / 2) <= room
        room += (high - low) / 2 - (right - left) / 2
        inside &= np.abs(y - (low + high) / 2) <= room
        return np.flatnonzero(inside)

    def smallest_near(self, body: Body, x_nm: float, y_nm: float) -> float:
        """See `Ground`."""
        near = self.near(np.array([x_nm]), np.array([y_nm]), body.reach_nm)
        return min(body.half_nm, float(self.table[4, near].min(initial=np.inf)))

    def meetings(
        self, body: Body, x_nm: Array, y_nm: Array, angle: Array, start_nm: Array
    ) -> tuple[Array, Flags]:
        """Where a sliding bounding sphere first meets the others.

        Returns
        -------
        distance : (T,) float64
            From the places; minus infinity where it meets none.
        blocked : (T,) bool
            It cuts into one at the start.
        """
        x, y, z, reach, _ = self.table
        cosine, sine = np.cos(angle), np.sin(angle)
        finite = start_nm[np.isfinite(start_nm)]
        if len(finite) == len(start_nm):
            near = self.near(x_nm, y_nm, float(finite.max()) + body.reach_nm)
            x, y, z, reach = x[near], y[near], z[near], reach[near]
        if not len(x):
            return np.full(len(angle), -np.inf), np.zeros(len(angle), dtype=np.bool_)
        # |place + d u - centre|^2 = (sum of radii)^2 in d, with both at their heights.
        right, up = x - x_nm[:, None], y - y_nm[:, None]
        along = right * cosine[:, None] + up * sine[:, None]
        aside = right * sine[:, None] - up * cosine[:, None]
        touch = reach + body.reach_nm * (1 - _TOUCH)
        under = touch * touch - (z - body.ground_nm) ** 2 - aside * aside
        chord = np.sqrt(np.maximum(under, 0))
        far, close = along + chord, along - chord
        met = under > 0
        start = start_nm[:, None]
        blocked = (met & (far > start) & (close < start)).any(axis=1)
        distance = np.where(met & (far <= start), far, -np.inf).max(axis=1)
        return distance, blocked


class Spheres:
    """Exact contacts of spheres with spheres.

    Parameters
    ----------
    image_nm : float
        Side of the image around the origin.
    """

    grid_nm = 0.0

    def __init__(self, image_nm: float) -> None:
        self._known = Known()
        self._cell = image_nm / _COVERAGE_CELLS
        self._covered = np.zeros((_COVERAGE_CELLS, _COVERAGE_CELLS), dtype=np.bool_)
        self._count = 0

    @property
    def coverage(self) -> float:
        """See `Ground`."""
        return self._count / self._covered.size

    def rest_nm(self, body: Body, x_nm: Array, y_nm: Array) -> Array:
        """See `Ground`."""
        near = self._known.near(x_nm, y_nm, body.radius_nm)
        x, y, z, radius, _ = self._known.table[:, near]
        right, up = x - x_nm[:, None], y - y_nm[:, None]
        under = (radius + body.radius_nm) ** 2 - right * right - up * up
        heights = np.where(under > 0, z + np.sqrt(np.maximum(under, 0)), -np.inf)
        rest: Array = heights.max(axis=1, initial=body.radius_nm)
        return rest

    def clear(self, body: Body, x_nm: Array, y_nm: Array) -> Flags:
        """See `Ground`."""
        near = self._known.near(x_nm, y_nm, body.radius_nm)
        x, y, z, radius, _ = self._known.table[:, near]
        right, up, above = x - x_nm[:, None], y - y_nm[:, None], z - body.radius_nm
        touch = radius + (1 - 2 * _TOUCH) * body.radius_nm
        free: Flags = (right * right + up * up + above * above >= touch * touch).all(axis=1)
        return free

    def approach(
        self, body: Body, x_nm: Array, y_nm: Array, angle: Array, start_nm: Array
    ) -> Array:
        """See `Ground`."""
        distance, blocked = self._known.meetings(body, x_nm, y_nm, angle, start_nm)
        return np.where(blocked, np.nan, np.maximum(distance, 0))

    def touched(self, body: Body, x_nm: float, y_nm: float) -> int:
        """See `Ground`."""
        near = self._known.near(np.array([x_nm]), np.array([y_nm]), body.radius_nm)
        if not len(near):
            return -1
        x, y, z, radius, _ = self._known.table[:, near]
        apart = np.sqrt((x - x_nm) ** 2 + (y - y_nm) ** 2 + (z - body.radius_nm) ** 2)
        gap = apart - radius - body.radius_nm
        nearest = int(gap.argmin())
        return int(near[nearest]) if gap[nearest] < 0 else -1

    def smallest_near(self, body: Body, x_nm: float, y_nm: float) -> float:
        """See `Ground`."""
        return self._known.smallest_near(body, x_nm, y_nm)

    def add(self, body: Body, x_nm: float, y_nm: float, z_nm: float) -> tuple[float, float]:
        """See `Ground`."""
        self._known.add(body, x_nm, y_nm, z_nm)
        # Centres of the coverage cells within the disc.
        column, row = x_nm / self._cell, y_nm / self._cell
        radius, middle = body.radius_nm / self._cell, (_COVERAGE_CELLS - 1) / 2
        left, low = (max(0, int(np.ceil(v - radius + middle))) for v in (column, row))
        right, high = (
            min(_COVERAGE_CELLS, int(np.floor(v + radius + middle)) + 1) for v in (column, row)
        )
        if left < right and low < high:
            across = np.arange(left, right) - (column + middle)
            upwards = np.arange(low, high) - (row + middle)
            disc = across * across + (upwards * upwards)[:, None] <= radius * radius
            window = self._covered[low:high, left:right]
            self._count += int((disc & ~window).sum())
            window |= disc
        return x_nm, y_nm
