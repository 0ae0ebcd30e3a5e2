# SPDX-License-Identifier: GPL-3.0-or-later
"""What a whole ensemble says beyond the figures of each quantity."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from granulo_analyzer.domain import advice, uncertainty
from granulo_analyzer.domain.agglomeration import Agglomeration
from granulo_analyzer.domain.bootstrap import Replicates, Scheme, interval
from granulo_analyzer.domain.classes import Classes, coarsened
from granulo_analyzer.domain.distributions import SizeDistribution, size_distribution
from granulo_analyzer.domain.figures import Figure
from granulo_analyzer.domain.fits import Fit, fit_all, refit
from granulo_analyzer.domain.modality import Bimodality, silverman_test
from granulo_analyzer.domain.nanomaterial import NanomaterialVerdict
from granulo_analyzer.domain.settings import AnalysisSettings
from granulo_analyzer.domain.statistics import Distribution, without_nan
from granulo_analyzer.domain.uncertainty import UncertaintyBudget

_FIT_CLASSES = 512
_FIT_REPLICATES = 200
_TEST_REPLICATES = 500


@dataclass(frozen=True)
class Needed:
    """Number of particles in all that make a figure as precise as is wanted; None where unknown."""

    figure: str
    by_bootstrap: int | None
    """From the present interval, whose width falls with the square root of the number."""
    by_formula: int | None
    """For a log-normal distribution of the present GSD; None where there is no formula."""


@dataclass(frozen=True)
class Findings:
    """Of the ECD, where nothing else is said."""

    scheme: Scheme
    """What the bootstrap drew."""
    size: SizeDistribution | None
    fits: tuple[Fit, ...]
    """By rising BIC; the first is the choice."""
    bimodality: Bimodality | None
    nanomaterial: NanomaterialVerdict | None
    """None where lengths are not known in nm, or no particle was counted that is to be judged."""
    uncertainty: UncertaintyBudget | None
    advice: advice.CountAdvice
    needed: tuple[Needed, ...]
    agglomeration: Agglomeration | None
    """None where the tables tell nothing of agglomerates."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; undefined figures are None."""
        values = {
            **asdict(self),
            "size": None if self.size is None else self.size.to_json(),
            "fits": [fit.to_json() for fit in self.fits],
        }
        plain: dict[str, Any] = without_nan(values)
        return plain


def find(
    ecd: Distribution,
    classes: Classes,
    replicates: Replicates,
    settings: AnalysisSettings,
    *,
    other_rule: tuple[str, float],
    nanomaterial: NanomaterialVerdict | None,
    agglomeration: Agglomeration | None,
) -> Findings:
    """Draw the conclusions from a distribution of ECD.

    Parameters
    ----------
    ecd : Distribution
        With intervals.
    classes : Classes
        Of its values.
    replicates : Replicates
        Of these classes.
    settings : AnalysisSettings
    other_rule : (str, float)
        Name of another counting rule, and the median under it.
    nanomaterial, agglomeration
        Found before, from other columns.

    Returns
    -------
    Findings
    """
    level, effective = settings.confidence_level, ecd.effective_count
    return Findings(
        scheme=replicates.scheme,
        size=size_distribution(
            classes,
            replicates,
            quantity=ecd.quantity,
            unit=ecd.unit,
            level=level,
            effective=effective,
        ),
        fits=_fits(classes, replicates, effective, level),
        bimodality=silverman_test(
            classes.values,
            classes.mass,
            effective,
            replicates=_TEST_REPLICATES,
            seed=settings.seed,
        )
        if classes.count
        else None,
        nanomaterial=nanomaterial,
        uncertainty=uncertainty.budget(
            ecd.figures["median"],
            other_rule[1],
            other_rule[0],
            settings.uncertainty,
            unit=ecd.unit,
            scheme=replicates.scheme,
            level=level,
        ),
        advice=advice.advise(
            ecd.figures["median"],
            settings.target_precision,
            count=ecd.count,
            images=classes.images,
        ),
        needed=_needed(ecd.figures, ecd.count, settings),
        agglomeration=agglomeration,
    )


def _fits(
    classes: Classes, replicates: Replicates, effective: float, level: float
) -> tuple[Fit, ...]:
    """All fits; intervals for the families and for the choice, even where it is a mixture."""
    drawn = replicates.masses[:_FIT_REPLICATES]
    values, masses = coarsened(classes.values, np.vstack((classes.mass, drawn)), _FIT_CLASSES)
    fits = fit_all(values, masses[0], effective)
    chosen = {*fits[:1], *(fit for fit in fits if not fit.is_mixture)}
    return tuple(
        replace(fit, intervals=_intervals(fit, values, masses[1:], replicates, level))
        if fit in chosen
        else fit
        for fit in fits
    )


def _intervals(
    fit: Fit, values: Any, masses: Any, replicates: Replicates, level: float
) -> Mapping[str, tuple[float, float]]:
    samples = []
    for mass in masses:
        present = mass > 0
        # A replicate of equal values has no spread to fit.
        if present.sum() > 1:
            samples.append(list(refit(fit, values[present], mass[present]).values()))
    if not samples:
        return {}
    lower, upper = interval(np.array(samples), level, replicates)
    bounds = zip(lower.tolist(), upper.tolist(), strict=True)
    return dict(zip(fit.parameters, bounds, strict=True))


def _needed(
    figures: Mapping[str, Figure], count: int, settings: AnalysisSettings
) -> tuple[Needed, ...]:
    target, level, gsd = settings.target_precision, settings.confidence_level, figures["gsd"].value
    diameter = figures["mean_volume_d30"]
    volume = Figure(diameter.value**3, diameter.lower**3, diameter.upper**3)
    by_bootstrap = {
        "median": figures["median"],
        "mean_volume": volume,
        "volume_d50": figures["volume_d50"],
        "volume_d90": figures["volume_d90"],
    }
    by_formula = {
        "mean_volume": advice.needed_for_mean_volume(gsd, target, level),
        "volume_d50": advice.needed_for_volume_median(gsd, target, level),
    }
    return tuple(
        Needed(name, advice.needed_by_bootstrap(figure, target, count), by_formula.get(name))
        for name, figure in by_bootstrap.items()
    )
