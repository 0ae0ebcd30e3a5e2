# SPDX-License-Identifier: GPL-3.0-or-later
"""From the particle tables of one or more images to the statistics of the whole set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain import bootstrap, counting, nanomaterial
from granulo_analyzer.domain.agglomeration import agglomeration
from granulo_analyzer.domain.classes import Floats, classify, quantiles
from granulo_analyzer.domain.counting import CountingRule
from granulo_analyzer.domain.findings import Findings, find
from granulo_analyzer.domain.settings import AnalysisSettings
from granulo_analyzer.domain.statistics import (
    Distribution,
    check_positive,
    summarise,
    with_intervals,
)

LengthUnit = Literal["nm", "px"]

LENGTH_QUANTITIES = ("ecd", "sqrt_area", "min_feret", "max_feret")
SHAPE_QUANTITIES = ("aspect_ratio", "circularity", "solidity")
QUANTITIES = (*LENGTH_QUANTITIES, "area", *SHAPE_QUANTITIES)
"""Quantities with statistics, in the order of reports."""

_UCUM = {"nm": ("nm", "nm2"), "px": ("[px]", "[px]2")}


@dataclass(frozen=True)
class MeasuredImage:
    """One image of the set with the particles found in it."""

    name: str
    width_px: int
    height_px: int
    """Rows of the micrograph; a data bar is not among them."""
    pixel_size_nm: tuple[float, float] | None
    columns: Mapping[str, NDArray[Any]]
    """Of its particle table; at least what `QUANTITIES` and the counting rule need."""


@dataclass(frozen=True)
class ImageSummary:
    """What the report says of one image."""

    name: str
    width_px: int
    height_px: int
    pixel_size_nm: tuple[float, float] | None
    listed: int
    """Particles in the table."""
    counted: int
    """Particles in the statistics."""
    at_frame: int
    """Particles that the counting rule leaves out."""
    unsure: int
    """Particles left out because the segmenter is not sure of them."""
    near_frame: int
    """Counted particles of about the frame's size."""
    coverage: float
    """Share of the image that particles cover, those at the frame included."""
    distributions: Mapping[str, Distribution]


@dataclass(frozen=True)
class Ensemble:
    """The whole set."""

    unit: LengthUnit
    """``nm`` only where the pixel size of every image is known: lengths are never mixed."""
    settings: AnalysisSettings
    images: tuple[ImageSummary, ...]
    distributions: Mapping[str, Distribution]
    """By quantity, over the counted particles of all images, with intervals."""
    values: Mapping[str, Floats]
    """By quantity, the counted values themselves, image after image."""
    weights: Floats
    """Of the counted particles."""
    findings: Findings

    @property
    def listed(self) -> int:
        """Particles in the table."""
        return sum(image.listed for image in self.images)

    @property
    def counted(self) -> int:
        """Particles in the statistics, Np."""
        return sum(image.counted for image in self.images)

    @property
    def at_frame(self) -> int:
        """Particles that the counting rule leaves out."""
        return sum(image.at_frame for image in self.images)

    @property
    def unsure(self) -> int:
        """Particles left out because the segmenter is not sure of them."""
        return sum(image.unsure for image in self.images)

    @property
    def near_frame(self) -> int:
        """Counted particles of about the frame's size."""
        return sum(image.near_frame for image in self.images)

    def warnings(self) -> list[str]:
        """What makes the figures doubtful, in sentences for people."""
        found = []
        if self.near_frame and self.settings.rule == counting.MILES_LANTUEJOUL:
            one = self.near_frame == 1
            found.append(
                f"{self.near_frame} counted {'particle is' if one else 'particles are'} wider or "
                f"higher than half of the frame and {'counts' if one else 'count'} with a large "
                "weight; larger ones may have been missed altogether. Take images of a larger "
                "field."
            )
        if self.unsure:
            verb = "particle is" if self.unsure == 1 else "particles are"
            found.append(
                f"{self.unsure} {verb} not counted for a confidence below "
                f"{self.settings.min_confidence:g}."
            )
        if self.findings.scheme == "images and particles":
            found.append(
                f"Intervals rest on {sum(image.counted > 0 for image in self.images)} images with "
                "particles: how far images differ is known "
                f"roughly only. {bootstrap.MIN_IMAGES} and more would tell."
            )
        return found

    def values_of(self, quantity: str, index: int) -> Floats:
        """(n,) counted values of one image."""
        return self.values[quantity][self._rows(index)]

    def weights_of(self, index: int) -> Floats:
        """(n,) weights of the counted particles of one image."""
        return self.weights[self._rows(index)]

    def _rows(self, index: int) -> slice:
        start = sum(image.counted for image in self.images[:index])
        return slice(start, start + self.images[index].counted)


