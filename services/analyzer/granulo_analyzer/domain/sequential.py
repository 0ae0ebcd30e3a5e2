# SPDX-License-Identifier: GPL-3.0-or-later
"""When a running measurement may stop: a rule that bears being looked at after every image.

Who stops at the first interval that is narrow enough stops where chance made it so, and is wrong
more often than the interval says. Three things make up for it. The standard error of the median
is the larger of two: particles drawn anew (known well, right where images are alike) and images
drawn anew (right always, known badly from few), the latter with Student's quantile. The interval
is a tenth wider. And it must have been narrow enough at `LOOKS` looks in a row. What this comes
to is measured in ``docs/statistics.md``.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from granulo_analyzer.domain import bootstrap
from granulo_analyzer.domain.advice import CountAdvice, advise
from granulo_analyzer.domain.classes import Classes, Floats, classify, quantiles
from granulo_analyzer.domain.figures import Figure
from granulo_analyzer.domain.settings import AnalysisSettings
from granulo_analyzer.domain.statistics import Distribution, summarise, with_intervals

LOOKS = 3
_WIDER = 1.1


@dataclass(frozen=True)
class Look:
    """What is known after an image."""

    images: int
    distribution: Distribution
    """ECD of all images so far, with intervals that know nothing of earlier looks."""
    advice: CountAdvice
    """With the precision of the stopping rule."""


class RunningDistribution:
    """ECD of the images so far.

    Parameters
    ----------
    settings : AnalysisSettings
    unit : str
        UCUM unit of the values.
    min_images : int
        Nothing advises to stop before.
    """

    def __init__(self, settings: AnalysisSettings, unit: str, min_images: int) -> None:
        self._settings = settings
        self._unit = unit
        self._min_images = min_images
        self._values: list[Floats] = []
        self._weights: list[Floats] = []
        self._narrow = 0

    def add(self, values: Floats, weights: Floats) -> Look:
        """Take one image in.

        Parameters
        ----------
        values : (n,) float64
            ECD of its counted particles; n may be 0.
        weights : (n,) float64
            Of the counting rule.
        """
        self._values.append(values)
        self._weights.append(weights)
        images = len(self._values)
        values, weights = np.concatenate(self._values), np.concatenate(self._weights)
        image_of = np.repeat(np.arange(images), [len(part) for part in self._values])
        classes = classify(values, weights, image_of, images)
        points = summarise(values, "ecd", self._unit, weights=weights, is_size=True)
        drawn = bootstrap.resample(classes, self._settings.replicates, self._settings.seed)
        distribution = with_intervals(points, classes, drawn, self._settings)
        median, half_width = points.median, self._half_width(classes)
        narrow = half_width <= self._settings.target_precision * median  # never where it is NaN
        self._narrow = self._narrow + 1 if narrow else 0
        advice = advise(
            Figure(median, median - half_width, median + half_width),
            self._settings.target_precision,
            count=classes.count,
            images=images,
            enough=self._narrow >= LOOKS and images >= self._min_images,
        )
        return Look(images, distribution, advice)

    def _half_width(self, classes: Classes) -> float:
        """Of the median, for a rule that looks after every image; NaN where it is not known."""
        if classes.images < 2 or classes.count < 2:
            return float("nan")
        level, degrees = self._settings.confidence_level, classes.images - 1
        by_particles = self._standard_error(classes, "particles")
        # A bootstrap of few units is too narrow by √((m − 1)/m).
        by_images = self._standard_error(classes, "images") * np.sqrt(1 + 1 / degrees)
        student = float(stdtrit(degrees, (1 + level) / 2))
        normal = bootstrap.normal_quantile(level)
        return float(_WIDER * max(normal * by_particles, student * by_images))

    def _standard_error(self, classes: Classes, scheme: bootstrap.Scheme) -> float:
        drawn = bootstrap.resample(
            classes, self._settings.replicates, self._settings.seed, scheme
        ).masses
        return float(np.nanstd(quantiles(classes.values, drawn, (0.5,))))
