# SPDX-License-Identifier: GPL-3.0-or-later
"""Number-weighted statistics of one quantity over an ensemble of particles.

A figure that the sample cannot give (the spread of one particle) is NaN here, null in JSON and a
dash in the report; it is never replaced by a number.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Floats = NDArray[np.float64]

BOOTSTRAP_SEED = 20210223
"""Fixed, so that the same particles give the same interval in every run."""
BOOTSTRAP_RESAMPLES = 10_000
MAX_BINS = 60
MIN_COUNT_FOR_MODES = 10
"""Below this the maxima of a density estimate tell of its bandwidth, not of the sample."""
_MODE_PROMINENCE = 0.1
_BLOCK_VALUES = 4_000_000


@dataclass(frozen=True)
class LogNormalFit:
    """Maximum-likelihood log-normal distribution."""

    median: float
    gsd: float
    """Geometric standard deviation, exp(sigma)."""
    mode: float
    ks_distance: float
    """Largest distance between the fitted and the empirical distribution function."""

    def density(self, x: Floats) -> Floats:
        """Probability density at positive ``x`` (any shape)."""
        sigma = np.log(self.gsd)
        z = (np.log(x) - np.log(self.median)) / sigma
        density: Floats = np.exp(-(z**2) / 2) / (x * sigma * np.sqrt(2 * np.pi))
        return density


@dataclass(frozen=True)
class Distribution:
    """One quantity over an ensemble; every figure is weighted by number."""

    quantity: str
    """``ecd``, ``sqrt_area``, ``aspect_ratio``, …"""
    unit: str
    """UCUM: ``nm``, ``[px]``, ``nm2``, ``[px]2`` or ``1``."""
    count: int
    """Np, the number of particles."""
    mean: float
    stddev: float
    """Of the sample (n - 1)."""
    median: float
    """D50."""
    median_low: float
    """Lower end of the 95 % bootstrap interval of the median."""
    median_high: float
    p10: float
    """D10."""
    p90: float
    """D90."""
    minimum: float
    maximum: float
    geometric_mean: float
    gsd: float
    """Geometric standard deviation (n - 1)."""
    modes: tuple[float, ...]
    """Maxima of the estimated density, by falling height; empty below `MIN_COUNT_FOR_MODES`."""
    lognormal: LogNormalFit | None
    """None where the values do not spread."""
    bin_edges: tuple[float, ...]
    """(b + 1) edges of the histogram, equally wide (Freedman-Diaconis)."""
    bin_counts: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; undefined figures are None."""
        values: dict[str, Any] = _without_nan(asdict(self))
        return values


