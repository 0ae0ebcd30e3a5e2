# SPDX-License-Identifier: Apache-2.0
"""Figures of ensembles as plain values and in words."""

import math
from collections.abc import Sequence
from typing import Any

from granulo.analyzer.v1.analyzer_service_pb2 import (
    Analysis,
    AnalysisSettings,
    CountAdvice,
    NanomaterialVerdict,
    Summary,
    UncertaintyBudget,
)
from granulo_client import names

_NAMES = {"p10": "D10", "p90": "D90", "gsd": "GSD"}
_VERDICTS = {
    NanomaterialVerdict.VERDICT_NANOMATERIAL: "nanomaterial",
    NanomaterialVerdict.VERDICT_NOT_NANOMATERIAL: "not_nanomaterial",
    NanomaterialVerdict.VERDICT_UNDECIDED: "undecided",
}
_VERDICT_TEXTS = {
    "nanomaterial": "a nanomaterial",
    "not_nanomaterial": "not a nanomaterial",
    "undecided": "undecided",
}


def summary_document(summary: Summary) -> dict[str, Any]:
    """Statistics of one quantity as plain values; what is not known is None."""
    return {
        "quantity": summary.quantity,
        "unit": summary.unit,
        "count": summary.count,
        "mean": _known(summary.mean),
        "stddev": _known(summary.stddev),
        "median": _known(summary.median),
        "p10": _known(summary.p10),
        "p90": _known(summary.p90),
        "figures": {
            item.name: {
                "unit": item.unit,
                "value": _known(item.value),
                "lower": _known(item.lower),
                "upper": _known(item.upper),
            }
            for item in summary.figures
        },
    }


def advice_document(advice: CountAdvice) -> dict[str, Any]:
    """Advice as plain values."""
    return {
        "stop": advice.stop,
        "precision": _known(advice.precision),
        "target_precision": advice.target_precision,
        "more_particles": advice.more_particles,
        "more_images": advice.more_images,
        "text": advice.text,
    }


def analysis_statement(analysis: Analysis) -> dict[str, Any]:
    """What an analysis concludes, as plain values."""
    rule = _rule(analysis.settings)
    found: dict[str, Any] = {
        "counting_rule": rule,
        "confidence_level": analysis.settings.confidence_level,
        "nanomaterial": None,
        "uncertainty": None,
        "advice": advice_document(analysis.advice) if analysis.HasField("advice") else None,
    }
    if analysis.HasField("nanomaterial"):
        share = analysis.nanomaterial.share_1_to_100_nm
        found["nanomaterial"] = {
            "verdict": _VERDICTS.get(analysis.nanomaterial.verdict, ""),
            "share": share.value,
            "lower": _known(share.lower),
            "upper": _known(share.upper),
            "probability": analysis.nanomaterial.probability,
        }
    if analysis.HasField("uncertainty"):
        budget = analysis.uncertainty
        found["uncertainty"] = {
            "unit": budget.unit,
            "median": budget.median,
            "lines": [_line_document(line) for line in budget.lines],
            "combined_standard_uncertainty": budget.combined_standard_uncertainty,
            "coverage_factor": budget.coverage_factor,
            "expanded_uncertainty": budget.expanded_uncertainty,
        }
    return found


def analysis_lines(analysis: Analysis) -> list[str]:
    """What an analysis found, for people."""
    level = percent(analysis.settings.confidence_level)
    lines = [
        f"{item.quantity}: {ensemble_text(item, level)} (Np = {item.count})"
        for item in analysis.summaries
        if item.quantity in ("sqrt_area", "ecd") and item.count
    ]
    lines.append(f"counting rule: {_rule(analysis.settings)}")
    if analysis.HasField("uncertainty"):
        lines.append(_budget_text(analysis.uncertainty))
    if analysis.HasField("nanomaterial"):
        share = analysis.nanomaterial.share_1_to_100_nm
        verdict = _VERDICT_TEXTS.get(_VERDICTS.get(analysis.nanomaterial.verdict, ""), "")
        lines.append(
            f"EC 2022/C 229/01: {verdict}; {percent(share.value)} of the particles have a "
            f"dimension of 1 to 100 nm ({level}: {percent(share.lower)} to {percent(share.upper)})"
        )
    if analysis.HasField("advice"):
        lines.append(analysis.advice.text)
    return lines


def ensemble_text(summary: Summary, level: str) -> str:
    """The most wanted figures of a quantity in words.

    Parameters
    ----------
    summary : Summary
    level : str
        Confidence level in words.
    """
    shown = ("median", "p10", "p90", "gsd")
    return ", ".join(figure_text(summary, name, level) for name in shown)


def figure_text(summary: Summary, name: str, level: str = "") -> str:
    """One figure in words: ``median 58.2 nm (95 %: 56.1 to 60.4)``.

    Parameters
    ----------
    summary : Summary
    name : str
        Of the figure; one that is not there is left out.
    level : str
        Confidence level in words; without it no interval is told.
    """
    for item in summary.figures:
        if item.name == name:
            unit = shown_unit(item.unit)
            text = f"{_NAMES.get(name, name)} {item.value:.4g} {unit}".rstrip()
            if level and math.isfinite(item.lower):
                text += f" ({level}: {item.lower:.4g} to {item.upper:.4g})"
            return text
    return ""


def shown_unit(unit: str) -> str:
    """A UCUM unit for people."""
    return "" if unit == "1" else unit.strip("[]")


def percent(share: float) -> str:
    """A share for people."""
    return f"{100 * share:.3g} %"


def _rule(settings: AnalysisSettings) -> str:
    known: Sequence[str] = [
        name for name, rule in names.COUNTING_RULES.items() if rule == settings.counting_rule
    ]
    return known[0] if known else "unknown"


def _line_document(line: Any) -> dict[str, Any]:
    kind = line.WhichOneof("standard_uncertainty")
    return {"name": line.name, kind: getattr(line, kind), "source": line.source}


def _budget_text(budget: UncertaintyBudget) -> str:
    unit = shown_unit(budget.unit)
    lines = ", ".join(line.name for line in budget.lines)
    return (
        f"uncertainty of the median ECD: ±{budget.expanded_uncertainty:.3g} {unit} "
        f"(k = {budget.coverage_factor:.3g}; {lines})"
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
