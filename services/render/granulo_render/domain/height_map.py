# SPDX-License-Identifier: GPL-3.0-or-later
"""Contacts of particles of any shape, through a map of the heights reached so far."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.contact import Array, Body, Flags, Index, Known
from granulo_render.domain.scanning import Triangles, expand, scan

Heights = NDArray[np.float32]
_Box = tuple[tuple[int, int], tuple[int, int]]  # first and last row, first and last column

_CELLS_PER_HALF = 12.0
_FLAT = 0.03  # of the half thickness: a body that would rest this little higher lies on the ground
_STRIDE = 3.0  # cells between the first tries of a slide,
_STRIDE_HALVES = 0.5  # or half thicknesses, if that is more
_AT_ONCE = 8  # tries of a slide at once
_FEELERS = 150  # cells of a body that the first tries look at
_MOST = 16_000  # cells of a body that are looked at anyhow


def cell_for(half_nm: float) -> float:
    """Side of a height map's cell for particles of this typical half thickness."""
    return half_nm / _CELLS_PER_HALF


@dataclass(frozen=True, eq=False)
class _Footprint:
    """A body's surface over the centres of map cells, about the cell of its centroid."""

    row: Index
    column: Index
    offset: Index
    """(K,) the two as an offset in the flat map."""
    top: Heights
    bottom: Heights
    """(K,) heights of the upper and lower surface over the centroid."""
    every: slice
    """Those that count: all but of a very long body."""
    feelers: slice
    """Fewer, for a first look."""
    box: tuple[int, int, int, int]
    """Smallest and largest row, smallest and largest column."""


