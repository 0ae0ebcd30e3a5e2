# SPDX-License-Identifier: GPL-3.0-or-later
"""Bootstrap of an ensemble (Efron and Tibshirani 1993; Davison and Hinkley 1997, section 3.8).

Particles of one image resemble one another, so that images are what is drawn anew where there are
enough of them. A replicate is a vector of masses over the classes of the sample: nothing in it
grows with the number of particles.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from granulo_analyzer.domain.classes import Classes, Floats

Scheme = Literal["particles", "images and particles", "images"]

MIN_IMAGES = 8
"""From so many images on these alone are drawn. Drawing particles within them again would count
their variation twice; with fewer images it is what makes up for the few ways to draw these."""


@dataclass(frozen=True)
class Replicates:
    """Samples drawn anew from a sample."""

    masses: Floats
    """(R, c) weights by class."""
    scheme: Scheme
    units: int
    """Number of things that were drawn independently."""


def scheme_of(images: int) -> Scheme:
    """What is drawn anew, by the number of images that have particles."""
    if images < 2:
        return "particles"
    return "images" if images >= MIN_IMAGES else "images and particles"


def resample(
    classes: Classes, replicates: int, seed: int, scheme: Scheme | None = None
) -> Replicates:
    """Draw replicates of a sample.

    Parameters
    ----------
    classes : Classes
    replicates : int
    seed : int
        Equal seeds give equal replicates.
    scheme : Scheme, optional
        What to draw; by default what `scheme_of` says.

    Returns
    -------
    Replicates
    """
    rng = np.random.default_rng(seed)
    # An image without particles says nothing of their sizes, and must not pass for one that does.
    occupied = np.flatnonzero(classes.counts.sum(axis=1))
    images = len(occupied)
    scheme = scheme or scheme_of(images)
    if scheme == "particles":
        one = np.ones((replicates, classes.images), dtype=np.int64)
        return Replicates(_particles(classes, one, rng), scheme, classes.count)
    drawn = np.zeros((replicates, classes.images), dtype=np.int64)
    drawn[:, occupied] = rng.multinomial(images, np.full(images, 1 / images), size=replicates)
    if scheme == "images":
        return Replicates(drawn @ classes.masses, scheme, images)
    return Replicates(_particles(classes, drawn, rng), scheme, classes.count)


def interval(samples: Floats, level: float, replicates: Replicates) -> tuple[Floats, Floats]:
    """Percentile interval of figures.

    Where single units are drawn it is the expanded one of Hesterberg (2015): a bootstrap of few
    units is too narrow by √((n − 1)/n) and by what the normal lacks to Student's distribution.

    Parameters
    ----------
    samples : (R, ...) float64
        Figures of the replicates; NaN where one could not tell.
    level : float
        Confidence level.
    replicates : Replicates
        Where the figures come from.

    Returns
    -------
    lower, upper : (...) float64
        NaN where there is nothing to draw from.
    """
    if replicates.units < 2:
        nothing = np.full(samples.shape[1:], np.nan)
        return nothing, nothing
    tail = (1 - level) / 2
    if replicates.scheme != "images and particles":
        tail = expanded_tail(tail, replicates.units)
    known = ~np.all(np.isnan(samples), axis=0)
    bounds = np.full((2, *samples.shape[1:]), np.nan)
    bounds[:, known] = np.nanquantile(samples[:, known], (tail, 1 - tail), axis=0)
    return bounds[0], bounds[1]


def expanded_tail(tail: float, units: int) -> float:
    """Share to cut off at each end so that ``tail`` is missed there, for so many units."""
    widened = -np.sqrt(units / (units - 1)) * stdtrit(units - 1, 1 - tail)
    return float(ndtr(widened))


def normal_quantile(level: float) -> float:
    """Half width of the interval of a standard normal figure at a confidence level."""
    return float(ndtri((1 + level) / 2))


def _particles(classes: Classes, drawn: NDArray[np.int64], rng: Generator) -> Floats:
    """(R, c) masses where every image is drawn so often and filled with its particles anew."""
    masses = np.zeros((len(drawn), len(classes.values)))
    for image, (mass, counts) in enumerate(zip(classes.masses, classes.counts, strict=True)):
        occurs = np.flatnonzero(counts)
        total = int(counts.sum())
        if not total:
            continue
        found = rng.multinomial(drawn[:, image] * total, counts[occurs] / total)
        masses[:, occurs] += found * (mass[occurs] / counts[occurs])
    return masses
