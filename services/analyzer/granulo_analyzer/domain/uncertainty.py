# SPDX-License-Identifier: GPL-3.0-or-later
"""Uncertainty budget of the median ECD after the GUM (JCGM 100:2008).

Lines come from the sample or from the user, never from an assumption: what nobody has measured is
not in the budget, and the budget says what it holds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from granulo_analyzer.domain.bootstrap import normal_quantile
from granulo_analyzer.domain.figures import Figure
from granulo_analyzer.domain.settings import UncertaintyLine


@dataclass(frozen=True)
class BudgetLine:
    """One contribution."""

    name: str
    standard_uncertainty: float
    """In the unit of the budget."""
    source: str
    given: UncertaintyLine | None
    """The user's line as it was given; None for one of the sample's."""


@dataclass(frozen=True)
class UncertaintyBudget:
    """Combined uncertainty of the median ECD."""

    unit: str
    """UCUM."""
    median: float
    lines: tuple[BudgetLine, ...]
    combined: float
    """Standard uncertainty: root of the sum of squares; the lines are taken as uncorrelated."""
    coverage_factor: float
    """Of the normal distribution at the confidence level."""
    expanded: float


def budget(
    median: Figure,
    other_rule_median: float,
    other_rule: str,
    given: Sequence[UncertaintyLine],
    *,
    unit: str,
    scheme: str,
    level: float,
) -> UncertaintyBudget | None:
    """Put the lines together.

    Parameters
    ----------
    median : Figure
        With its standard error.
    other_rule_median : float
        Of the same particles under another counting rule.
    other_rule : str
        That rule's name.
    given : sequence of UncertaintyLine
        The user's lines; absolute ones only with nm.
    unit : str
        UCUM unit of the median.
    scheme : str
        What the bootstrap drew.
    level : float
        Confidence level.

    Returns
    -------
    UncertaintyBudget or None
        None where the median has no standard error: for less than two particles.
    """
    if not math.isfinite(median.standard_error):
        return None
    lines = [
        BudgetLine("particle count", median.standard_error, f"bootstrap over {scheme}", None),
        # A half width of the rectangular distribution, GUM 4.3.7.
        BudgetLine(
            "counting rule",
            abs(median.value - other_rule_median) / math.sqrt(3),
            f"the median under {other_rule} differs by so much times √3",
            None,
        ),
    ]
    for line in given:
        size = line.absolute_nm if line.relative is None else line.relative * median.value
        assert size is not None  # one of the two is given
        lines.append(BudgetLine(line.name, size, line.source or "given by the user", line))
    combined = math.hypot(*(line.standard_uncertainty for line in lines))
    factor = normal_quantile(level)
    return UncertaintyBudget(
        unit=unit,
        median=median.value,
        lines=tuple(lines),
        combined=combined,
        coverage_factor=factor,
        expanded=factor * combined,
    )
