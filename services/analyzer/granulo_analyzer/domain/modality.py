# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a distribution has more than one mode: Silverman's bootstrap test (1981).

The smallest bandwidth at which a kernel density has one maximum is large where there are two
modes. How large it would be by chance is told by samples drawn from that very density.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from granulo_analyzer.domain.classes import Floats

MIN_COUNT = 20
"""Fewer particles say nothing about modes."""
_PLACES = 512
_STEPS = 24
_ALONE = 1e-3
"""Maxima below this share of the highest are single particles in a tail."""


@dataclass(frozen=True)
class Bimodality:
    """Outcome of the test, in ln x."""

    p_value: float
    """How often chance alone makes as much of a second mode; small means that there are two."""
    critical_bandwidth: float
    """Smallest bandwidth in ln x at which one mode is left."""
    replicates: int


def silverman_test(
    values: Floats, mass: Floats, effective: float, *, replicates: int, seed: int
) -> Bimodality | None:
    """Test one mode against several.

    The test errs on the side of one mode (Hall and York 2001).

    Parameters
    ----------
    values, mass : (c,) float64
        Positive, with their weights.
    effective : float
        Effective number of particles: so many are drawn for every replicate.
    replicates, seed : int

    Returns
    -------
    Bimodality or None
        None for fewer than `MIN_COUNT` particles, and for values that do not spread.
    """
    logs = np.log(values)
    if effective < MIN_COUNT or logs[-1] - logs[0] < 1e-9:
        return None
    mean = np.average(logs, weights=mass)
    variance = float(np.average((logs - mean) ** 2, weights=mass))
    margin = 4 * np.sqrt(variance)
    edges = np.linspace(logs[0] - margin, logs[-1] + margin, _PLACES + 1)
    step = float(edges[1] - edges[0])
    heights, _ = np.histogram(logs, bins=edges, weights=mass)
    bandwidth = _critical(heights, step, 2 * float(np.sqrt(variance)))
    smooth = gaussian_filter1d(heights, bandwidth / step, mode="constant")
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(round(effective), smooth / smooth.sum(), size=replicates)
    # Smoothing has made the drawn values spread more. Shrinking them to the sample's spread is the
    # same as looking at them with a kernel so much wider.
    widened = bandwidth * float(np.sqrt(1 + bandwidth**2 / variance))
    maxima = _count_modes(
        gaussian_filter1d(drawn.astype(np.float64), widened / step, axis=1, mode="constant")
    )
    return Bimodality(float(np.mean(maxima > 1)), bandwidth, replicates)


def _critical(heights: Floats, step: float, largest: float) -> float:
    """Smallest bandwidth of one mode, by halving: a wider kernel never adds one."""
    low, high = step / 2, largest
    for _ in range(_STEPS):
        middle = float(np.sqrt(low * high))
        if _count_modes(gaussian_filter1d(heights, middle / step, mode="constant")[None])[0] > 1:
            low = middle
        else:
            high = middle
    return high


def _count_modes(heights: Floats) -> NDArray[np.int64]:
    inner = heights[:, 1:-1]
    tops = (inner > heights[:, :-2]) & (inner >= heights[:, 2:])
    tops &= inner > _ALONE * heights.max(axis=1, keepdims=True)
    return np.asarray(tops.sum(axis=1), dtype=np.int64)
