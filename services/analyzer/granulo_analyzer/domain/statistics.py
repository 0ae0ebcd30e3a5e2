# SPDX-License-Identifier: GPL-3.0-or-later
"""Statistics of one quantity over an ensemble of particles.

A figure that the sample cannot give (the spread of one particle) is NaN here, null in JSON and a
dash in the report; it is never replaced by a number.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain import bootstrap
from granulo_analyzer.domain.classes import Classes, Floats, classify, effective_count, quantiles
from granulo_analyzer.domain.figures import Figure, density, density_grid, figures, silverman
from granulo_analyzer.domain.fits import LogNormal, fit_lognormal
from granulo_analyzer.domain.settings import AnalysisSettings

MAX_BINS = 60
MIN_COUNT_FOR_MODES = 10
"""Below this the maxima of a density estimate tell of its bandwidth, not of the sample."""
_MODE_PROMINENCE = 0.1
_FLAT = ("mean", "stddev", "median", "p10", "p90", "geometric_mean", "gsd")


@dataclass(frozen=True)
class Distribution:
    """One quantity over an ensemble; where nothing else is said, weighted by number."""

    quantity: str
    """``ecd``, ``sqrt_area``, ``aspect_ratio``, …"""
    unit: str
    """UCUM: ``nm``, ``[px]``, ``nm2``, ``[px]2`` or ``1``."""
    count: int
    """Np, the number of particles."""
    effective_count: float
    """Number of equally weighted particles that tell as much."""
    minimum: float
    maximum: float
    figures: Mapping[str, Figure]
    """By name, see `granulo_analyzer.domain.figures`; with intervals where they were asked for."""
    modes: tuple[float, ...]
    """Maxima of the estimated density, by falling height; empty below `MIN_COUNT_FOR_MODES`."""
    lognormal: LogNormal | None
    """None where the values do not spread."""
    bin_edges: tuple[float, ...]
    """(b + 1) edges of the histogram, equally wide (Freedman-Diaconis)."""
    bin_counts: tuple[float, ...]
    """Sums of the weights, scaled so that all together are Np."""

    def unit_of(self, figure: str) -> str:
        """UCUM unit of a figure."""
        return "1" if figure == "gsd" or figure.endswith("span") else self.unit

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return self.figures["mean"].value

    @property
    def stddev(self) -> float:
        """Standard deviation of the sample (n - 1)."""
        return self.figures["stddev"].value

    @property
    def median(self) -> float:
        """D50."""
        return self.figures["median"].value

    @property
    def median_low(self) -> float:
        """Lower end of the median's interval."""
        return self.figures["median"].lower

    @property
    def median_high(self) -> float:
        """Upper end of the median's interval."""
        return self.figures["median"].upper

    @property
    def p10(self) -> float:
        """D10."""
        return self.figures["p10"].value

    @property
    def p90(self) -> float:
        """D90."""
        return self.figures["p90"].value

    @property
    def gsd(self) -> float:
        """Geometric standard deviation (n - 1)."""
        return self.figures["gsd"].value

    def to_json(self) -> dict[str, Any]:
        """Plain values; undefined figures are None."""
        values = {
            "quantity": self.quantity,
            "unit": self.unit,
            "count": self.count,
            "effective_count": self.effective_count,
            **{name: self.figures[name].value for name in _FLAT},
            "median_low": self.median_low,
            "median_high": self.median_high,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "modes": self.modes,
            "lognormal": None if self.lognormal is None else self.lognormal.to_json(),
            "bin_edges": self.bin_edges,
            "bin_counts": self.bin_counts,
            "figures": {
                name: {"unit": self.unit_of(name), **asdict(figure)}
                for name, figure in self.figures.items()
            },
        }
        plain: dict[str, Any] = without_nan(values)
        return plain


