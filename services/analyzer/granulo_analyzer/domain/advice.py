# SPDX-License-Identifier: GPL-3.0-or-later
"""How many more particles would make a figure as precise as is wanted."""

import math
from dataclasses import dataclass

import numpy as np

from granulo_analyzer.domain.bootstrap import normal_quantile
from granulo_analyzer.domain.figures import Figure

_MANY = 10**12


@dataclass(frozen=True)
class CountAdvice:
    """What more micrographs would bring to the median."""

    stop: bool
    """The target precision is reached."""
    precision: float
    """Half width of the median's interval as a share of the median; NaN where there is none."""
    target_precision: float
    more_particles: int | None
    """About; 0 when stop, None where nothing can be told."""
    more_images: int | None
    text: str
    """For people."""


def advise(
    median: Figure, target: float, *, count: int, images: int, enough: bool = True
) -> CountAdvice:
    """Advise from the present interval: its width falls with the square root of the count.

    Parameters
    ----------
    median : Figure
        With its interval.
    target : float
        Half width to reach, as a share of the median.
    count : int
        Particles so far.
    images : int
        Images so far.
    enough : bool
        False where a rule forbids to stop yet, whatever the precision.

    Returns
    -------
    CountAdvice
    """
    precision = relative_half_width(median)
    percent = f"±{100 * target:.3g} %"
    if not math.isfinite(precision):
        few = "no particle was" if not count else f"only {count} particle{'s' * (count > 1)} were"
        few = few.replace("particle were", "particle was")
        text = f"{few} counted: too few to tell how many more {percent} of the median take"
        return CountAdvice(False, precision, target, None, None, text)
    if precision <= target and enough:
        text = f"enough: the median is known to ±{100 * precision:.2g} % ({percent} wanted)"
        return CountAdvice(True, precision, target, 0, 0, text)
    # At least one more: a rule that forbids to stop asks for more images, not for more precision.
    more = max(1, math.ceil(count * ((precision / target) ** 2 - 1)))
    fields = max(1, math.ceil(more * images / count))
    text = f"≈ {fields} more field{'s' * (fields > 1)} (≈ {more} particles) for {percent}"
    return CountAdvice(False, precision, target, more, fields, text)


def relative_half_width(figure: Figure) -> float:
    """Half width of a figure's interval as a share of the figure."""
    return (figure.upper - figure.lower) / 2 / figure.value if figure.value else float("nan")


def needed_by_bootstrap(figure: Figure, target: float, count: int) -> int | None:
    """Number of particles in all for a half width of ``target``; None where nothing tells."""
    precision = relative_half_width(figure)
    if not math.isfinite(precision):
        return None
    return min(_MANY, max(2, math.ceil(count * (precision / target) ** 2)))


def needed_for_mean_volume(gsd: float, target: float, level: float) -> int | None:
    """Number of particles in all for the mean volume of a log-normal distribution.

    n = u²·α²·s²·(2·c²·s² + 1)/δ² with s = ln GSD, α = 3 and c = 3/2, u being the quantile of the
    normal distribution and δ the relative error of the mean volume (Masuda and Gotoh 1999, which
    ISO 13322-1:2004 reproduces ?). It follows from the variances of ln median, s²/n, and of
    s², 2s⁴/n. A GSD of 1.6 and 5 % give 6091.

    Parameters
    ----------
    gsd : float
        Geometric standard deviation by number.
    target : float
    level : float
        Confidence level.

    Returns
    -------
    int or None
        None where the spread is not known.
    """
    return _needed_log_normal(gsd, target, level, power=3.0, weight=1.5)


def needed_for_volume_median(gsd: float, target: float, level: float) -> int | None:
    """As `needed_for_mean_volume`, for the median by volume, exp(µ + 3s²): α = 1 and c = 3."""
    return _needed_log_normal(gsd, target, level, power=1.0, weight=3.0)


def _needed_log_normal(
    gsd: float, target: float, level: float, *, power: float, weight: float
) -> int | None:
    if not math.isfinite(gsd):
        return None
    variance = float(np.log(gsd)) ** 2
    u = normal_quantile(level)
    needed = (u * power / target) ** 2 * variance * (2 * weight**2 * variance + 1)
    return min(_MANY, max(2, math.ceil(needed)))