def summarise(values: NDArray[Any], quantity: str, unit: str) -> Distribution:
    """Describe an ensemble of positive values.

    Parameters
    ----------
    values : (n,) array
        Positive and finite; n may be 0.
    quantity, unit : str
        What the values are, and their UCUM unit.

    Returns
    -------
    Distribution

    Raises
    ------
    ValueError
        When a value is not positive and finite.
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    if x.size and not (np.all(np.isfinite(x)) and x[0] > 0):
        raise ValueError(f"{quantity} must be positive and finite to be summarised")
    nan = float("nan")
    several = x.size > 1
    logs = np.log(x)
    p10, median, p90 = np.percentile(x, (10, 50, 90)) if x.size else (nan, nan, nan)
    low, high = _median_interval(x) if several else (nan, nan)
    edges, counts = histogram(x)
    return Distribution(
        quantity=quantity,
        unit=unit,
        count=int(x.size),
        mean=float(x.mean()) if x.size else nan,
        stddev=float(x.std(ddof=1)) if several else nan,
        median=float(median),
        median_low=low,
        median_high=high,
        p10=float(p10),
        p90=float(p90),
        minimum=float(x[0]) if x.size else nan,
        maximum=float(x[-1]) if x.size else nan,
        geometric_mean=float(np.exp(logs.mean())) if x.size else nan,
        gsd=float(np.exp(logs.std(ddof=1))) if several else nan,
        modes=_modes(x),
        lognormal=_fit_lognormal(x),
        bin_edges=tuple(edges.tolist()),
        bin_counts=tuple(counts.tolist()),
    )


def histogram(values: NDArray[Any]) -> tuple[Floats, NDArray[np.int64]]:
    """Bin values with the width of Freedman and Diaconis.

    Parameters
    ----------
    values : (n,) array

    Returns
    -------
    edges : (b + 1,) float64
        From the smallest to the largest value, at most `MAX_BINS` bins; empty for no value.
    counts : (b,) int64
    """
    x = np.asarray(values, dtype=np.float64)
    if not x.size:
        return np.empty(0), np.empty(0, dtype=np.int64)
    low, high = float(x.min()), float(x.max())
    if low == high:
        half = abs(low) / 2 or 0.5
        return np.array([low - half, low + half]), np.array([x.size], dtype=np.int64)
    width = 2 * float(np.subtract(*np.percentile(x, (75, 25)))) / x.size ** (1 / 3)
    # Where half of the values are one and the same the width is 0: Sturges' number then.
    bins = np.ceil((high - low) / width) if width > 0 else np.ceil(np.log2(x.size)) + 1
    counts, edges = np.histogram(x, bins=int(min(max(bins, 1), MAX_BINS)), range=(low, high))
    return edges, counts.astype(np.int64)


def _median_interval(x: Floats) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the median of sorted values.

    A resample is n uniform places in the sorted sample, and its median depends on the one or two
    middle ones only. Their order statistics are beta distributed and are drawn directly, which is
    the same experiment at a cost that does not grow with n.
    """
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    n = x.size
    lower_rank = (n + 1) // 2
    lower = rng.beta(lower_rank, n + 1 - lower_rank, BOOTSTRAP_RESAMPLES)
    medians = x[_places(lower, n)]
    if n % 2 == 0:
        upper = lower + (1 - lower) * rng.beta(1, n - lower_rank, BOOTSTRAP_RESAMPLES)
        medians = (medians + x[_places(upper, n)]) / 2
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def _places(uniform: Floats, n: int) -> NDArray[np.int64]:
    return np.minimum((uniform * n).astype(np.int64), n - 1)


def _modes(x: Floats) -> tuple[float, ...]:
    """Maxima of a Gaussian kernel density with Silverman's bandwidth, by falling height."""
    if x.size < MIN_COUNT_FOR_MODES:
        return ()
    quartiles = float(np.subtract(*np.percentile(x, (75, 25)))) / 1.34
    spread = min(value for value in (float(x.std(ddof=1)), quartiles or np.inf))
    if spread <= 0:
        return (float(x[0]),)
    bandwidth = 0.9 * spread * x.size**-0.2
    grid = np.linspace(x[0] - bandwidth, x[-1] + bandwidth, 512)
    density = np.zeros_like(grid)
    for part in np.array_split(x, max(1, x.size * grid.size // _BLOCK_VALUES)):
        density += np.exp(-(((grid[:, None] - part) / bandwidth) ** 2) / 2).sum(axis=1)
    inner = density[1:-1]
    tops = np.flatnonzero((inner > density[:-2]) & (inner >= density[2:])) + 1
    tops = tops[density[tops] >= _MODE_PROMINENCE * density.max()]
    return tuple(grid[tops[np.argsort(-density[tops], kind="stable")]].tolist())


def _fit_lognormal(x: Floats) -> LogNormalFit | None:
    logs = np.log(x)
    if x.size < 2 or logs[0] == logs[-1]:
        return None
    mu, sigma = float(logs.mean()), float(logs.std())
    fitted = ndtr((logs - mu) / sigma)
    steps = np.arange(x.size + 1) / x.size
    distance = max(np.max(steps[1:] - fitted), np.max(fitted - steps[:-1]))
    return LogNormalFit(
        median=float(np.exp(mu)),
        gsd=float(np.exp(sigma)),
        mode=float(np.exp(mu - sigma**2)),
        ks_distance=float(distance),
    )


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
