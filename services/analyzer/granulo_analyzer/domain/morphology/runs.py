# SPDX-License-Identifier: GPL-3.0-or-later
"""Stretches of one label in one row: sums over particles without visiting their pixels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EDGE_BITS = {"left": 1, "right": 2, "top": 4, "bottom": 8}
"""Which edge of the frame stands for which bit of ``touched_edges``."""


@dataclass(frozen=True)
class Runs:
    """All runs of a label image, sorted by label; background is left out."""

    shape: tuple[int, int]
    """Height and width of the image."""
    labels: Ints
    """(n,) labels that occur, rising."""
    first: Ints
    """(n,) index of every label's first run."""
    particle: Ints
    """(r,) index of the particle of every run."""
    row: Ints
    start: Ints
    """(r,) first column."""
    length: Ints

    def total(self, values: NDArray[Any]) -> NDArray[Any]:
        """(n, …) sums over every particle's runs; exact for integers."""
        return np.add.reduceat(values, self.first)

    def box(self) -> Ints:
        """(n, 4) first column, first row, and the column and row after the last."""
        end = self.start + self.length
        sides = (
            np.minimum.reduceat(self.start, self.first),
            np.minimum.reduceat(self.row, self.first),
            np.maximum.reduceat(end, self.first),
            np.maximum.reduceat(self.row, self.first) + 1,
        )
        box: Ints = np.stack(sides, axis=1)
        return box

    def framed_image(self) -> NDArray[np.int32]:
        """(H + 2, W + 2): the particles numbered from 1 without gaps, framed by background."""
        height, width = self.shape
        changes = np.zeros((height + 2, width + 3), dtype=np.int32)
        number = (self.particle + 1).astype(np.int32)
        # A run may begin where the one before it ends, so that both are added, not assigned.
        changes[self.row + 1, self.start + 1] += number
        changes[self.row + 1, self.start + self.length + 1] -= number
        return np.cumsum(changes, axis=1, dtype=np.int32)[:, :-1]

    def reduce(self, ufunc: np.ufunc, image: NDArray[Any]) -> NDArray[Any]:
        """(r,) a ufunc's reduction of an image (H, W) over the pixels of every run."""
        position = self.row * self.shape[1] + self.start
        order = np.argsort(position)
        bounds = np.stack((position, position + self.length), axis=1)[order].ravel()
        # The stretches between the runs are reduced, too, and left out; one pixel ends the last.
        flat = np.append(image.ravel(), image.dtype.type(0))
        reduced = np.empty(len(order), dtype=np.float64)
        reduced[order] = ufunc.reduceat(flat, bounds, dtype=np.float64)[0::2]
        return reduced

    def mean_of(self, image: NDArray[Any]) -> Floats:
        """(n,) means of an image (H, W) under every particle."""
        mean: Floats = self.total(self.reduce(np.add, image)) / self.total(self.length)
        return mean


def runs_of(labels: NDArray[np.integer[Any]]) -> Runs:
    """Find the runs of a label image.

    Parameters
    ----------
    labels : (H, W) integer
        Not negative, 0 is background.

    Returns
    -------
    Runs
    """
    height, width = labels.shape
    begins = np.ones(labels.shape, dtype=np.bool_)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=begins[:, 1:])
    position = np.flatnonzero(begins)
    length = np.diff(position, append=labels.size)
    value = labels.ravel()[position]
    inside = value > 0
    position, length, value = position[inside], length[inside], value[inside].astype(np.int64)
    order = np.argsort(value, kind="stable")
    position, length, value = position[order], length[order], value[order]
    new = np.diff(value, prepend=0) != 0
    return Runs(
        shape=(height, width),
        labels=value[new],
        first=np.flatnonzero(new),
        particle=np.cumsum(new) - 1,
        row=position // width,
        start=position % width,
        length=length,
    )


def first_of_each(owner: Ints, chosen: NDArray[np.bool_]) -> Ints:
    """(n,) index of the first chosen element of every owner; each has one, and owners rise."""
    places = np.flatnonzero(chosen)
    first: Ints = places[np.diff(owner[places], prepend=-1) != 0]
    return first


@dataclass(frozen=True)
class Moments:
    """Area and moments of every particle in pixels; a pixel is a square, not a point."""

    area: Floats
    """(n,) numbers of pixels."""
    centroid: Floats
    """(n, 2) x and y; pixel 0 spans 0 to 1, so that its centre lies at one half."""
    covariance: Floats
    """(n, 3) xx, yy and xy."""


def moments_of(runs: Runs) -> Moments:
    """Moments of the particles up to the second."""
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
        ),
        axis=1,
    )
    covariance = runs.total(weights) / area[:, None]
    covariance[:, :2] += 1 / 12
    return Moments(area.astype(np.float64), np.stack((x, y), axis=1) + 0.5, covariance)


def touched_edges(runs: Runs) -> Ints:
    """(n,) bits (`EDGE_BITS`) of the image's edges on which a particle has a pixel."""
    height, width = runs.shape
    bits = (
        EDGE_BITS["left"] * (runs.start == 0)
        | EDGE_BITS["right"] * (runs.start + runs.length == width)
        | EDGE_BITS["top"] * (runs.row == 0)
        | EDGE_BITS["bottom"] * (runs.row == height - 1)
    )
    return np.bitwise_or.reduceat(bits, runs.first).astype(np.int64)


def line_angles_deg(x: Floats, y: Floats) -> Floats:
    """(n,) angles of lines to the x axis, counter-clockwise as seen, in [0, 180).

    Parameters
    ----------
    x, y : (n,) float64
        A direction of each line; rows count downwards.
    """
    degrees: Floats = np.degrees(np.arctan2(-y, x)) % 180.0
    # The remainder of a tiny negative angle is 180 itself.
    return np.where(degrees < 180.0, degrees, 0.0)
