# SPDX-License-Identifier: Apache-2.0
"""Options of all commands that state figures of an ensemble."""

import math
from collections.abc import Sequence
from typing import Annotated

import typer

from granulo.analyzer.v1.analyzer_service_pb2 import AnalysisSettings, UncertaintyLine
from granulo_client import names
from granulo_client.errors import UsageError

CountingRuleOption = Annotated[
    str,
    typer.Option(
        "--counting-rule",
        metavar="|".join(names.COUNTING_RULES),
        help="What is done about particles at the frame: miles-lantuejoul leaves them out and "
        "weights the others, exclude only leaves them out, count-all counts what is seen, "
        "two-edges counts those at the lower and the left edge.",
    ),
]
ConfidenceLevelOption = Annotated[
    str, typer.Option("--confidence-level", metavar="P", help="Of all intervals: 95% or 0.95.")
]
TargetOption = Annotated[
    str,
    typer.Option(
        "--target", metavar="P", help="Precision of the median that is wanted: 5% or 0.05."
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="S", help="Of the bootstrap.")]
MinConfidenceOption = Annotated[
    float,
    typer.Option(
        "--min-confidence",
        metavar="C",
        help="Particles that the segmenter is less sure of are not counted.",
    ),
]
UncertaintyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--uncertainty",
        metavar="NAME=U",
        help="Line of the uncertainty budget: a standard uncertainty in % of the median or in nm, "
        'e.g. "pixel size=1%" or "drift=0.5nm". May be given several times.',
    ),
]


def analysis_settings(
    *,
    counting_rule: str,
    confidence_level: str,
    target: str,
    seed: int,
    min_confidence: float = 0.0,
    uncertainty: Sequence[str] = (),
) -> AnalysisSettings:
    """Read the options.

    Raises
    ------
    UsageError
        Names the option and says what would be right.
    """
    if seed < 0:
        raise UsageError(f"--seed is {seed}; give 0 or more.")
    if not 0 <= min_confidence <= 1:
        raise UsageError(f"--min-confidence is {min_confidence:g}; give 0 to 1.")
    return AnalysisSettings(
        counting_rule=names.counting_rule(counting_rule),
        confidence_level=_share("--confidence-level", confidence_level, 0.5, 0.999),
        target_precision=_share("--target", target, 0.0001, 1.0),
        seed=seed,
        min_confidence=min_confidence,
        uncertainty=[_line(text) for text in uncertainty],
    )


def _share(option: str, text: str, least: float, most: float) -> float:
    value = _number(text.removesuffix("%"))
    if text.endswith("%"):
        value /= 100
    if not least <= value <= most:  # NaN is in no range
        raise UsageError(
            f"{option} is {text!r}; give {100 * least:g}% to {100 * most:g}%, or the same as a "
            f"share, {least:g} to {most:g}."
        )
    return value


def _line(text: str) -> UncertaintyLine:
    name, equals, figure = (part.strip() for part in text.rpartition("="))
    line = UncertaintyLine(name=name, source="given with --uncertainty")
    if figure.endswith("%"):
        value = _number(figure.removesuffix("%")) / 100
        line.relative = value
        fits = 0 <= value <= 1
    else:
        value = _number(figure.removesuffix("nm")) if figure.endswith("nm") else math.nan
        line.absolute_nm = value
        fits = 0 <= value < math.inf
    if not (name and equals and fits):
        raise UsageError(
            f"--uncertainty {text!r} is no line of a budget; give NAME=U% or NAME=Unm, e.g. "
            '"pixel size=1%" or "drift=0.5nm".'
        )
    return line


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
