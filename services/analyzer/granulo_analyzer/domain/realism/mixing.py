# SPDX-License-Identifier: GPL-3.0-or-later
"""How well two sets of patches can be told apart, with intervals over the images."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain.comparison import LEVEL, Interval

FloatArray = NDArray[np.float64]

NEIGHBOURS = 10
_FOLDS = 5
_REPLICATES = 2000
_FEWEST_IMAGES = 3
"""Of fewer images of a set nothing is known of how its images differ."""


@dataclass(frozen=True)
class Origin:
    """Where patches come from."""

    synthetic: NDArray[np.bool_]
    """(n,)"""
    image: NDArray[np.int64]
    """(n,), different for images of different sets."""


@dataclass(frozen=True)
class Mixing:
    """Shares of neighbours that come from the other set."""

    observed: Interval
    expected: Interval
    """Of identical sets: what is expected, and where 95 % of them lie."""

    @property
    def ratio(self) -> Interval:
        """Observed over expected: 1 where the sets cannot be told apart."""
        found, unit = self.observed, self.expected.value
        return Interval(found.value / unit, found.lower / unit, found.upper / unit)


def mixing(components: FloatArray, origin: Origin, seed: int) -> Mixing:
    """Share of the nearest neighbours of a patch that come from the other set.

    Neighbours are looked for in other images only, since patches of one image are alike in any set
    (Schilling 1986, J. Am. Stat. Assoc. 81, 799, for the test by neighbours of two samples).

    Parameters
    ----------
    components : (n, K) float64
    origin : Origin
    seed : int
        Of ties, bootstrap and divisions.

    Returns
    -------
    Mixing
        Means of the two sets' means. The interval of what was observed draws images anew, not their
        neighbours. In identical sets every patch of the other images is a neighbour with the same
        probability; the range of these comes from dividing the images into two sets at random.
    """
    rng = np.random.default_rng(seed)
    images = np.unique(origin.image)
    observed, expected = np.empty(len(components)), np.empty(len(components))
    links = np.zeros((len(images), len(images)))
    squares = np.sum(components**2, axis=1)
    for place, image in enumerate(images):
        own = np.flatnonzero(origin.image == image)
        # In random order, so that ties are broken fairly.
        others = rng.permutation(np.flatnonzero(origin.image != image))
        apart = squares[others] - 2 * components[own] @ components[others].T
        count = min(NEIGHBOURS, len(others))
        nearest = others[np.argpartition(apart, count - 1, axis=1)[:, :count]]
        is_synthetic = origin.synthetic[own[0]]
        observed[own] = np.mean(origin.synthetic[nearest] != is_synthetic, axis=1)
        expected[own] = np.mean(origin.synthetic[others] != is_synthetic)
        reached = np.searchsorted(images, origin.image[nearest].ravel())
        links[place] = np.bincount(reached, minlength=len(images)) / count
    found = mean_of_sets(observed, origin, seed)
    wanted = mean_of_sets(expected, origin, seed).value
    if np.isnan(found.lower):
        return Mixing(found, Interval(wanted, np.nan, np.nan))
    return Mixing(found, _interval(wanted, _at_random(links, origin, rng)))


def _at_random(links: FloatArray, origin: Origin, rng: np.random.Generator) -> FloatArray:
    """Shares of neighbours from the other set where images are divided at random.

    Parameters
    ----------
    links : (m, m) float64
        Number of patches of one image whose neighbours lie in another, in parts.
    origin : Origin
    rng : numpy.random.Generator
    """
    _, first, patches = np.unique(origin.image, return_index=True, return_counts=True)
    drawn = np.tile(origin.synthetic[first], (_REPLICATES, 1))
    synthetic = rng.permuted(drawn, axis=1).astype(np.float64)
    across = links @ synthetic.T  # (m, R): neighbours among the synthetic
    real = 1.0 - synthetic.T
    of_real = (real * across).sum(axis=0) / (patches @ real)
    within = links.sum(axis=1)[:, None] - across
    of_synthetic = (synthetic.T * within).sum(axis=0) / (patches @ synthetic.T)
    return np.asarray((of_real + of_synthetic) / 2)


def classifier_accuracy(components: FloatArray, origin: Origin, seed: int) -> Interval:
    """Share of patches that a classifier puts into the right set, images being left out in turn.

    Logistic regression on the standardised components; in each of up to five parts of the images
    it is tested on patches of images that it has not seen.

    Parameters
    ----------
    components : (n, K) float64
    origin : Origin
        Of two images or more in each set.
    seed : int

    Returns
    -------
    Interval
        Mean of the two sets' shares: 0.5 where they cannot be told apart, 1 where always.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fewest = min(len(np.unique(origin.image[origin.synthetic == kind])) for kind in (False, True))
    folds = StratifiedGroupKFold(min(_FOLDS, fewest), shuffle=True, random_state=seed % 2**32)
    model = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
    )
    with warnings.catch_warnings():
        # Images of unequal numbers of patches: a part may lack a set, which the mean bears.
        warnings.simplefilter("ignore", UserWarning)
        told = cross_val_predict(model, components, origin.synthetic, groups=origin.image, cv=folds)
    return mean_of_sets((told == origin.synthetic).astype(np.float64), origin, seed)


