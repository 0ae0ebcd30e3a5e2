# SPDX-License-Identifier: GPL-3.0-or-later
"""Triangles as rows of pixels: where the camera's rays through pixel centres meet a mesh."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.scene import Scene

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Corners = tuple[Array, Array, Array]


@dataclass(frozen=True, eq=False)
class Triangles:
    """Triangles of several particles in the frame of the image."""

    points: Array
    """(3, V) column and row in pixels (whole numbers are pixel centres), height in nm."""
    corners: NDArray[np.int32]
    """(3, F) indices of points."""
    owner: NDArray[np.int32]
    """(F,) number of the particle, counted from 0 within the batch."""


@dataclass(frozen=True, eq=False)
class Spans:
    """Runs of pixel centres, each within one triangle and one row."""

    owner: NDArray[np.int32]
    row: NDArray[np.int32]
    first: NDArray[np.int32]
    """Column of the first pixel."""
    length: NDArray[np.int32]
    height: Array
    """Of the surface at the first pixel, nm."""
    slope: Array
    """Height gained per column, nm."""
    lowest: Array
    highest: Array
    """Heights of the triangle's lowest and highest corner, nm."""


def camera_matrices(scene: Scene) -> tuple[Array, Array]:
    """Affine maps from templates to the image.

    Returns
    -------
    matrix : (N, 3, 3) float64
    shift : (N, 3) float64
        ``matrix @ vertex + shift`` is (column, row, height) of a template's vertex: column and row
        in pixels with whole numbers at pixel centres, height along the camera's axis in nm.
    """
    pixel = np.array([scene.pixel_size_nm, -scene.pixel_size_nm, 1.0])
    middle = np.array([1.0, 1.0, 0.0]) * (scene.size_px - 1) / 2
    view = scene.view / pixel[:, None]
    matrix = np.einsum("ij,njk,nk->nik", view, scene.rotation, scene.scale_nm)
    shift = np.einsum("ij,nj->ni", view, scene.position_nm) + middle
    return matrix, shift


def project(vertices: Array, matrix: Array, shift: Array) -> Array:
    """Map a template's vertices (V, 3) to (3, V): column, row, height."""
    # Sums written out: BLAS may round otherwise with other numbers of threads.
    x, y, z = vertices.T
    rows = [matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] * z + shift[i] for i in range(3)]
    return np.stack(rows)


def batch(points: Sequence[Array], faces: Sequence[NDArray[np.int32]]) -> Triangles:
    """Join the meshes of several particles."""
    starts = np.cumsum([0, *(p.shape[1] for p in points[:-1])])
    return Triangles(
        points=np.concatenate(points, axis=1),
        corners=np.concatenate([f.T + np.int32(s) for f, s in zip(faces, starts, strict=True)], 1),
        owner=np.repeat(np.arange(len(faces), dtype=np.int32), [len(f) for f in faces]),
    )


def face_normals(vertices: Array, faces: NDArray[np.int32]) -> Array:
    """Outward normals (3, F) of a mesh's faces, as long as twice their areas."""
    x, y, z = vertices.T
    corners = faces.T.astype(np.intp)
    (ax, ay, az), *others = ([axis[corner] for axis in (x, y, z)] for corner in corners)
    (bx, by, bz), (cx, cy, cz) = ((u - ax, v - ay, w - az) for u, v, w in others)
    return np.stack([by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx])


def facing(normals: Array, matrix: Array) -> Array:
    """Tell which faces the camera sees.

    Parameters
    ----------
    normals : (3, F) float64
        See `face_normals`.
    matrix : (3, 3) float64
        See `camera_matrices`.

    Returns
    -------
    (F,) float64
        Twice the area of each face in the image, px^2; negative for those that face away.
    """
    # Normals turn with the matrix of cofactors, of which only the height's row matters. Rows of
    # the image count downwards, which turns its sign.
    (a, b, c), (d, e, f) = matrix[1].tolist(), matrix[0].tolist()
    x, y, z = b * f - c * e, c * d - a * f, a * e - b * d
    result: Array = normals[0] * x + normals[1] * y + normals[2] * z
    return result


