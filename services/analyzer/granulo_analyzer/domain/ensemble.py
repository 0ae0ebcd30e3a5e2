# SPDX-License-Identifier: GPL-3.0-or-later
"""From the particle tables of one or more images to the statistics of the whole set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain.counting import counted
from granulo_analyzer.domain.statistics import Distribution, summarise

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
    """Of its particle table; at least what `QUANTITIES` need, and ``touches_border``."""


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
    coverage: float
    """Share of the image that particles cover, those at the frame included."""
    distributions: Mapping[str, Distribution]


@dataclass(frozen=True)
class Ensemble:
    """The whole set."""

    unit: LengthUnit
    """``nm`` only where the pixel size of every image is known: lengths are never mixed."""
    images: tuple[ImageSummary, ...]
    distributions: Mapping[str, Distribution]
    """By quantity, over the counted particles of all images."""
    values: Mapping[str, NDArray[np.float64]]
    """By quantity, the counted values themselves, image after image."""

    @property
    def listed(self) -> int:
        """Particles in the table."""
        return sum(image.listed for image in self.images)

    @property
    def counted(self) -> int:
        """Particles in the statistics, Np."""
        return sum(image.counted for image in self.images)

    def values_of(self, quantity: str, index: int) -> NDArray[np.float64]:
        """(n,) counted values of one image."""
        start = sum(image.counted for image in self.images[:index])
        return self.values[quantity][start : start + self.images[index].counted]


def pool(images: Sequence[MeasuredImage]) -> Ensemble:
    """Pool images into one ensemble.

    Parameters
    ----------
    images : sequence of MeasuredImage

    Returns
    -------
    Ensemble
    """
    unit: LengthUnit = "nm" if all(image.pixel_size_nm for image in images) else "px"
    by_image = [_counted_values(image.columns, unit) for image in images]
    pooled = {
        quantity: np.concatenate([np.empty(0), *(values[quantity] for values in by_image)])
        for quantity in QUANTITIES
    }
    return Ensemble(
        unit=unit,
        images=tuple(
            _summary(image, values, unit) for image, values in zip(images, by_image, strict=True)
        ),
        distributions=_distributions(pooled, unit),
        values=pooled,
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


def _counted_values(
    columns: Mapping[str, NDArray[Any]], unit: LengthUnit
) -> dict[str, NDArray[np.float64]]:
    keep = counted(columns["touches_border"])
    return {quantity: columns[column_of(quantity, unit)][keep] for quantity in QUANTITIES}


def _distributions(
    values: Mapping[str, NDArray[np.float64]], unit: LengthUnit
) -> dict[str, Distribution]:
    return {
        quantity: summarise(values[quantity], quantity, unit_of(quantity, unit))
        for quantity in QUANTITIES
    }


def _summary(
    image: MeasuredImage, values: Mapping[str, NDArray[np.float64]], unit: LengthUnit
) -> ImageSummary:
    return ImageSummary(
        name=image.name,
        width_px=image.width_px,
        height_px=image.height_px,
        pixel_size_nm=image.pixel_size_nm,
        listed=len(image.columns["label"]),
        counted=len(values["ecd"]),
        coverage=float(image.columns["area_px"].sum()) / (image.width_px * image.height_px),
        distributions=_distributions(values, unit),
    )
