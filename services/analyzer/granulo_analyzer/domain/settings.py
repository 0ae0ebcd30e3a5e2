# SPDX-License-Identifier: GPL-3.0-or-later
"""How an analysis counts and what it states."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from granulo_analyzer.domain.counting import MILES_LANTUEJOUL, RULES, CountingRule


@dataclass(frozen=True)
class UncertaintyLine:
    """One line of an uncertainty budget (GUM); one of the two figures is given."""

    name: str
    """``pixel-size calibration``"""
    relative: float | None = None
    """Standard uncertainty as a share of the median diameter."""
    absolute_nm: float | None = None
    source: str = ""
    """Where the figure comes from."""


@dataclass(frozen=True)
class AnalysisSettings:
    """What changes the figures of an analysis beside its images."""

    rule: CountingRule = MILES_LANTUEJOUL
    confidence_level: float = 0.95
    """Of every interval."""
    replicates: int = 1000
    """Of the bootstrap."""
    seed: int = 0
    target_precision: float = 0.05
    """Half width of the median's interval to reach, as a share of the median."""
    min_confidence: float = 0.0
    """Particles that the segmenter is less sure of are listed but not counted; 0 counts all."""
    uncertainty: tuple[UncertaintyLine, ...] = ()
    """Lines of the budget that only the user knows."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "rule": self.rule.name}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "AnalysisSettings":
        """Read what `to_json` wrote."""
        lines = tuple(UncertaintyLine(**line) for line in values["uncertainty"])
        return cls(**{**values, "rule": RULES[values["rule"]], "uncertainty": lines})