def scan(triangles: Triangles, width: int, height: int) -> Spans:
    """Find the pixel centres that lie in each triangle, its edges included.

    Parameters
    ----------
    triangles : Triangles
    width, height : int
        Size of the image in pixels; what lies outside is left out.

    Returns
    -------
    Spans
        Triangles that share an edge leave no gap along it: both compute its crossings with the
        rows of pixels from the same numbers. Those seen edge-on have no pixels.
    """
    x, y, z = triangles.points
    kept = _seen(x, y, triangles.corners)
    a, b, c = (corner[kept] for corner in triangles.corners)
    xs, ys, zs = ((part[a], part[b], part[c]) for part in (x, y, z))
    doubled = (xs[1] - xs[0]) * (ys[2] - ys[0]) - (xs[2] - xs[0]) * (ys[1] - ys[0])
    with np.errstate(all="ignore"):  # the edge-on ones, which go, and slivers, which are clipped
        across = ((zs[1] - zs[0]) * (ys[2] - ys[0]) - (zs[2] - zs[0]) * (ys[1] - ys[0])) / doubled
        down = ((zs[2] - zs[0]) * (xs[1] - xs[0]) - (zs[1] - zs[0]) * (xs[2] - xs[0])) / doubled
    low = np.maximum(np.ceil(_least(ys)), 0).astype(np.int32)
    high = np.minimum(np.floor(_most(ys)), height - 1).astype(np.int32)
    high[doubled == 0] = -1

    of, row = expand(low, np.maximum(high - low + 1, 0))
    left, right = _crossings(xs, ys, of, row)
    left = np.maximum(np.ceil(left), 0)
    length = np.minimum(np.floor(right), width - 1) - left + 1
    filled = np.flatnonzero(length > 0)
    of, row, left = of[filled], row[filled], left[filled]
    slope = across[of]
    return Spans(
        owner=triangles.owner[kept[of]],
        row=row,
        first=left.astype(np.int32),
        length=length[filled].astype(np.int32),
        height=zs[0][of] + slope * (left - xs[0][of]) + down[of] * (row - ys[0][of]),
        slope=slope,
        lowest=_least(zs)[of],
        highest=_most(zs)[of],
    )


def _seen(x: Array, y: Array, corners: NDArray[np.int32]) -> Index:
    """Triangles whose bounding box may hold a pixel centre: most of a fine mesh's hold none."""
    a, b, c = corners
    seen = np.ones(len(a), dtype=bool)
    for part in (x, y):
        # Odd between two whole numbers and even on one: where all corners agree, none is crossed.
        code = (np.floor(part) + np.ceil(part)).astype(np.int32)
        first = code[a]
        seen &= (first != code[b]) | (first != code[c])
    return np.flatnonzero(seen)


def _least(parts: Corners) -> Array:
    least: Array = np.minimum(np.minimum(parts[0], parts[1]), parts[2])
    return least


def _most(parts: Corners) -> Array:
    most: Array = np.maximum(np.maximum(parts[0], parts[1]), parts[2])
    return most


def _crossings(xs: Corners, ys: Corners, of: Index, row: NDArray[np.int32]) -> tuple[Array, Array]:
    """Leftmost and rightmost place of triangles in rows; ``of`` names the triangle per row."""
    (xa, xb, xc), (ya, yb, yc) = _sorted_down(xs, ys)
    long = slope(xa, ya, xc, yc)[of]
    upper = row < yb[of]
    short = np.where(upper, slope(xa, ya, xb, yb)[of], slope(xb, yb, xc, yc)[of])
    xa, ya = xa[of], ya[of]
    one = xa + (row - ya) * long
    other = np.where(upper, xa, xb[of]) + (row - np.where(upper, ya, yb[of])) * short
    return np.minimum(one, other), np.maximum(one, other)


def _sorted_down(xs: Corners, ys: Corners) -> tuple[list[Array], list[Array]]:
    """Corners from the uppermost to the lowest."""
    x, y = list(xs), list(ys)
    for i, j in ((0, 1), (1, 2), (0, 1)):
        swap = y[j] < y[i]
        x[i], x[j] = np.where(swap, x[j], x[i]), np.where(swap, x[i], x[j])
        y[i], y[j] = np.where(swap, y[j], y[i]), np.where(swap, y[i], y[j])
    return x, y


def slope(xa: Array, ya: Array, xb: Array, yb: Array) -> Array:
    """Columns per row of edges that run from their upper end a to their lower end b."""
    rise = yb - ya
    level = rise <= 0
    rise[level] = 1.0
    result: Array = (xb - xa) / rise
    result[level] = 0.0
    return result


def expand(first: NDArray[np.int32], count: NDArray[np.int32]) -> tuple[Index, NDArray[np.int32]]:
    """Of every run its number, and its members ``first, first + 1, ...``, one after the other."""
    ends = np.cumsum(count, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    of = np.repeat(np.arange(len(count)), count)
    shift = (first - (ends - count)).astype(np.int64)
    member = np.arange(total) + shift[of]
    return of, member.astype(np.int32)
