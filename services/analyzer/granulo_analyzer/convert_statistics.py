# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the messages of statistics and the domain: settings in, figures and verdicts out.

Results are made from the plain values that a manifest keeps, so that an analysis that was read back
and one that was just made say the same.
"""

import math
from collections.abc import Mapping
from typing import Any

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo_analyzer.domain import counting
from granulo_analyzer.domain.settings import AnalysisSettings, UncertaintyLine
from granulo_core.errors import FieldViolation, invalid_fields

MAX_REPLICATES = 100_000
_MIN_REPLICATES = 100
_RULES = {
    pb.AnalysisSettings.COUNTING_RULE_UNSPECIFIED: counting.MILES_LANTUEJOUL,
    pb.AnalysisSettings.COUNTING_RULE_MILES_LANTUEJOUL: counting.MILES_LANTUEJOUL,
    pb.AnalysisSettings.COUNTING_RULE_EXCLUDE_BORDER: counting.EXCLUDE_BORDER,
    pb.AnalysisSettings.COUNTING_RULE_COUNT_ALL: counting.COUNT_ALL,
    pb.AnalysisSettings.COUNTING_RULE_TWO_EDGES: counting.TWO_EDGES,
}
_VERDICTS = {
    "nanomaterial": pb.NanomaterialVerdict.VERDICT_NANOMATERIAL,
    "not_nanomaterial": pb.NanomaterialVerdict.VERDICT_NOT_NANOMATERIAL,
    "undecided": pb.NanomaterialVerdict.VERDICT_UNDECIDED,
}
_SUMMARY_FIGURES = ("mean", "stddev", "median", "p10", "p90")


def settings(message: pb.AnalysisSettings, field: str) -> AnalysisSettings:
    """How to count, with every default written out.

    Parameters
    ----------
    message : AnalysisSettings
    field : str
        Its path in the request, for errors.

    Raises
    ------
    GranuloError
        FIELD_INVALID that names every unusable field.
    """
    defaults = AnalysisSettings()
    found = AnalysisSettings(
        rule=_RULES.get(message.counting_rule, defaults.rule),
        confidence_level=message.confidence_level or defaults.confidence_level,
        replicates=message.bootstrap_replicates or defaults.replicates,
        seed=message.seed,
        target_precision=message.target_precision or defaults.target_precision,
        min_confidence=message.min_confidence,
        uncertainty=tuple(_line(line) for line in message.uncertainty),
    )
    # NaN is in no range.
    checks = {
        "counting_rule": (message.counting_rule in _RULES, "is no counting rule that is known"),
        "confidence_level": (
            0.5 <= found.confidence_level <= 0.999,
            f"is {found.confidence_level:g}; give 0.5 to 0.999, e.g. 0.95",
        ),
        "bootstrap_replicates": (
            _MIN_REPLICATES <= found.replicates <= MAX_REPLICATES,
            f"is {found.replicates}; give {_MIN_REPLICATES} to {MAX_REPLICATES}",
        ),
        "seed": (found.seed >= 0, f"is {found.seed}; give 0 or more"),
        "target_precision": (
            0.0001 <= found.target_precision <= 1,
            f"is {found.target_precision:g}; give a share of 0.0001 to 1, e.g. 0.05 for ±5 %",
        ),
        "min_confidence": (
            0 <= found.min_confidence <= 1,
            f"is {found.min_confidence:g}; give 0 to 1",
        ),
    }
    violations = [
        FieldViolation(f"{field}.{name}", text) for name, (good, text) in checks.items() if not good
    ]
    violations += _bad_lines(message, f"{field}.uncertainty")
    if violations:
        raise invalid_fields(violations)
    return found


def settings_message(found: AnalysisSettings) -> pb.AnalysisSettings:
    """The settings as they were used."""
    numbers = {rule.name: number for number, rule in _RULES.items()}
    return pb.AnalysisSettings(
        counting_rule=numbers[found.rule.name],
        confidence_level=found.confidence_level,
        bootstrap_replicates=found.replicates,
        seed=found.seed,
        target_precision=found.target_precision,
        min_confidence=found.min_confidence,
        uncertainty=[_line_message(line) for line in found.uncertainty],
    )


def check_units(found: AnalysisSettings, is_known: bool, field: str) -> None:
    """Refuse uncertainties in nm where lengths are in pixels.

    Raises
    ------
    GranuloError
        FIELD_INVALID that names every such line.
    """
    violations = [
        FieldViolation(
            f"{field}.uncertainty[{number}].absolute_nm",
            "is in nm, but the pixel size of an image is unknown, so that lengths are in pixels; "
            "give the pixel size, or the uncertainty as a share",
        )
        for number, line in enumerate(found.uncertainty)
        if line.absolute_nm is not None and not is_known
    ]
    if violations:
        raise invalid_fields(violations)


def summary(item: Mapping[str, Any]) -> pb.Summary:
    """Statistics of one quantity, from `Distribution.to_json`."""
    flat = {name: _number(item[name]) for name in _SUMMARY_FIGURES}
    return pb.Summary(
        quantity=item["quantity"],
        unit=item["unit"],
        count=item["count"],
        figures=[
            _figure(name, values, values["unit"])
            # Analyses of earlier versions have no intervals.
            for name, values in item.get("figures", {}).items()
        ],
        mean=flat["mean"],
        stddev=flat["stddev"],
        median=flat["median"],
        p10=flat["p10"],
        p90=flat["p90"],
    )


def nanomaterial(item: Mapping[str, Any]) -> pb.NanomaterialVerdict:
    """Verdict, from `Findings.to_json`."""
    return pb.NanomaterialVerdict(
        verdict=_VERDICTS[item["verdict"]],
        share_1_to_100_nm=_figure("share_1_to_100_nm", item["share"], "1"),
        probability=item["probability"],
    )


def uncertainty(item: Mapping[str, Any]) -> pb.UncertaintyBudget:
    """Budget, from `Findings.to_json`."""
    lines = []
    for line in item["lines"]:
        if line["given"]:
            lines.append(_line_message(UncertaintyLine(**line["given"])))
            continue
        own = pb.UncertaintyLine(name=line["name"], source=line["source"])
        if item["unit"] == "nm":
            own.absolute_nm = line["standard_uncertainty"]
        else:
            own.relative = line["standard_uncertainty"] / item["median"]
        lines.append(own)
    return pb.UncertaintyBudget(
        lines=lines,
        median=item["median"],
        combined_standard_uncertainty=item["combined"],
        coverage_factor=item["coverage_factor"],
        expanded_uncertainty=item["expanded"],
        unit=item["unit"],
    )


def advice(item: Mapping[str, Any]) -> pb.CountAdvice:
    """Advice, from `Findings.to_json`."""
    return pb.CountAdvice(
        stop=item["stop"],
        precision=_number(item["precision"]),
        target_precision=item["target_precision"],
        more_particles=item["more_particles"] or 0,
        more_images=item["more_images"] or 0,
        text=item["text"],
    )


def _figure(name: str, item: Mapping[str, Any], unit: str) -> pb.Figure:
    return pb.Figure(
        name=name,
        unit=unit,
        value=_number(item["value"]),
        lower=_number(item["lower"]),
        upper=_number(item["upper"]),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _line(message: pb.UncertaintyLine) -> UncertaintyLine:
    kind = message.WhichOneof("standard_uncertainty")
    return UncertaintyLine(
        name=message.name.strip(),
        relative=message.relative if kind == "relative" else None,
        absolute_nm=message.absolute_nm if kind == "absolute_nm" else None,
        source=message.source,
    )


def _line_message(line: UncertaintyLine) -> pb.UncertaintyLine:
    message = pb.UncertaintyLine(name=line.name, source=line.source)
    if line.relative is not None:
        message.relative = line.relative
    if line.absolute_nm is not None:
        message.absolute_nm = line.absolute_nm
    return message


def _bad_lines(message: pb.AnalysisSettings, field: str) -> list[FieldViolation]:
    found = []
    for number, line in enumerate(message.uncertainty):
        place = f"{field}[{number}]"
        kind = line.WhichOneof("standard_uncertainty")
        if not line.name.strip():
            found.append(FieldViolation(f"{place}.name", "is required: what is uncertain"))
        if kind is None:
            text = "is required: give relative or absolute_nm"
            found.append(FieldViolation(f"{place}.standard_uncertainty", text))
            continue
        value = getattr(line, kind)
        # As a share above 1 it would be no uncertainty but ignorance, most likely meant in %.
        limit = 1.0 if kind == "relative" else math.inf
        if not (0 <= value <= limit and math.isfinite(value)):
            text = f"is {value:g}; give a standard uncertainty of 0 or more" + (
                " as a share, e.g. 0.01 for 1 %" if kind == "relative" else " in nm"
            )
            found.append(FieldViolation(f"{place}.{kind}", text))
    return found
