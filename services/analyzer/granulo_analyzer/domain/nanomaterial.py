# SPDX-License-Identifier: GPL-3.0-or-later
"""Is it a nanomaterial? EC Recommendation 2022/C 229/01, by number.

A material is one where half or more of its particles, free or as constituents of agglomerates,
have an external dimension of 1 to 100 nm, or are fibres or plates with one below 1 nm. What two
dimensions of above 100 µm have need not be counted. In a projection the smallest dimension is taken
to be the minimum Feret diameter; the height of plates that lie flat is not seen.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv

from granulo_analyzer.domain.bootstrap import resample
from granulo_analyzer.domain.classes import Classes, Floats, effective_count
from granulo_analyzer.domain.figures import Figure
from granulo_analyzer.domain.settings import AnalysisSettings

Verdict = Literal["nanomaterial", "not_nanomaterial", "undecided"]

LIMIT_NM = 100.0
_SMALLEST_NM = 1.0
_NOT_COUNTED_NM = 100_000.0
_HALF = 0.5


@dataclass(frozen=True)
class NanomaterialVerdict:
    """Outcome at the confidence level of the analysis."""

    verdict: Verdict
    """By where the interval of the share lies: above one half, below, or on both sides."""
    share: Figure
    """Of the particles with a dimension of 1 to 100 nm, by number."""
    probability: float
    """That the share of the material is at least one half, given the sample."""
    count: int
    """Particles that were judged."""
    effective_count: float
    """Number of independent particles that tell as much."""


def judge(
    min_feret_nm: Floats,
    max_feret_nm: Floats,
    weights: Floats,
    image: NDArray[np.int64],
    images: int,
    settings: AnalysisSettings,
) -> NanomaterialVerdict | None:
    """Judge a sample of particles.

    The share of the material has, given the sample, a beta distribution (Jeffreys' prior) of as
    many particles as tell as much: fewer than were counted where these have weights, or where the
    bootstrap over images finds that particles of an image resemble one another.

    Parameters
    ----------
    min_feret_nm, max_feret_nm : (n,) float64
    weights : (n,) float64
        Of the counting rule.
    image : (n,) int64
        Place of every particle's image.
    images : int
    settings : AnalysisSettings

    Returns
    -------
    NanomaterialVerdict or None
        None where there is no particle to judge.
    """
    judged = min_feret_nm <= _NOT_COUNTED_NM
    if not judged.any():
        return None
    small = (min_feret_nm <= LIMIT_NM) & (max_feret_nm >= _SMALLEST_NM)
    weights, small, image = weights[judged], small[judged], image[judged]
    share = float(np.average(small, weights=weights))
    error, effective = _standard_error(small, weights, image, images, settings)
    if error > 0:
        effective = min(effective, share * (1 - share) / error**2)
    first, second = effective * share + 0.5, effective * (1 - share) + 0.5
    tail = (1 - settings.confidence_level) / 2
    lower, upper = (float(betaincinv(first, second, q)) for q in (tail, 1 - tail))
    return NanomaterialVerdict(
        verdict=_verdict(lower, upper),
        share=Figure(share, min(lower, share), max(upper, share), error),
        probability=1 - float(betainc(first, second, _HALF)),
        count=len(weights),
        effective_count=effective,
    )


def _verdict(lower: float, upper: float) -> Verdict:
    if lower >= _HALF:
        return "nanomaterial"
    return "not_nanomaterial" if upper < _HALF else "undecided"


def _standard_error(
    small: NDArray[np.bool_],
    weights: Floats,
    image: NDArray[np.int64],
    images: int,
    settings: AnalysisSettings,
) -> tuple[float, float]:
    """Of the share, by bootstrap; and the effective number of particles by their weights alone."""
    cell = image * 2 + small
    classes = Classes(
        np.array([1.0, 2.0]),
        np.bincount(cell, weights, minlength=2 * images).astype(np.float64).reshape(images, 2),
        np.bincount(cell, minlength=2 * images).reshape(images, 2),
    )
    drawn = resample(classes, settings.replicates, settings.seed).masses
    with np.errstate(invalid="ignore"):
        shares = drawn[:, 1] / drawn.sum(axis=1)
    return float(np.nanstd(shares)), effective_count(weights)