class HeightMap:
    """Heights of what lies there over the centres of square cells.

    A body comes to lie on the centre of a cell, and contacts are found at centres only: bodies
    side by side may cut into each other by a part of a cell, six tenths at most for round ones
    and one cell for straight walls.

    Parameters
    ----------
    side_nm : float
        Side of the square around the origin within which contacts count; what reaches beyond
        lies on nothing there.
    image_nm : float
        Side of the image around the origin.
    cell_nm : float
        Side of a cell.
    """

    def __init__(self, side_nm: float, image_nm: float, cell_nm: float) -> None:
        self._cell = cell_nm
        self.grid_nm = cell_nm
        self._middle = int(np.ceil(side_nm / 2 / cell_nm))
        self._side = 2 * self._middle + 1
        self._height = np.zeros(self._side**2, dtype=np.float32)
        self._owner = np.zeros(self._side**2, dtype=np.int32)  # counted from 1
        self._known = Known()
        self._image = min(self._middle, int(image_nm / 2 / cell_nm))
        self._covered = 0
        self._last: tuple[Body, _Box, _Footprint] | None = None

    @property
    def coverage(self) -> float:
        """See `Ground`."""
        return self._covered / (2 * self._image + 1) ** 2

    def rest_nm(self, body: Body, x_nm: Array, y_nm: Array) -> Array:
        """See `Ground`."""
        return self._rest(body, *self._cells(x_nm, y_nm))

    def clear(self, body: Body, x_nm: Array, y_nm: Array) -> Flags:
        """See `Ground`."""
        row, column = self._cells(x_nm, y_nm)
        free = self._lies(body, self._rest(body, row, column, feel=True))
        felt = np.flatnonzero(free)
        if len(felt):
            free[felt] = self._lies(body, self._rest(body, row[felt], column[felt]))
        return free

    def approach(
        self, body: Body, x_nm: Array, y_nm: Array, angle: Array, start_nm: Array
    ) -> Array:
        """See `Ground`."""
        cosine, sine = np.cos(angle), np.sin(angle)

        def free(distance: Array, slides: Index, *, feel: bool) -> Flags:
            x = x_nm[slides, None] + distance * cosine[slides, None]
            y = y_nm[slides, None] + distance * sine[slides, None]
            rest = self._rest(body, *self._cells(x.ravel(), y.ravel()), feel=feel)
            return self._lies(body, rest).reshape(x.shape)

        met, blocked = self._known.meetings(body, x_nm, y_nm, angle, start_nm)
        outer = np.where(blocked, start_nm, met)
        outer = np.maximum(outer, 0)
        step = max(_STRIDE * self._cell, _STRIDE_HALVES * body.half_nm)
        inner = outer.copy()
        stopped = np.zeros(len(angle), dtype=np.bool_)
        sliding = np.flatnonzero(outer > 0)
        steps = np.arange(_AT_ONCE) * step
        while len(sliding):
            tried = np.maximum(inner[sliding, None] - steps, 0)
            stops = ~free(tried, sliding, feel=True)
            stopped[sliding] = stops.any(axis=1)
            at = np.where(stopped[sliding], stops.argmax(axis=1), _AT_ONCE - 1)
            inner[sliding] = tried[np.arange(len(sliding)), at]
            sliding = sliding[~stopped[sliding] & (inner[sliding] > 0)]
        # Back from the stop in steps of a cell, until all of the body is clear.
        halted = np.flatnonzero(stopped)
        if not len(halted):
            return inner
        back = self._cell * np.arange(1, int(np.ceil(step / self._cell)) + 2)
        felt = free(inner[halted, None] + back, halted, feel=True)
        at = len(back) - (~felt[:, ::-1]).argmax(axis=1)
        at[felt.all(axis=1)] = 0
        reached = np.full(len(halted), np.nan)
        tried = np.flatnonzero(at < len(back))
        while len(tried):
            place = inner[halted[tried]] + back[at[tried]]
            passes = free(place[:, None], halted[tried], feel=False)[:, 0]
            passes &= place <= start_nm[halted[tried]]
            reached[tried[passes]] = place[passes]
            tried = tried[~passes]
            at[tried] += 1
            tried = tried[at[tried] < len(back)]
        inner[halted] = reached
        return inner

    def touched(self, body: Body, x_nm: float, y_nm: float) -> int:
        """See `Ground`."""
        row, column = self._cells(np.array([x_nm]), np.array([y_nm]))
        shape = self._footprint(body, row, column)
        cells, inside = self._inside(shape, int(row[0]), int(column[0]))
        rise = self._height[cells] - shape.bottom[inside]
        if not len(rise) or rise.max() <= body.ground_nm:
            return -1
        return int(self._owner[cells[rise.argmax()]]) - 1

    def smallest_near(self, body: Body, x_nm: float, y_nm: float) -> float:
        """See `Ground`."""
        return self._known.smallest_near(body, x_nm, y_nm)

    def add(self, body: Body, x_nm: float, y_nm: float, z_nm: float) -> tuple[float, float]:
        """See `Ground`."""
        rows, columns = self._cells(np.array([x_nm]), np.array([y_nm]))
        row, column = int(rows[0]), int(columns[0])
        x, y = (column - self._middle) * self._cell, (self._middle - row) * self._cell
        shape = self._footprint(body, rows, columns)
        cells, inside = self._inside(shape, row, column)
        top = shape.top[inside] + np.float32(z_nm)
        before = self._height[cells]
        seen = (before == 0) & (
            np.maximum(
                np.abs(shape.row[inside] + (row - self._middle)),
                np.abs(shape.column[inside] + (column - self._middle)),
            )
            <= self._image
        )
        self._covered += int(seen.sum())
        higher = top > before
        self._height[cells[higher]] = top[higher]
        self._known.add(body, x, y, z_nm)
        self._owner[cells[higher]] = self._known.count
        return x, y

    def _lies(self, body: Body, rest_nm: Array) -> Flags:
        flags: Flags = rest_nm <= body.ground_nm + _FLAT * body.half_nm
        return flags

    def _cells(self, x_nm: Array, y_nm: Array) -> tuple[Index, Index]:
        column = np.rint(x_nm / self._cell).astype(np.int64) + self._middle
        row = self._middle - np.rint(y_nm / self._cell).astype(np.int64)
        return row, column

    def _rest(self, body: Body, row: Index, column: Index, *, feel: bool = False) -> Array:
        shape = self._footprint(body, row, column)
        low, high, left, right = shape.box
        last = self._side - 1
        chosen = shape.feelers if feel else shape.every
        if (
            row.min() + low >= 0
            and row.max() + high <= last
            and column.min() + left >= 0
            and column.max() + right <= last
        ):
            cells = (row * self._side + column)[:, None] + shape.offset[chosen]
            rise = (self._height.take(cells, mode="clip") - shape.bottom[chosen]).max(axis=1)
        else:
            rows = row[:, None] + shape.row[chosen]
            columns = column[:, None] + shape.column[chosen]
            cells = rows.clip(0, last) * self._side + columns.clip(0, last)
            inside = (rows >= 0) & (rows <= last) & (columns >= 0) & (columns <= last)
            above = np.where(inside, self._height.take(cells), 0) - shape.bottom[chosen]
            rise = above.max(axis=1)
        rest: Array = np.maximum(rise, body.ground_nm)
        return rest

    def _inside(self, shape: _Footprint, row: int, column: int) -> tuple[Index, Index]:
        """Cells of the map under a footprint, and which of the footprint's those are."""
        rows, columns = shape.row + row, shape.column + column
        last = self._side - 1
        inside = np.flatnonzero((rows >= 0) & (rows <= last) & (columns >= 0) & (columns <= last))
        return rows[inside] * self._side + columns[inside], inside

    def _footprint(self, body: Body, row: Index, column: Index) -> _Footprint:
        """Footprint of a body whose centroid lies in any of some cells (T,)."""
        known = self._last if self._last is not None and self._last[0] is body else None
        whole = 4 * body.reach_nm <= self._side * self._cell
        if known and whole:
            return known[2]
        x, y, _ = body.vertices.T / self._cell
        box = _around(-y), _around(x)
        if not whole:
            box = _clipped(box[0], row, self._side), _clipped(box[1], column, self._side)
        if known and all(k[0] <= b[0] and b[1] <= k[1] for k, b in zip(known[1], box, strict=True)):
            return known[2]
        self._last = (body, box, self._scanned(body, box))
        return self._last[2]

    def _scanned(self, body: Body, box: _Box) -> _Footprint:
        (low, high), (left, right) = box
        width, height = right - left + 1, high - low + 1
        x, y, z = body.vertices.T
        points = np.stack([x / self._cell - left, -y / self._cell - low, z])
        a, b, c = body.faces.T
        upwards = (x[b] - x[a]) * (y[c] - y[a]) > (x[c] - x[a]) * (y[b] - y[a])
        spans = scan(Triangles(points, body.faces.T, upwards.astype(np.int32)), width, height)
        of, along = expand(np.zeros_like(spans.length), spans.length)
        surface = spans.height[of] + spans.slope[of] * along
        surface = np.clip(surface, spans.lowest[of], spans.highest[of]).astype(np.float32)
        cell = (spans.row * np.int64(width) + spans.first)[of] + along
        upper = spans.owner[of] == 1
        top, bottom = surface[upper], surface[~upper]
        above, below = cell[upper], cell[~upper]
        highest = _highest(above, top, width * height)
        lowest = _highest(below, -bottom, width * height)
        kept = np.flatnonzero(lowest[below] == np.arange(len(below)))
        if len(above):
            kept = kept[above[highest[below[kept]]] == below[kept]]
        if len(above) and len(kept):
            row, column = np.divmod(below[kept], width)
            row, column = row + low, column + left
            top, bottom = top[highest[below[kept]]], bottom[kept]
        else:  # smaller than a cell, or not in the map
            row = column = np.array([0])
            top = np.array([z.max()], dtype=np.float32)
            bottom = np.array([-body.ground_nm], dtype=np.float32)
        return _Footprint(
            row=row,
            column=column,
            offset=row * self._side + column,
            top=top,
            bottom=bottom,
            every=slice(None, None, max(1, len(row) // _MOST)),
            feelers=slice(None, None, max(1, len(row) // _FEELERS)),
            box=(int(row.min()), int(row.max()), int(column.min()), int(column.max())),
        )


def _around(parts: Array) -> tuple[int, int]:
    """First and last cell of a body about its centroid's."""
    return int(np.floor(parts.min())), int(np.ceil(parts.max()))


def _clipped(ends: tuple[int, int], at: Index, side: int) -> tuple[int, int]:
    """Of cells about any of those at ``at`` the first and the last that lie in the map."""
    first, last = max(ends[0], -int(at.max())), min(ends[1], side - 1 - int(at.min()))
    return first, max(first, last)


def _highest(cell: Index, height: Heights, cells: int) -> NDArray[np.int32]:
    """Number of the highest of the samples in each of the cells; 0 where there is none."""
    highest = np.zeros(cells, dtype=np.int32)
    rising = np.arange(len(cell), dtype=np.int32)
    while len(rising):
        highest[cell[rising]] = rising
        rising = rising[height[rising] > height[highest[cell[rising]]]]
    return highest
