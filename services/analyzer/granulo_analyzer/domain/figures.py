# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of an ensemble: means, spreads, percentiles and moments of weighted values.

Weights by number are those of the counting rule. Weighted by length, area and volume (r = 1, 2, 3)
a particle of size x counts xʳ times as much (ISO 9276-2).
"""

from dataclasses import dataclass

import numpy as np

from granulo_analyzer.domain.classes import Floats, quantiles

WEIGHTINGS = {"length": 1, "area": 2, "volume": 3}
"""Beside number: what a particle's size is raised to."""
GRID = 512
"""Places at which a density is estimated."""


@dataclass(frozen=True)
class Figure:
    """A number with its interval."""

    value: float
    lower: float = float("nan")
    """NaN where no interval can be stated."""
    upper: float = float("nan")
    standard_error: float = float("nan")
    """Standard deviation over the bootstrap's replicates."""


def figures(
    values: Floats, masses: Floats, count: int, *, is_size: bool, bandwidth: float = 0.0
) -> dict[str, Floats]:
    """Every figure of one sample, or of many replicates at once.

    Parameters
    ----------
    values : (c,) float64
        Rising and positive.
    masses : (k, c) float64
        Weights by number of k samples.
    count : int
        Np, for the (n - 1) of the spreads.
    is_size : bool
        Whether weighting by length, area and volume means something: for lengths.
    bandwidth : float
        Of the density whose maximum is the mode, see `silverman`; 0 leaves the mode out.

    Returns
    -------
    dict of str to (k,) float64
        NaN what a sample cannot tell: a spread of one particle, anything of none.
    """
    if not len(values):
        masses, values = np.zeros((len(masses), 1)), np.ones(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = masses.sum(axis=1)
        unbiased = count / (count - 1) if count > 1 else np.nan
        logs = np.log(values)
        mean, log_mean = masses @ values / total, masses @ logs / total
        # Around one place in their midst, so that no large numbers cancel.
        middle, log_middle = float(values.mean()), float(logs.mean())
        variance = masses @ (values - middle) ** 2 / total - (mean - middle) ** 2
        log_variance = masses @ (logs - log_middle) ** 2 / total - (log_mean - log_middle) ** 2
        p10, median, p90 = quantiles(values, masses, (0.1, 0.5, 0.9)).T
        found = {
            "mean": mean,
            "stddev": np.sqrt(np.maximum(variance, 0) * unbiased),
            "median": median,
            "p10": p10,
            "p90": p90,
            "span": (p90 - p10) / median,
            "geometric_mean": np.exp(log_mean),
            "gsd": np.exp(np.sqrt(np.maximum(log_variance, 0) * unbiased)),
        }
        if bandwidth > 0:
            grid = density_grid(values, bandwidth)
            found["mode"] = grid[np.argmax(density(values, masses, grid, bandwidth), axis=1)]
        if is_size:
            found |= _by_size(values, masses)
    return found


def _by_size(values: Floats, masses: Floats) -> dict[str, Floats]:
    # Relative to the largest, so that no power overflows.
    scale = float(values[-1])
    moments = [masses @ (values / scale) ** power for power in range(5)]
    found = {
        # The diameter of the mean volume, D[3,0], and the mean diameters D[3,2] and D[4,3].
        "mean_volume_d30": scale * np.cbrt(moments[3] / moments[0]),
        "sauter_d32": scale * moments[3] / moments[2],
        "volume_mean_d43": scale * moments[4] / moments[3],
    }
    for name, power in WEIGHTINGS.items():
        weighted = masses * (values / scale) ** power
        d10, d50, d90 = quantiles(values, weighted, (0.1, 0.5, 0.9)).T
        found |= {f"{name}_d10": d10, f"{name}_d50": d50, f"{name}_d90": d90}
        found[f"{name}_span"] = (d90 - d10) / d50
    return found


def silverman(values: Floats, mass: Floats, count: float) -> float:
    """Bandwidth 0.9·min(SD, IQR/1.34)·n^(−1/5) of a Gaussian kernel density (Silverman 1986).

    Parameters
    ----------
    values, mass : (c,) float64
    count : float
        Number of particles, the effective one where they have weights.

    Returns
    -------
    float
        0 where the values do not spread.
    """
    if not len(values) or count <= 1:
        return 0.0
    mean = np.average(values, weights=mass)
    spread = float(np.sqrt(np.average((values - mean) ** 2, weights=mass)))
    low, high = quantiles(values, mass, (0.25, 0.75))
    if high > low:
        spread = min(spread, float(high - low) / 1.34)
    # Equal values differ by rounding errors.
    return 0.9 * spread * count**-0.2 if spread > 1e-9 * float(values[-1]) else 0.0


def density_grid(values: Floats, bandwidth: float) -> Floats:
    """(GRID,) places from a bandwidth below the smallest to one above the largest value."""
    grid: Floats = np.linspace(values[0] - bandwidth, values[-1] + bandwidth, GRID)
    return grid


def density(values: Floats, masses: Floats, grid: Floats, bandwidth: float) -> Floats:
    """Gaussian kernel density.

    Parameters
    ----------
    values : (c,) float64
    masses : (k, c) float64
    grid : (g,) float64
    bandwidth : float
        Above 0.

    Returns
    -------
    (k, g) float64
        Of integral 1 over all places.
    """
    kernels = np.exp(-(((values[:, None] - grid) / bandwidth) ** 2) / 2)
    scale = bandwidth * np.sqrt(2 * np.pi) * masses.sum(axis=1, keepdims=True)
    estimated: Floats = masses @ kernels / scale
    return estimated
