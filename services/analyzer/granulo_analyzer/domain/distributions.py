# SPDX-License-Identifier: GPL-3.0-or-later
"""Distributions of size as curves: cumulative and density, by number, length, area and volume."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from granulo_analyzer.domain.bootstrap import Replicates
from granulo_analyzer.domain.classes import Classes, Floats, quantiles
from granulo_analyzer.domain.figures import density, density_grid, silverman
from granulo_analyzer.domain.statistics import without_nan

PERCENTS = tuple(range(1, 100))
MAX_CLASSES = 100
_BAND_PLACES = 200
_EQUAL, _MARGIN = 1e-6, 0.05
"""In ln x: values that differ by less are one, and what its class has on both sides."""
_CURVE_STEP = 2
"""Every other place of the density is enough to draw it."""


@dataclass(frozen=True)
class SizeDistribution:
    """One length over an ensemble; indices 0 to 3 are by number, length, area and volume."""

    quantity: str
    unit: str
    edges: tuple[float, ...]
    """(b + 1) of classes of equal width in ln x (Freedman-Diaconis)."""
    cumulative: Mapping[str, tuple[float, ...]]
    """``Q0`` to ``Q3``: (b + 1) shares up to the edges (ISO 9276-1)."""
    density: Mapping[str, tuple[float, ...]]
    """``q0`` to ``q3``: (b) shares by unit of length."""
    log_density: Mapping[str, tuple[float, ...]]
    """``q0`` to ``q3``: (b) shares by unit of ln x."""
    percentiles: Mapping[str, tuple[float, ...]]
    """``Q0`` to ``Q3``: the sizes at `PERCENTS`."""
    kernel_x: tuple[float, ...]
    kernel_density: tuple[float, ...]
    """By number, Gaussian kernels of Silverman's bandwidth."""
    band_x: tuple[float, ...]
    """At most 200 places."""
    band_share: tuple[float, ...]
    """Empirical distribution function by number."""
    band_half_width: float
    """The whole function lies within ± this of the empirical one, at the confidence level: that
    share of the replicates does nowhere lie farther off. NaN for less than two particles."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = without_nan({**asdict(self), "percents": PERCENTS})
        return values


def size_distribution(
    classes: Classes,
    replicates: Replicates,
    *,
    quantity: str,
    unit: str,
    level: float,
    effective: float,
) -> SizeDistribution | None:
    """Describe a length.

    Parameters
    ----------
    classes : Classes
    replicates : Replicates
        Of these classes.
    quantity, unit : str
    level : float
        Confidence level of the band.
    effective : float
        Effective number of particles.

    Returns
    -------
    SizeDistribution or None
        None where there is no particle.
    """
    x, mass = classes.values, classes.mass
    if not len(x):
        return None
    edges = np.exp(_log_edges(classes))
    powers = {str(power): mass * (x / x[-1]) ** power for power in range(4)}
    shares = {
        name: np.histogram(x, bins=edges, weights=part)[0] / part.sum()
        for name, part in powers.items()
    }
    bandwidth = silverman(x, mass, effective)
    grid = density_grid(x, bandwidth)[::_CURVE_STEP] if bandwidth else np.empty(0)
    heights = density(x, mass[None], grid, bandwidth)[0] if bandwidth else np.empty(0)
    places, share, half_width = _band(x, mass, replicates, level)
    percents = tuple(percent / 100 for percent in PERCENTS)
    return SizeDistribution(
        quantity=quantity,
        unit=unit,
        edges=_plain(edges),
        cumulative={
            f"Q{name}": _plain(np.concatenate(([0.0], np.cumsum(part))))
            for name, part in shares.items()
        },
        density={f"q{name}": _plain(part / np.diff(edges)) for name, part in shares.items()},
        log_density={
            f"q{name}": _plain(part / np.diff(np.log(edges))) for name, part in shares.items()
        },
        percentiles={
            f"Q{name}": _plain(quantiles(x, part, percents)) for name, part in powers.items()
        },
        kernel_x=_plain(grid),
        kernel_density=_plain(heights),
        band_x=_plain(places),
        band_share=_plain(share),
        band_half_width=half_width,
    )


def _log_edges(classes: Classes) -> Floats:
    logs = np.log(classes.values)
    if logs[-1] - logs[0] < _EQUAL:
        # One class that can be drawn and read.
        return np.array([logs[0] - _MARGIN, logs[-1] + _MARGIN])
    low, high = quantiles(logs, classes.mass, (0.25, 0.75))
    width = 2 * float(high - low) / classes.count ** (1 / 3)
    bins = int(np.ceil((logs[-1] - logs[0]) / width)) if width > 0 else 1
    # A little wider than the values, so that rounding leaves none outside.
    bins = min(max(bins, 1), MAX_CLASSES)
    edges: Floats = np.linspace(logs[0] - 1e-9, logs[-1] + 1e-9, bins + 1)
    return edges


def _band(
    x: Floats, mass: Floats, replicates: Replicates, level: float
) -> tuple[Floats, Floats, float]:
    step = max(1, len(x) // _BAND_PLACES)
    places = np.arange(len(x))[step - 1 :: step]
    share = np.cumsum(mass)[places] / mass.sum()
    half_width = float("nan")
    if replicates.units > 1:
        with np.errstate(invalid="ignore"):
            drawn = np.cumsum(replicates.masses, axis=1)[:, places]
            drawn /= replicates.masses.sum(axis=1, keepdims=True)
        half_width = float(np.nanquantile(np.abs(drawn - share).max(axis=1), level))
    return x[places], share, half_width


def _plain(values: Floats) -> tuple[float, ...]:
    return tuple(values.tolist())
