# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluations of several segmentations side by side: means, differences, rates, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Metrics = Mapping[str, float]

LEVEL = 0.95
_REPLICATES = 2000
_FEWEST_IMAGES = 3
"""Of fewer images nothing is known of how images differ."""
_EDGES_PX = (0.0, 5.0, 8.0, 12.0, 18.0, 27.0, 40.0, 60.0, 90.0, 135.0, 200.0, np.inf)


@dataclass(frozen=True)
class Interval:
    """A figure with its interval; NaN where none can be stated."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class DetectionRate:
    """Share of the true particles of a size that were found."""

    min_ecd_px: float
    max_ecd_px: float
    count: int
    rate: Interval


def means(images: Sequence[Metrics]) -> dict[str, Interval]:
    """Means over images with percentile bootstrap intervals over the images (Efron 1979).

    Parameters
    ----------
    images : sequence of mappings
        Metrics of every image; a metric counts on the images that have it.

    Returns
    -------
    dict
        Always the same for the same images.
    """
    names = dict.fromkeys(name for image in images for name in image)
    return {name: _mean([image[name] for image in images if name in image]) for name in names}


def differences(
    first: Mapping[str, Metrics], second: Mapping[str, Metrics]
) -> tuple[int, dict[str, Interval]]:
    """First minus second, image by image, over the images that both have.

    Parameters
    ----------
    first, second : mapping of str to mapping
        Metrics by image.

    Returns
    -------
    images : int
        How many both have.
    differences : dict
        Mean difference of every metric with its interval; empty without a common image.
    """
    common = [name for name in first if name in second]
    apart = [
        {key: first[name][key] - second[name][key] for key in first[name] if key in second[name]}
        for name in common
    ]
    return len(common), means(apart)


def detection_curve(
    ecd_px: NDArray[np.float64], found: NDArray[np.bool_]
) -> tuple[DetectionRate, ...]:
    """Share of the true particles that were found, by size.

    Parameters
    ----------
    ecd_px : (n,) float
        Equivalent-circle diameters of the true particles.
    found : (n,) bool

    Returns
    -------
    tuple of DetectionRate
        Only sizes that occur.
    """
    place = np.digitize(ecd_px, _EDGES_PX) - 1
    return tuple(
        DetectionRate(
            _EDGES_PX[index],
            _EDGES_PX[index + 1],
            int(np.count_nonzero(place == index)),
            wilson(int(np.count_nonzero(found[place == index])), int((place == index).sum())),
        )
        for index in np.unique(place).tolist()
    )


def wilson(hits: int, trials: int) -> Interval:
    """A share with its score interval (Wilson 1927): sound also near 0 and 1 and for few trials."""
    z = float(ndtri((1.0 + LEVEL) / 2.0))
    share = hits / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    spread = np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    half = float(z * spread / (1 + z**2 / trials))
    # At 0 and 1 the bounds are the share itself, but for rounding.
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def _mean(values: Sequence[float]) -> Interval:
    sample = np.array(values)
    if len(sample) < _FEWEST_IMAGES:
        return Interval(float(sample.mean()), np.nan, np.nan)
    drawn = np.random.default_rng(0).integers(len(sample), size=(_REPLICATES, len(sample)))
    tail = (1.0 - LEVEL) / 2.0
    lower, upper = np.quantile(sample[drawn].mean(axis=1), (tail, 1.0 - tail))
    return Interval(float(sample.mean()), float(lower), float(upper))
