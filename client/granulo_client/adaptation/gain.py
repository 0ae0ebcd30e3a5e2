# SPDX-License-Identifier: Apache-2.0
"""What an adaptation gained: figures before and after, with intervals."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

_METRICS = {"ap50": "AP50", "ap75": "AP75", "f1": "DSC"}
_REPLICATES = 2000
_LEVEL = 0.95
_LEAST_IMAGES = 3
"""Fewer say nothing about how images differ."""


@dataclass(frozen=True)
class Estimate:
    """A mean over images and its interval; None where there are too few images for one."""

    value: float
    lower: float | None = None
    upper: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """Plain values."""
        return vars(self).copy()


@dataclass(frozen=True)
class Gain:
    """One figure before and after, over the same images."""

    title: str
    before: Estimate
    after: Estimate
    difference: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        parts = {"before": self.before, "after": self.after, "gain": self.difference}
        return {name: part.to_dict() for name, part in parts.items()}

    def line(self) -> str:
        """For people: ``AP50 0.712 to 0.841 (+0.129, 95 % from +0.080 to +0.180)``."""
        change = self.difference
        text = f"{self.title} {self.before.value:.3f} to {self.after.value:.3f}"
        if change.lower is None or change.upper is None:
            return f"{text} ({change.value:+.3f})"
        interval = f"{_LEVEL:.0%}".replace("%", " %")
        return (
            f"{text} ({change.value:+.3f}, {interval} from {change.lower:+.3f} to "
            f"{change.upper:+.3f})"
        )

    def verdict(self) -> str:
        """``better``, ``worse``, or ``unclear`` where the interval of the gain holds 0."""
        lower, upper = self.difference.lower, self.difference.upper
        if lower is None or upper is None or lower <= 0.0 <= upper:
            return "unclear"
        return "better" if lower > 0.0 else "worse"


def gains(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Gain]:
    """Compare two evaluations of the same images.

    Parameters
    ----------
    before, after : mapping
        From `results.evaluation_document`, with equal images in equal order.

    Returns
    -------
    dict of str to Gain
        By the metric's name; differences are taken image by image.
    """
    found = {}
    for name, title in _METRICS.items():
        first = [image["metrics"][name] for image in before["images"]]
        second = [image["metrics"][name] for image in after["images"]]
        change = [b - a for a, b in zip(first, second, strict=True)]
        found[name] = Gain(title, estimate(first), estimate(second), estimate(change))
    return found


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of a figure with its percentile bootstrap interval over the images (Efron 1979).

    Parameters
    ----------
    values : sequence of float
        One an image, at least one.

    Returns
    -------
    Estimate
        Always the same for the same values.
    """
    mean = fmean(values)
    if len(values) < _LEAST_IMAGES:
        return Estimate(mean)
    draw = random.Random(0)
    means = sorted(fmean(draw.choices(values, k=len(values))) for _ in range(_REPLICATES))
    cut = round((1.0 - _LEVEL) / 2.0 * _REPLICATES)
    return Estimate(mean, means[cut], means[-1 - cut])
