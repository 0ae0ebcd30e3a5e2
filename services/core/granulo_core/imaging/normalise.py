# SPDX-License-Identifier: GPL-3.0-or-later
"""The one input convention of every network: any grey image becomes uint8 in the same way.

Trainer and segmenter call :func:`to_network_input` with the same :class:`InputConvention`; a model
carries its own in ``assets.extra/granulo.json``, so that an image is prepared as the network has
learnt it.
"""

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
    grey = _grey(image)
    low, high = np.percentile(grey, (convention.low_percentile, convention.high_percentile))
    if high - low <= 1e-9 * max(1.0, abs(float(high))):
        # Percentiles meet on nearly flat images with few bright pixels: use the whole range there.
        low, high = float(grey.min()), float(grey.max())
        if high - low <= 1e-9 * max(1.0, abs(high)):
            return np.zeros(grey.shape, dtype=np.uint8)
    scaled = (grey - np.float32(low)) * np.float32(convention.white_level / (high - low))
    result: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    if convention.clahe_clip_limit > 0:
        tiles = [max(1, round(side / convention.clahe_tile_px)) for side in result.shape]
        clahe = cv2.createCLAHE(
            clipLimit=convention.clahe_clip_limit, tileGridSize=(tiles[1], tiles[0])
        )
        result = clahe.apply(result).astype(np.uint8)
    return result


def _grey(image: NDArray[Any]) -> NDArray[np.float32]:
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
    grey: NDArray[np.float32] = array.astype(np.float32)
    finite = np.isfinite(grey)
    if not finite.all():
        lowest = grey[finite].min() if finite.any() else np.float32(0)
        grey = np.where(finite, grey, lowest).astype(np.float32)
    return grey