def mean_of_sets(values: FloatArray, origin: Origin, seed: int) -> Interval:
    """Mean of the means of both sets, with a percentile bootstrap interval over images.

    Parameters
    ----------
    values : (n,) float64
        Of every patch.
    origin : Origin
    seed : int

    Returns
    -------
    Interval
        Without bounds where a set has fewer than three images.
    """
    real, synthetic = (
        _drawn(values[of_set], origin.image[of_set], seed)
        for of_set in (~origin.synthetic, origin.synthetic)
    )
    value = (real[0] + synthetic[0]) / 2
    if real[1] is None or synthetic[1] is None:
        return Interval(value, np.nan, np.nan)
    return _interval(value, (real[1] + synthetic[1]) / 2)


def mean_of_images(values: FloatArray, seed: int) -> Interval:
    """Mean over images with its interval, as `mean_of_sets`; images that are NaN are left out."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Interval(np.nan, np.nan, np.nan)
    value, means = _drawn(known, np.arange(len(known)), seed)
    return Interval(value, np.nan, np.nan) if means is None else _interval(value, means)


def ratio_of_means(real: FloatArray, synthetic: FloatArray, seed: int) -> Interval:
    """Mean over the synthetic images over the mean over the real ones, with its interval."""
    known = [values[np.isfinite(values)] for values in (real, synthetic)]
    if not all(len(values) and values.mean() > 0 for values in known):
        return Interval(np.nan, np.nan, np.nan)
    below, above = (
        _drawn(values, np.arange(len(values)), seed + number) for number, values in enumerate(known)
    )
    value = above[0] / below[0]
    if below[1] is None or above[1] is None:
        return Interval(value, np.nan, np.nan)
    return _interval(value, above[1] / below[1])


def _drawn(
    values: FloatArray, image: NDArray[np.int64], seed: int
) -> tuple[float, FloatArray | None]:
    """Mean over patches, and of samples of the images; None for too few images."""
    names, place = np.unique(image, return_inverse=True)
    if len(names) < _FEWEST_IMAGES:
        return float(values.mean()), None
    total, count = np.bincount(place, values), np.bincount(place)
    rng = np.random.default_rng([seed % 2**32, len(names)])
    drawn = rng.integers(len(names), size=(_REPLICATES, len(names)))
    return float(values.mean()), total[drawn].sum(axis=1) / count[drawn].sum(axis=1)


def _interval(value: float, means: NDArray[Any]) -> Interval:
    tail = (1.0 - LEVEL) / 2.0
    lower, upper = np.quantile(means, (tail, 1.0 - tail))
    return Interval(value, float(lower), float(upper))