@dataclass(frozen=True)
class Counted:
    """The particles of one image that enter the statistics."""

    image: MeasuredImage
    keep: NDArray[np.bool_]
    """(n,) which of the table."""
    weights: Floats
    """(kept,)"""
    at_frame: int
    unsure: int

    @staticmethod
    def of(image: MeasuredImage, rule: CountingRule, min_confidence: float = 0.0) -> "Counted":
        """Apply a counting rule."""
        frame = (image.width_px, image.height_px)
        weights = counting.weights(rule, image.columns, *frame)
        sure = np.ones(len(weights), dtype=np.bool_)
        if min_confidence > 0:
            sure = image.columns["confidence"] >= min_confidence
        keep = (weights > 0) & sure
        return Counted(
            image,
            keep,
            weights[keep],
            int(np.sum(weights == 0)),
            int(np.sum((weights > 0) & ~sure)),
        )

    def column(self, name: str) -> Floats:
        """(kept,) values of a column."""
        found: Floats = np.asarray(self.image.columns[name], dtype=np.float64)[self.keep]
        return found

    def summary(self, unit: LengthUnit) -> ImageSummary:
        """What the report says of the image."""
        image = self.image
        near = counting.near_frame(image.columns, image.width_px, image.height_px)
        covered = float(np.sum(image.columns["area_px"]))
        return ImageSummary(
            name=image.name,
            width_px=image.width_px,
            height_px=image.height_px,
            pixel_size_nm=image.pixel_size_nm,
            listed=len(image.columns["label"]),
            counted=len(self.weights),
            at_frame=self.at_frame,
            unsure=self.unsure,
            near_frame=int(np.sum(near & self.keep)),
            coverage=covered / (image.width_px * image.height_px),
            distributions={
                quantity: _summarise(
                    quantity, self.column(column_of(quantity, unit)), self.weights, unit
                )
                for quantity in QUANTITIES
            },
        )


def pool(images: Sequence[MeasuredImage], settings: AnalysisSettings | None = None) -> Ensemble:
    """Pool images into one ensemble.

    Parameters
    ----------
    images : sequence of MeasuredImage
    settings : AnalysisSettings, optional

    Returns
    -------
    Ensemble

    Raises
    ------
    ValueError
        When a value is not positive and finite.
    """
    settings = settings or AnalysisSettings()
    unit: LengthUnit = "nm" if all(image.pixel_size_nm for image in images) else "px"
    counted = [Counted.of(image, settings.rule, settings.min_confidence) for image in images]
    weights = np.concatenate([item.weights for item in counted])
    image_of = np.repeat(np.arange(len(counted)), [len(item.weights) for item in counted])
    values = {quantity: _pooled(counted, column_of(quantity, unit)) for quantity in QUANTITIES}
    distributions = {}
    for quantity, found in values.items():
        check_positive(found, quantity)
        classes = classify(found, weights, image_of, len(images))
        drawn = bootstrap.resample(classes, settings.replicates, settings.seed)
        points = _summarise(quantity, found, weights, unit)
        distributions[quantity] = with_intervals(points, classes, drawn, settings)
        if quantity == "ecd":
            ecd_classes, ecd_drawn = classes, drawn
    verdict = None
    if unit == "nm":
        verdict = nanomaterial.judge(
            values["min_feret"], values["max_feret"], weights, image_of, len(images), settings
        )
    hanging = None
    if all("constituents" in image.columns for image in images):
        constituents = _pooled(counted, "constituents")
        hanging = agglomeration(classify(constituents, weights, image_of, len(images)), settings)
    return Ensemble(
        unit=unit,
        settings=settings,
        images=tuple(item.summary(unit) for item in counted),
        distributions=distributions,
        values=values,
        weights=weights,
        findings=find(
            distributions["ecd"],
            ecd_classes,
            ecd_drawn,
            settings,
            other_rule=_other_rule(images, settings, unit),
            nanomaterial=verdict,
            agglomeration=hanging,
        ),
    )


def column_of(quantity: str, unit: LengthUnit) -> str:
    """Name of the table's column that holds a quantity, e.g. ``area_nm2``."""
    if quantity in SHAPE_QUANTITIES:
        return quantity
    if quantity == "area":
        return "area_nm2" if unit == "nm" else "area_px"
    return f"{quantity}_{unit}"


def unit_of(quantity: str, unit: LengthUnit) -> str:
    """UCUM unit of a quantity."""
    if quantity in SHAPE_QUANTITIES:
        return "1"
    return _UCUM[unit][quantity == "area"]


def _pooled(counted: Sequence[Counted], column: str) -> Floats:
    return np.concatenate([item.column(column) for item in counted])


def _summarise(quantity: str, values: Floats, weights: Floats, unit: LengthUnit) -> Distribution:
    return summarise(
        values,
        quantity,
        unit_of(quantity, unit),
        weights=weights,
        is_size=quantity in LENGTH_QUANTITIES,
    )


def _other_rule(
    images: Sequence[MeasuredImage], settings: AnalysisSettings, unit: LengthUnit
) -> tuple[str, float]:
    """Median ECD under the rule that corrects for the frame, or without where it is the rule."""
    rule = counting.MILES_LANTUEJOUL
    if settings.rule == rule:
        rule = counting.EXCLUDE_BORDER
    counted = [Counted.of(image, rule, settings.min_confidence) for image in images]
    values = _pooled(counted, column_of("ecd", unit))
    weights = np.concatenate([item.weights for item in counted])
    order = np.argsort(values)
    return rule.name, float(quantiles(values[order], weights[order], (0.5,))[0])
