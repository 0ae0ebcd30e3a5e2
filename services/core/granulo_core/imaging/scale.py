# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets the input scale follow the particle size: predict, measure, rescale, predict again.

A network separates particles best that are as large as those it learnt on: small ones are merged
and large, coarsely textured ones are divided. The median size after a first pass tells by how much
to enlarge or reduce an image.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.instances import InstanceParams, decode

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(H, W) uint8 to (H, W, 2) foreground and distance."""


@dataclass(frozen=True)
class ScaleParams:
    """The particle size that the network likes best; saved with the model."""

    target_diameter_px: float = 45.0
    """Median equivalent-circle diameter after rescaling."""
    min_scale: float = 0.5
    """Most reduction."""
    max_scale: float = 2.0
    """Most enlargement."""
    tolerance: float = 1.25
    """Factors between 1 / tolerance and tolerance are not worth a second pass."""
    max_enlarged_px: int = 2**26
    """Enlarged images have no more pixels than this: memory and time stay bounded."""

    def __post_init__(self) -> None:
        """Refuse impossible bounds."""
        if not 0.0 < self.min_scale <= 1.0 <= self.max_scale:
            raise ValueError(
                "the scales must satisfy 0 < min_scale <= 1 <= max_scale, got "
                f"{self.min_scale} and {self.max_scale}"
            )
        if self.target_diameter_px <= 0 or self.tolerance < 1:
            raise ValueError("target_diameter_px must be positive and tolerance at least 1")

    def to_json(self) -> dict[str, Any]:
        """Plain values for a model's metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ScaleParams":
        """Read parameters; an unknown key is a ValueError, because it would be ignored."""
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(
                f"unknown keys in the scale parameters: {', '.join(sorted(unknown))}; "
                "this model was made for a newer version of Granulo"
            )
        return cls(**values)


def fitting_scale(labels: NDArray[np.int32], params: ScaleParams) -> float:
    """Factor by which to rescale an image, from the instances of a first pass.

    Parameters
    ----------
    labels : (H, W) int32
    params : ScaleParams

    Returns
    -------
    float
        1 when there is no particle, or the size fits already.
    """
    areas = np.bincount(labels.ravel())[1:]
    return fitting_areas(areas[areas > 0], labels.size, params)


def fitting_areas(areas_px: NDArray[np.integer[Any]], image_px: int, params: ScaleParams) -> float:
    """`fitting_scale` from the instances' areas and the number of the image's pixels."""
    if not areas_px.size:
        return 1.0
    diameter = 2.0 * np.sqrt(float(np.median(areas_px)) / np.pi)
    scale = params.target_diameter_px / diameter
    if 1.0 / params.tolerance <= scale <= params.tolerance:
        return 1.0
    scale = float(np.clip(scale, params.min_scale, params.max_scale))
    largest = float(np.sqrt(params.max_enlarged_px / image_px))
    return scale if scale <= 1.0 else max(1.0, min(scale, largest))


def rescaled(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """(H, W) grey image enlarged (above 1) or reduced (below 1)."""
    height, width = image.shape
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size, interpolation=how), dtype=np.uint8)


def restored(output: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One output map of a rescaled image, (h, w), at the image's own ``shape``."""
    how = cv2.INTER_AREA if output.shape[0] > shape[0] else cv2.INTER_LINEAR
    result = cv2.resize(output.astype(np.float32), (shape[1], shape[0]), interpolation=how)
    return np.asarray(result, dtype=np.float32)


def predict_adaptively(
    image: NDArray[np.uint8],
    predict: Predict,
    instances: InstanceParams,
    params: ScaleParams,
) -> tuple[NDArray[np.float32], float]:
    """Predict, and again at a better scale where the particles ask for one.

    Returns
    -------
    outputs : (H, W, 2) float32
        Foreground and distance at the image's size.
    scale : float
        The factor that was used.
    """
    outputs = predict(image)
    height, width = image.shape
    scale = fitting_scale(decode(outputs[..., 0], outputs[..., 1], instances, image), params)
    if scale == 1.0:
        return outputs, scale
    again = predict(rescaled(image, scale))
    channels = [restored(again[..., i], (height, width)) for i in range(again.shape[2])]
    return np.dstack(channels), scale
