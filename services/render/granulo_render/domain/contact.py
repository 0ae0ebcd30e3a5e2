# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a particle comes to rest on the substrate and on the particles already there."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.shapes import Template, rotate

Array = NDArray[np.float64]

_CELLS_PER_RADIUS = 10.0
_LEVELS = (162, 642, 2562, 10242)  # icosphere vertices, coarse to fine
_SPACING = (0.30, 0.15, 0.075, 0.037)  # of the vertices of each level, in radii


@dataclass(frozen=True, eq=False)
class Body:
    """A particle that looks for its place; lengths in nm."""

    kind: int
    """Index of the particle class."""
    template: int
    """Index among the scene's templates."""
    radius_nm: float
    """Of the sphere of equal volume."""
    rotation: Array
    """(3, 3)."""
    surface: Array
    """(V, 3) turned and scaled vertices about the centroid; none among spheres."""
    imprint: Array
    """(W, 3) the same, finer: what the body leaves in a height map."""
    reach_nm: float
    """Largest distance of the surface from the centroid."""
    ground_nm: float
    """Height of the centroid when the body lies on the bare substrate."""


def make_body(
    kind: int,
    index: int,
    template: Template,
    radius_nm: float,
    rotation: Array,
    cell_nm: float | None,
) -> Body:
    """Make a body from a template; ``cell_nm`` is the height map's cell, None among spheres."""
    none = np.empty((0, 3))
    if cell_nm is None:
        return Body(kind, index, radius_nm, rotation, none, none, radius_nm, radius_nm)
    # Two cells between feeling points are enough; an imprint must not have holes.
    feeling, leaving = (_level(radius_nm, step * cell_nm) for step in (2, 1))
    imprint = rotate(template.vertices[:leaving], rotation) * radius_nm
    surface = imprint[:feeling]
    reach = template.extent * radius_nm
    ground = -float(imprint[:, 2].min())
    return Body(kind, index, radius_nm, rotation, surface, imprint, reach, ground)


def _level(radius_nm: float, spacing_nm: float) -> int:
    """Number of icosphere vertices at which neighbours are that close, if there are as many."""
    fine = (n for n, gap in zip(_LEVELS, _SPACING, strict=True) if gap * radius_nm <= spacing_nm)
    return next(fine, _LEVELS[-1])


class Ground(Protocol):
    """What lies on the substrate already."""

    slack_nm: float
    """Gap at which bodies may count as touching already; 0 where contacts are exact."""

    def rest_nm(self, body: Body, x_nm: float, y_nm: float) -> float:
        """Height of the body's centroid when it is lowered at (x, y) until it touches."""

    def add(self, body: Body, x_nm: float, y_nm: float, z_nm: float) -> None:
        """Leave the body there for good."""


class Spheres:
    """Exact contacts of spheres with spheres; the texture of rough ones does not count."""

    slack_nm = 0.0

    def __init__(self) -> None:
        self._count = 0
        self._placed = np.empty((4, 256))  # x, y, z, radius

    def rest_nm(self, body: Body, x_nm: float, y_nm: float) -> float:
        """See `Ground`."""
        x, y, z, r = self._placed[:, : self._count]
        under = (r + body.radius_nm) ** 2 - (x - x_nm) ** 2 - (y - y_nm) ** 2
        hit = under > 0
        if not hit.any():
            return body.radius_nm
        return max(body.radius_nm, float((z[hit] + np.sqrt(under[hit])).max()))

    def add(self, body: Body, x_nm: float, y_nm: float, z_nm: float) -> None:
        """See `Ground`."""
        if self._count == self._placed.shape[1]:
            self._placed = np.concatenate([self._placed, np.empty_like(self._placed)], axis=1)
        self._placed[:, self._count] = x_nm, y_nm, z_nm, body.radius_nm
        self._count += 1


class HeightMap:
    """Contacts of any shapes, through a map of the heights reached so far.

    Parameters
    ----------
    side_nm : float
        Side of the square around the origin in which particles can lie.
    cell_nm : float
        Side of a map cell.
    """

    def __init__(self, side_nm: float, cell_nm: float) -> None:
        self._cell = cell_nm
        self.slack_nm = 1.5 * cell_nm
        self._half = side_nm / 2
        self._count = int(np.ceil(side_nm / cell_nm)) + 1
        self._height = np.zeros(self._count**2)

    def rest_nm(self, body: Body, x_nm: float, y_nm: float) -> float:
        """See `Ground`."""
        heights = self._height.take(self._cells(body.surface, x_nm, y_nm))
        return max(body.ground_nm, float((heights - body.surface[:, 2]).max()))

    def add(self, body: Body, x_nm: float, y_nm: float, z_nm: float) -> None:
        """See `Ground`."""
        cells = self._cells(body.imprint, x_nm, y_nm)
        np.maximum.at(self._height, cells, body.imprint[:, 2] + z_nm)

    def _cells(self, points: Array, x_nm: float, y_nm: float) -> NDArray[np.intp]:
        row = ((points[:, 0] + (x_nm + self._half)) / self._cell).astype(np.intp)
        column = ((points[:, 1] + (y_nm + self._half)) / self._cell).astype(np.intp)
        last = self._count - 1
        cells: NDArray[np.intp] = row.clip(0, last) * self._count + column.clip(0, last)
        return cells


def cell_for(radius_nm: float) -> float:
    """Side of a height map's cell for particles of this typical radius."""
    return radius_nm / _CELLS_PER_RADIUS