def summarise(
    values: NDArray[Any],
    quantity: str,
    unit: str,
    *,
    weights: Floats | None = None,
    is_size: bool = False,
) -> Distribution:
    """Describe an ensemble of positive values.

    Parameters
    ----------
    values : (n,) array
        Positive and finite; n may be 0.
    quantity, unit : str
        What the values are, and their UCUM unit.
    weights : (n,) float64, optional
        Of the counting rule, positive; all alike where they are left out.
    is_size : bool
        Whether the quantity is a length, which length-, area- and volume-weighted figures have.

    Returns
    -------
    Distribution
        Without intervals; `with_intervals` adds them.

    Raises
    ------
    ValueError
        When a value is not positive and finite.
    """
    x = np.asarray(values, dtype=np.float64)
    weights = np.ones(x.size) if weights is None else weights
    check_positive(x, quantity)
    classes = classify(x, weights)
    effective = effective_count(weights)
    bandwidth = silverman(classes.values, classes.mass, effective)
    several = x.size >= MIN_COUNT_FOR_MODES
    found = figures(
        classes.values,
        classes.mass[None],
        classes.count,
        is_size=is_size,
        bandwidth=bandwidth if several else 0.0,
    )
    edges, counts = histogram(x, weights)
    nan = float("nan")
    return Distribution(
        quantity=quantity,
        unit=unit,
        count=x.size,
        effective_count=effective,
        minimum=float(x.min()) if x.size else nan,
        maximum=float(x.max()) if x.size else nan,
        figures={name: Figure(float(value[0])) for name, value in found.items()},
        modes=_modes(classes, bandwidth) if several else (),
        lognormal=fit_lognormal(classes.values, classes.mass),
        bin_edges=tuple(edges.tolist()),
        bin_counts=tuple(counts.tolist()),
    )


def with_intervals(
    distribution: Distribution,
    classes: Classes,
    replicates: bootstrap.Replicates,
    settings: AnalysisSettings,
) -> Distribution:
    """Add the interval and the standard error of every figure.

    Parameters
    ----------
    distribution : Distribution
    classes : Classes
        Of the same values.
    replicates : Replicates
        Drawn from these classes.
    settings : AnalysisSettings

    Returns
    -------
    Distribution
    """
    names = list(distribution.figures)
    bandwidth = silverman(classes.values, classes.mass, distribution.effective_count)
    drawn = figures(
        classes.values,
        replicates.masses,
        classes.count,
        is_size="sauter_d32" in names,
        bandwidth=bandwidth if "mode" in names else 0.0,
    )
    samples = np.stack([drawn[name] for name in names], axis=1)
    lower, upper = bootstrap.interval(samples, settings.confidence_level, replicates)
    known = np.isfinite(lower)
    errors = np.full(len(names), np.nan)
    errors[known] = np.nanstd(samples[:, known], axis=0)
    columns = zip(names, lower.tolist(), upper.tolist(), errors.tolist(), strict=True)
    found = {
        name: Figure(distribution.figures[name].value, low, high, error)
        for name, low, high, error in columns
    }
    return Distribution(**{**vars(distribution), "figures": found})


def check_positive(values: Floats, quantity: str) -> None:
    """Raise ValueError where a value is not positive and finite."""
    if values.size and not (np.all(np.isfinite(values)) and values.min() > 0):
        raise ValueError(f"{quantity} must be positive and finite to be summarised")


def histogram(values: NDArray[Any], weights: Floats | None = None) -> tuple[Floats, Floats]:
    """Bin values with the width of Freedman and Diaconis.

    Parameters
    ----------
    values : (n,) array
    weights : (n,) float64, optional

    Returns
    -------
    edges : (b + 1,) float64
        From the smallest to the largest value, at most `MAX_BINS` bins; empty for no value.
    counts : (b,) float64
        Sums of the weights, scaled so that all together are n.
    """
    x = np.asarray(values, dtype=np.float64)
    weights = np.ones(x.size) if weights is None else weights
    if not x.size:
        return np.empty(0), np.empty(0)
    low, high = float(x.min()), float(x.max())
    if low == high:
        half = abs(low) / 2 or 0.5
        return np.array([low - half, low + half]), np.array([float(x.size)])
    order = np.argsort(x)
    quarter, three_quarters = quantiles(x[order], weights[order], (0.25, 0.75))
    width = 2 * float(three_quarters - quarter) / x.size ** (1 / 3)
    # Where half of the values are one and the same the width is 0: Sturges' number then.
    bins = np.ceil((high - low) / width) if width > 0 else np.ceil(np.log2(x.size)) + 1
    counts, edges = np.histogram(
        x, bins=int(min(max(bins, 1), MAX_BINS)), range=(low, high), weights=weights
    )
    return edges, counts * (x.size / weights.sum())


def without_nan(value: Any) -> Any:
    """Plain values in which what is not finite is None."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _modes(classes: Classes, bandwidth: float) -> tuple[float, ...]:
    """Maxima of the kernel density, by falling height."""
    if bandwidth == 0:
        return (float(classes.values[0]),)
    grid = density_grid(classes.values, bandwidth)
    heights = density(classes.values, classes.mass[None], grid, bandwidth)[0]
    inner = heights[1:-1]
    tops = np.flatnonzero((inner > heights[:-2]) & (inner >= heights[2:])) + 1
    tops = tops[heights[tops] >= _MODE_PROMINENCE * heights.max()]
    return tuple(grid[tops[np.argsort(-heights[tops], kind="stable")]].tolist())
