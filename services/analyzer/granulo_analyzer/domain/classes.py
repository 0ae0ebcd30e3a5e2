# SPDX-License-Identifier: GPL-3.0-or-later
"""Weighted samples in a form whose size does not grow with the number of particles."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAX_CLASSES = 4096
"""Up to so many values each is a class of its own, and nothing is lost. More are sorted into
classes of equal width in ln x, of 0.2 % for values that differ by a factor of 5000; a class stands
at the mean of its values, so that what is lost is a small part of its width."""


@dataclass(frozen=True)
class Classes:
    """Values of one quantity with their weights, by class and image."""

    values: Floats
    """(c,) positive, rising: where each class stands."""
    masses: Floats
    """(m, c) sum of the weights, by image."""
    counts: NDArray[np.int64]
    """(m, c) number of particles, by image."""

    @property
    def images(self) -> int:
        """Number of images, those without particles included."""
        return len(self.masses)

    @cached_property
    def count(self) -> int:
        """Number of particles, Np."""
        return int(self.counts.sum())

    @cached_property
    def mass(self) -> Floats:
        """(c,) weights over all images."""
        total: Floats = self.masses.sum(axis=0)
        return total


def classify(
    values: Floats, weights: Floats, image: NDArray[np.int64] | None = None, images: int = 1
) -> Classes:
    """Sort particles into classes.

    Parameters
    ----------
    values : (n,) float64
        Positive and finite; n may be 0.
    weights : (n,) float64
        Positive.
    image : (n,) int64, optional
        Place of every particle's image; all are of one where it is left out.
    images : int

    Returns
    -------
    Classes
    """
    image = np.zeros(len(values), dtype=np.int64) if image is None else image
    if len(values) <= MAX_CLASSES:
        order = np.argsort(values, kind="stable")
        at = values[order]
        number = np.empty(len(values), dtype=np.int64)
        number[order] = np.arange(len(values))
        total = len(values)
    else:
        number, total = _log_classes(values)
        population = np.bincount(number, minlength=total)
        at = np.bincount(number, values, minlength=total) / population
    cell = image * total + number
    shape = (images, total)
    return Classes(
        at,
        np.bincount(cell, weights, minlength=images * total).astype(np.float64).reshape(shape),
        np.bincount(cell, minlength=images * total).reshape(shape),
    )


def effective_count(weights: Floats) -> float:
    """Number of equally weighted particles that tell as much (Kish 1965): (Σw)²/Σw².

    Parameters
    ----------
    weights : (n,) float64

    Returns
    -------
    float
        At most n; 0 for no particle.
    """
    return float(weights.sum() ** 2 / np.sum(weights**2)) if weights.size else 0.0


def quantiles(values: Floats, masses: Floats, shares: tuple[float, ...]) -> Floats:
    """Values below which shares of the mass lie.

    The mass up to a class is taken to its middle and interpolated linearly between classes (for
    equal weights: Hazen's (i − ½)/n), which treats both ends alike and bears any weights.

    Parameters
    ----------
    values : (c,) float64
        Rising.
    masses : (..., c) float64
        Not negative; classes without mass count as absent.
    shares : tuple of float
        0 to 1.

    Returns
    -------
    (..., len(shares)) float64
        NaN where there is no mass.
    """
    rows = masses.reshape(int(np.prod(masses.shape[:-1])), len(values))
    found = np.full((len(rows), len(shares)), np.nan)
    for row, mass in enumerate(rows):
        present = mass > 0
        own = mass[present]
        if own.size:
            below = np.cumsum(own)
            found[row] = np.interp(shares, (below - own / 2) / below[-1], values[present])
    return found.reshape(*masses.shape[:-1], len(shares))


def coarsened(values: Floats, masses: Floats, number: int) -> tuple[Floats, Floats]:
    """Merge neighbouring classes, in equal widths of ln x.

    Parameters
    ----------
    values : (c,) float64
    masses : (k, c) float64
    number : int
        Of classes at most; no more than these are left alone.

    Returns
    -------
    values : (d,) float64
        Mean of the merged values, by the mass of the first row where it has any.
    masses : (k, d) float64
    """
    if len(values) <= number:
        return values, masses
    logs = np.log(values)
    edges = np.linspace(logs[0], logs[-1], number + 1)[1:-1]
    starts = np.unique(np.searchsorted(logs, np.concatenate(([-np.inf], edges))))
    starts = starts[starts < len(values)]
    own = masses[0] + 1e-12 * masses[0].sum()
    at = np.add.reduceat(own * values, starts) / np.add.reduceat(own, starts)
    return at, np.add.reduceat(masses, starts, axis=1)


def _log_classes(values: Floats) -> tuple[NDArray[np.int64], int]:
    """Numbers of the classes that occur, and how many these are."""
    logs = np.log(values)
    low = float(logs.min())
    width = (float(logs.max()) - low) / MAX_CLASSES or 1.0
    number = np.minimum(((logs - low) / width).astype(np.int64), MAX_CLASSES - 1)
    occurs = np.bincount(number, minlength=MAX_CLASSES) > 0
    return (np.cumsum(occurs) - 1)[number], int(occurs.sum())
