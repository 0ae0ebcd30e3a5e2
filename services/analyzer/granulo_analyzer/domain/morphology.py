# SPDX-License-Identifier: GPL-3.0-or-later
"""Size, shape and place of every particle of a label image.

Everything is computed from runs (stretches of one label in one row), so that the cost follows the
number of pixels and not the number of particles; only the convex hulls are made one by one.
``docs/metrics.md`` states the formula and the bias of every column.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain.counting import EDGE_BITS

Floats = NDArray[np.float64]

LENGTHS = (
    "ecd",
    "sqrt_area",
    "perimeter",
    "max_feret",
    "min_feret",
    "rectangle_length",
    "rectangle_width",
    "ellipse_major",
    "ellipse_minor",
    "centroid_x",
    "centroid_y",
    "feret_x",
    "feret_y",
)
"""Quantities that have a ``_px`` column and, where the pixel size is known, a ``_nm`` column."""

SHAPES = ("aspect_ratio", "circularity", "roundness", "solidity")
"""Quantities without a unit, from physical lengths where these are known."""

# The outline runs through the middles of pixel edges, as that of marching squares at one half.
_EDGE_MIDDLES = np.array([(0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5)])


@dataclass(frozen=True)
class ParticleTable:
    """One row a particle, by rising label."""

    columns: Mapping[str, NDArray[Any]]
    """Column name, with its unit, to (n,) values; ``label`` and ``touched_edges`` int64,
    ``touches_border`` bool, the others float64."""
    pixel_size_nm: tuple[float, float] | None
    """Width and height of a pixel; None where unknown, and then no ``_nm`` column exists."""

    def __len__(self) -> int:
        """Number of particles."""
        return len(self.columns["label"])


def column_names(*, has_pixel_size: bool, has_grey: bool) -> tuple[str, ...]:
    """Columns of a table in their order.

    Parameters
    ----------
    has_pixel_size : bool
        Whether lengths are known in nm.
    has_grey : bool
        Whether a micrograph belongs to the labels.

    Returns
    -------
    tuple of str
    """
    names = ["label", "area_px", *(f"{name}_px" for name in LENGTHS)]
    if has_pixel_size:
        names += ["area_nm2", *(f"{name}_nm" for name in LENGTHS)]
    names += [*SHAPES, "orientation_deg"]
    if has_grey:
        names.append("mean_grey")
    return (*names, "touches_border", "touched_edges")


def measure(
    labels: NDArray[np.integer[Any]],
    *,
    pixel_size_nm: tuple[float, float] | None = None,
    grey: NDArray[Any] | None = None,
) -> ParticleTable:
    """Measure every particle of a label image.

    Parameters
    ----------
    labels : (H, W) integer
        0 is background; labels need not be consecutive, nor particles connected.
    pixel_size_nm : (float, float), optional
        Width and height of a pixel in nm. They may differ: lengths are then computed from scaled
        coordinates, areas with their product.
    grey : (H, W) array, optional
        The micrograph, for ``mean_grey``.

    Returns
    -------
    ParticleTable
        With the columns of `column_names`; no particle gives a table without rows.

    Raises
    ------
    ValueError
        When ``labels`` is no label image, ``grey`` has another shape, or a pixel size is not
        positive.
    """
    _check(labels, pixel_size_nm, grey)
    runs = _Runs.of(labels)
    names = column_names(has_pixel_size=pixel_size_nm is not None, has_grey=grey is not None)
    if not len(runs.labels):
        return ParticleTable({name: _empty_column(name) for name in names}, pixel_size_nm)

    area, centroid, covariance = _moments(runs)
    crossings = _crossings(runs.compact_image(labels.shape), len(runs.labels))
    hulls = _hulls(runs)
    boxes = runs.bounding_box()
    pixels = _lengths(area, centroid, covariance, crossings, hulls, boxes, (1.0, 1.0))
    columns: dict[str, NDArray[Any]] = {
        "label": runs.labels,
        **{f"{name}_px": values for name, values in pixels.items()},
    }
    physical = pixels
    if pixel_size_nm is not None:
        if pixel_size_nm[0] == pixel_size_nm[1]:
            # Square pixels scale every length alike; only others need their own hull geometry.
            physical = {name: values * pixel_size_nm[0] for name, values in pixels.items()}
            physical["area"] = pixels["area"] * pixel_size_nm[0] ** 2
        else:
            physical = _lengths(area, centroid, covariance, crossings, hulls, boxes, pixel_size_nm)
        columns |= {f"{name}_nm": values for name, values in physical.items()}
        columns["area_nm2"] = columns.pop("area_nm")
    columns |= _shapes(physical, area, hulls)
    columns["orientation_deg"] = _orientation_deg(covariance, pixel_size_nm or (1.0, 1.0))
    if grey is not None:
        columns["mean_grey"] = _mean_grey(runs, grey, area)
    columns["touched_edges"] = runs.touched_edges(labels.shape)
    columns["touches_border"] = columns["touched_edges"] > 0
    return ParticleTable({name: columns[name] for name in names}, pixel_size_nm)


def _check(
    labels: NDArray[Any], pixel_size_nm: tuple[float, float] | None, grey: NDArray[Any] | None
) -> None:
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer) or not labels.size:
        raise ValueError(
            "labels must be a two-dimensional image of integers, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if labels.min() < 0:
        raise ValueError("labels must not be negative; particles are 1, 2, 3, …, background is 0")
    if grey is not None and grey.shape != labels.shape:
        raise ValueError(
            f"micrograph and labels must have one shape, got {grey.shape} and {labels.shape}"
        )
    if pixel_size_nm is not None and not all(
        np.isfinite(size) and size > 0 for size in pixel_size_nm
    ):
        raise ValueError(f"pixel sizes must be positive numbers of nm, got {pixel_size_nm}")


def _empty_column(name: str) -> NDArray[Any]:
    kinds: dict[str, type] = {
        "label": np.int64,
        "touched_edges": np.int64,
        "touches_border": np.bool_,
    }
    return np.empty(0, dtype=kinds.get(name, np.float64))


@dataclass(frozen=True)
class _Runs:
    """Stretches of one label in one row, sorted by label; background left out."""

    labels: NDArray[np.int64]
    """(n,) labels that occur, rising."""
    first: NDArray[np.int64]
    """(n,) index of every label's first run."""
    particle: NDArray[np.int64]
    """(r,) index of the particle of every run."""
    row: NDArray[np.int64]
    start: NDArray[np.int64]
    """(r,) first column."""
    length: NDArray[np.int64]

    @staticmethod
    def of(labels: NDArray[np.integer[Any]]) -> "_Runs":
        width = labels.shape[1]
        begins = np.ones(labels.shape, dtype=np.bool_)
        np.not_equal(labels[:, 1:], labels[:, :-1], out=begins[:, 1:])
        position = np.flatnonzero(begins)
        length = np.diff(position, append=labels.size)
        value = labels.ravel()[position].astype(np.int64)
        inside = value > 0
        position, length, value = position[inside], length[inside], value[inside]
        order = np.argsort(value, kind="stable")
        position, length, value = position[order], length[order], value[order]
        present, first, particle = np.unique(value, return_index=True, return_inverse=True)
        return _Runs(present, first, particle, position // width, position % width, length)

    def total(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) sums over every particle's runs, exact."""
        return np.add.reduceat(values, self.first)

    def compact_image(self, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """Label image with the particles numbered from 1 without gaps, framed by background."""
        changes = np.zeros((shape[0] + 2, shape[1] + 3), dtype=np.int32)
        number = (self.particle + 1).astype(np.int32)
        # A run may begin where the one before it ends, so that both are added, not assigned.
        np.add.at(changes, (self.row + 1, self.start + 1), number)
        np.add.at(changes, (self.row + 1, self.start + self.length + 1), -number)
        return np.cumsum(changes, axis=1, dtype=np.int32)[:, :-1]

    def bounding_box(self) -> Floats:
        """(n, 2) width and height of the upright boxes around the particles, in pixels."""
        left = np.minimum.reduceat(self.start, self.first)
        right = np.maximum.reduceat(self.start + self.length, self.first)
        top = np.minimum.reduceat(self.row, self.first)
        bottom = np.maximum.reduceat(self.row, self.first) + 1
        sides: Floats = np.stack((right - left, bottom - top), axis=1).astype(np.float64)
        return sides

    def touched_edges(self, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """(n,) sum of the bits in `EDGE_BITS` of the edges where a particle has a pixel."""
        height, width = shape
        touched = {
            "left": self.start == 0,
            "right": self.start + self.length == width,
            "top": self.row == 0,
            "bottom": self.row == height - 1,
        }
        bits = np.zeros(len(self.row), dtype=np.int64)
        for edge, touching in touched.items():
            bits |= EDGE_BITS[edge] * touching
        return np.asarray(np.bitwise_or.reduceat(bits, self.first), dtype=np.int64)


@dataclass(frozen=True)
class _Hull:
    """Convex hull of one particle."""

    outline: Floats
    """(m, 2) x and y of the hull of the sub-pixel outline, in pixels."""
    pixel_count: float
    """Pixels whose centre lies in the hull of the particle's pixel centres."""


def _moments(runs: _Runs) -> tuple[Floats, Floats, Floats]:
    """Areas (n,), centroids (n, 2) as x and y, and covariances (n, 3) as xx, yy, xy, in pixels."""
    start, length, row = runs.start, runs.length, runs.row
    area = runs.total(length)
    # Sums of x and x² over a run, without visiting its pixels; all of it exact in integers.
    steps = length * (length - 1) // 2
    squares = (length - 1) * length * (2 * length - 1) // 6
    sum_x = length * start + steps
    sum_xx = length * start**2 + 2 * start * steps + squares
    x, y = runs.total(sum_x) / area, runs.total(length * row) / area
    # Around the mean of each particle, else the small difference of two large numbers is lost.
    dx, dy = x[runs.particle], y[runs.particle]
    weights = np.stack(
        (
            sum_xx - 2 * dx * sum_x + length * dx**2,
            length * (row - dy) ** 2,
            (sum_x - length * dx) * (row - dy),
        )
    )
    covariance = np.add.reduceat(weights, runs.first, axis=1) / area
    # A pixel is a square, not a point.
    covariance[:2] += 1 / 12
    return area.astype(np.float64), np.stack((x, y), axis=1), covariance.T


def _crossings(image: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """(4, n) how often lines along x, along y and along both diagonals cross an outline."""
    pairs = (
        (image[:, :-1], image[:, 1:]),
        (image[:-1], image[1:]),
        (image[:-1, :-1], image[1:, 1:]),
        (image[:-1, 1:], image[1:, :-1]),
    )
    found = []
    for one, other in pairs:
        differs = one != other
        ends = np.concatenate((one[differs], other[differs]))
        found.append(np.bincount(ends, minlength=count + 1)[1:])
    return np.stack(found)


def _crofton(crossings: NDArray[np.int64], pixel_size: tuple[float, float]) -> Floats:
    """(n,) perimeters from crossings with four directions of lines.

    Crofton: the length is half the integral of the number of crossings over all lines. Every
    direction stands for the angles nearer to it than to the others, and its lines lie
    width x height / step apart.
    """
    width, height = pixel_size
    diagonal = float(np.hypot(width, height))
    angle = float(np.arctan2(height, width))
    angles = np.array([angle, np.pi / 2 - angle, np.pi / 4, np.pi / 4])
    spacing = width * height / np.array([width, height, diagonal, diagonal])
    perimeter: Floats = 0.5 * (angles * spacing) @ crossings
    return perimeter


def _hulls(runs: _Runs) -> list[_Hull]:
    ends = np.stack(
        (
            np.concatenate((runs.start, runs.start + runs.length - 1)),
            np.concatenate((runs.row, runs.row)),
        ),
        axis=1,
    ).astype(np.int32)
    order = np.argsort(np.concatenate((runs.particle, runs.particle)), kind="stable")
    hulls = []
    for points in np.split(ends[order], 2 * runs.first[1:]):
        corners = cv2.convexHull(points)[:, 0].astype(np.int64)
        outline = (corners[:, None] + _EDGE_MIDDLES).reshape(-1, 2).astype(np.float32)
        outline = cv2.convexHull(outline)[:, 0].astype(np.float64)
        hulls.append(_Hull(outline, _lattice_points(corners)))
    return hulls


def _lattice_points(corners: NDArray[np.int64]) -> float:
    """Pixel centres within a polygon that has its corners on pixel centres (Pick's theorem)."""
    following = np.roll(corners, -1, axis=0)
    twice_area = abs(int(np.sum(corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0])))
    edges = np.abs(following - corners)
    return (twice_area + int(np.gcd(edges[:, 0], edges[:, 1]).sum())) / 2 + 1


def _extents(outline: Floats) -> tuple[float, float, float, float]:
    """Largest and smallest Feret diameter, length and width of the smallest rectangle around."""
    apart = outline[:, None] - outline
    largest = float(np.sqrt((apart**2).sum(axis=2).max()))
    edges = np.roll(outline, -1, axis=0) - outline
    edges /= np.hypot(edges[:, 0], edges[:, 1])[:, None]
    # Both the smallest width and the smallest rectangle lie along an edge of the hull.
    along = np.ptp(outline @ edges.T, axis=0)
    across = np.ptp(outline @ np.stack((-edges[:, 1], edges[:, 0])), axis=0)
    best = int(np.argmin(along * across))
    sides = sorted((float(along[best]), float(across[best])))
    return largest, float(across.min()), sides[1], sides[0]


def _lengths(
    area: Floats,
    centroid: Floats,
    covariance: Floats,
    crossings: NDArray[np.int64],
    hulls: list[_Hull],
    boxes: Floats,
    pixel_size: tuple[float, float],
) -> dict[str, Floats]:
    """Area and all `LENGTHS` in the unit of the pixel size."""
    width, height = pixel_size
    scale = np.array(pixel_size)
    size = area * (width * height)
    extents = np.array([_extents(hull.outline * scale) for hull in hulls])
    xx, yy, xy = (covariance * (width**2, height**2, width * height)).T
    spread = np.hypot((xx - yy) / 2, xy)
    middle = (xx + yy) / 2
    # Pixel 0 spans 0 to 1, so that its centre lies at one half.
    x, y = ((centroid + 0.5) * scale).T
    return {
        "area": size,
        "ecd": np.sqrt(4 * size / np.pi),
        "sqrt_area": np.sqrt(size),
        "perimeter": _crofton(crossings, pixel_size),
        "max_feret": extents[:, 0],
        "min_feret": extents[:, 1],
        "rectangle_length": extents[:, 2],
        "rectangle_width": extents[:, 3],
        "ellipse_major": 4 * np.sqrt(middle + spread),
        "ellipse_minor": 4 * np.sqrt(np.maximum(middle - spread, 0)),
        "centroid_x": x,
        "centroid_y": y,
        "feret_x": boxes[:, 0] * width,
        "feret_y": boxes[:, 1] * height,
    }


def _shapes(lengths: dict[str, Floats], area_px: Floats, hulls: list[_Hull]) -> dict[str, Floats]:
    area, max_feret = lengths["area"], lengths["max_feret"]
    return {
        "aspect_ratio": lengths["min_feret"] / max_feret,
        "circularity": 4 * np.pi * area / lengths["perimeter"] ** 2,
        "roundness": 4 * area / (np.pi * max_feret**2),
        "solidity": area_px / np.array([hull.pixel_count for hull in hulls]),
    }


def _orientation_deg(covariance: Floats, pixel_size: tuple[float, float]) -> Floats:
    """(n,) angle of the major axis to the x axis, counter-clockwise as seen, in [0, 180)."""
    width, height = pixel_size
    xx, yy, xy = (covariance * (width**2, height**2, width * height)).T
    # Rows count downwards, so that a positive xy is a falling line.
    degrees: Floats = np.degrees(np.arctan2(-2 * xy, xx - yy) / 2) % 180.0
    return degrees


def _mean_grey(runs: _Runs, grey: NDArray[Any], area: Floats) -> Floats:
    position = runs.row * grey.shape[1] + runs.start
    total = np.concatenate(([0.0], np.cumsum(grey, dtype=np.float64)))
    mean: Floats = (
        np.add.reduceat(total[position + runs.length] - total[position], runs.first) / area
    )
    return mean
