# SPDX-License-Identifier: GPL-3.0-or-later
"""The one input convention of every network: any grey image becomes uint8 in the same way.

Trainer and segmenter call :func:`to_network_input` with the same :class:`InputConvention`; a model
carries its own in ``assets.extra/granulo.json``, so that an image is prepared as the network has
learnt it.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class InputConvention:
    """How grey levels are mapped to the network's uint8 input."""

    low_percentile: float = 0.5
    """Grey level that becomes 0, as a percentile of the image."""
    high_percentile: float = 99.7
    """Grey level that becomes ``white_level``, as a percentile of the image."""
    white_level: int = 230
    """What the high percentile maps to; the rest up to 255 is head-room for highlights."""
    clahe_clip_limit: float = 0.0
    """Clip limit of the contrast-limited adaptive histogram equalisation (M13); 0 leaves it out."""
    clahe_tile_px: int = 128
    """Side of a CLAHE tile in pixels, so that tiles mean the same on every image size."""

    def __post_init__(self) -> None:
        """Refuse conventions that no image can satisfy."""
        if not 0.0 <= self.low_percentile < self.high_percentile <= 100.0:
            raise ValueError(
                "percentiles must satisfy 0 <= low_percentile < high_percentile <= 100, got "
                f"{self.low_percentile} and {self.high_percentile}"
            )
        if not 1 <= self.white_level <= 255:
            raise ValueError(f"white_level must lie between 1 and 255, got {self.white_level}")
        if self.clahe_clip_limit < 0 or self.clahe_tile_px < 8:
            raise ValueError(
                "clahe_clip_limit must not be negative and clahe_tile_px must be at least 8, got "
                f"{self.clahe_clip_limit} and {self.clahe_tile_px}"
            )

    def to_json(self) -> dict[str, Any]:
        """The convention as plain values for a model's metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "InputConvention":
        """Read a convention; an unknown key is a ValueError, because it would be ignored."""
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(
                f"unknown keys in the input convention: {', '.join(sorted(unknown))}; "
                "this model was made for a newer version of Granulo"
            )
        return cls(**values)


DEFAULT_CONVENTION = InputConvention()

_KEPT_PX = 2**24


def to_network_input(
    image: NDArray[Any], convention: InputConvention = DEFAULT_CONVENTION
) -> NDArray[np.uint8]:
    """Map an image of any numeric type to the network's input.

    Parameters
    ----------
    image : (H, W) or (H, W, 1 | 3 | 4) array of bool, integer or float
        Colours are reduced to their luminance, an alpha channel is ignored, values that are not
        finite count as the lowest finite one.
    convention : InputConvention

    Returns
    -------
    (H, W) uint8
        A flat image becomes all zeros: there is nothing to see in it.

    Raises
    ------
    ValueError
        When the array has another number of dimensions or channels, or no pixel.
    """
    grey = to_grey(image)
    levels = GreyLevels(grey.shape)
    levels.add(grey)
    return equalise(stretch(grey, levels.range(convention), convention), convention)


@dataclass(frozen=True)
class GreyRange:
    """Which grey levels become the network's black and white; white may be the darker one."""

    black: float
    """Becomes 0."""
    white: float
    """Becomes the convention's ``white_level``."""


class GreyLevels:
    """Grey levels of an image that comes in parts: percentiles as if it came whole.

    Whole numbers are counted, others kept, of more than 2^24 pixels those on a regular grid.

    Parameters
    ----------
    shape : (height, width)
        Of the whole image.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._step = max(1, math.ceil(math.sqrt(shape[0] * shape[1] / _KEPT_PX)))
        self._counts = np.zeros(0, dtype=np.int64)
        self._kept: list[NDArray[Any]] = []

    def add(self, part: NDArray[Any], first_row: int = 0) -> None:
        """Take in rows of the image that begin at ``first_row``; see `to_grey` for their type."""
        if part.dtype in (np.uint8, np.uint16):
            levels = int(np.iinfo(part.dtype).max) + 1
            self._counts = np.bincount(part.ravel(), minlength=levels) + (
                self._counts if self._counts.size else 0
            )
        else:
            self._kept.append(part[-first_row % self._step :: self._step, :: self._step].ravel())

    def percentile(self, percent: float) -> float:
        """Interpolated percentile, NumPy's default kind."""
        if self._kept:
            self._kept = [np.concatenate(self._kept)]
            return float(np.percentile(self._kept[0], percent))
        upto = np.cumsum(self._counts)
        place = percent / 100 * (int(upto[-1]) - 1)
        low, high = np.searchsorted(upto, [math.floor(place), math.ceil(place)], side="right")
        return float(low + (high - low) * (place - math.floor(place)))

    def range(self, convention: InputConvention, *, inverted: bool = False) -> GreyRange:
        """Find the grey levels that a convention names.

        Parameters
        ----------
        convention : InputConvention
        inverted : bool
            For dark particles on bright ground: as if the image were its own negative.

        Returns
        -------
        GreyRange
            Equal levels where the image is flat.
        """
        # Percentiles meet on nearly flat images with few bright pixels: use the whole range there.
        named = convention.low_percentile, convention.high_percentile
        for ends in (named, (0.0, 100.0)):
            black, white = (
                self.percentile(100.0 - percent if inverted else percent) for percent in ends
            )
            if abs(white - black) > 1e-9 * max(1.0, abs(white)):
                return GreyRange(black, white)
        return GreyRange(black, black)


def stretch(
    grey: NDArray[Any], levels: GreyRange, convention: InputConvention = DEFAULT_CONVENTION
) -> NDArray[np.uint8]:
    """Map grey levels (see `to_grey`) to the network's uint8, before any equalisation."""
    if levels.black == levels.white:
        return np.zeros(grey.shape, dtype=np.uint8)
    if grey.dtype in (np.uint8, np.uint16):
        # A table for all levels is exact, and far quicker than all pixels.
        table = _stretched(np.arange(np.iinfo(grey.dtype).max + 1), levels, convention)
        return np.asarray(cv2.LUT(grey, table) if grey.dtype == np.uint8 else table[grey])
    return _stretched(grey, levels, convention)


def _stretched(
    values: NDArray[Any], levels: GreyRange, convention: InputConvention
) -> NDArray[np.uint8]:
    factor = convention.white_level / (levels.white - levels.black)
    scaled = (values.astype(np.float32) - np.float32(levels.black)) * np.float32(factor)
    result: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return result


def equalise(
    image: NDArray[np.uint8], convention: InputConvention = DEFAULT_CONVENTION
) -> NDArray[np.uint8]:
    """Contrast-limited adaptive histogram equalisation (M13), where the convention has it."""
    if convention.clahe_clip_limit == 0:
        return image
    tiles = [max(1, round(side / convention.clahe_tile_px)) for side in image.shape]
    clahe = cv2.createCLAHE(
        clipLimit=convention.clahe_clip_limit, tileGridSize=(tiles[1], tiles[0])
    )
    return np.asarray(clahe.apply(image), dtype=np.uint8)


def to_grey(image: NDArray[Any]) -> NDArray[Any]:
    """One finite grey level a pixel: (H, W) uint8 and uint16 as they are, float32 otherwise."""
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[2] in (3, 4):
        weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
        array = array[..., :3].astype(np.float32) @ weights
    elif array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            f"expected one grey or RGB image with at least one pixel, got an array of shape "
            f"{np.asarray(image).shape}"
        )
    if array.dtype in (np.uint8, np.uint16):
        return array
    grey: NDArray[np.float32] = array.astype(np.float32)
    finite = np.isfinite(grey)
    if not finite.all():
        lowest = grey[finite].min() if finite.any() else np.float32(0)
        grey = np.where(finite, grey, lowest).astype(np.float32)
    return grey


def to_unit(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Grey levels from 0 to 1: integers by their type's range, others by their own."""
    if np.issubdtype(pixels.dtype, np.integer):
        return (pixels / np.float32(np.iinfo(pixels.dtype).max)).astype(np.float32)
    low, high = float(pixels.min()), float(pixels.max())
    return ((pixels - low) / max(high - low, 1e-12)).astype(np.float32)
