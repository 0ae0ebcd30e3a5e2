# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets the input scale follow the particles: predict at several, keep the one that fits best.

A network separates particles best that are as large as those it learnt on: small ones are merged
and large, coarsely textured ones are divided. Which scale fits is told by how far the outputs agree
with the instances that are made of them (`granulo_core.imaging.consistency`); the size of what was
found does not tell, for the parts of a divided particle have a good size.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.consistency import Consistency, consistency
from granulo_core.imaging.instances import InstanceParams, decode, typical_area

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(H, W) uint8 to (H, W, 2) foreground and distance."""

_DOWN = (Fraction(11, 16), Fraction(1, 2), Fraction(5, 16))
_UP = (Fraction(3, 2),)
_RETIRED = frozenset({"target_diameter_px", "tolerance"})
"""Keys of models that were made when the median size told the scale."""


@dataclass(frozen=True)
class ScaleParams:
    """Which scales a network may be tried at; saved with the model."""

    min_scale: float = 0.3
    """Most reduction."""
    max_scale: float = 1.5
    """Most enlargement."""
    enlarge_below_px: float = 36.0
    """Enlargement is tried where the typical equivalent-circle diameter is smaller, and nothing is
    reduced so far."""
    max_enlarged_px: int = 2**26
    """Enlarged images have no more pixels than this: memory and time stay bounded."""
    average_from_px: float = 40.0
    """Outputs are averaged with those of the next smaller scale where the typical
    equivalent-circle diameter is at least this at the scale that fits best; 0 never does."""

    def __post_init__(self) -> None:
        """Refuse impossible bounds."""
        if not 0.0 < self.min_scale <= 1.0 <= self.max_scale:
            raise ValueError(
                "the scales must satisfy 0 < min_scale <= 1 <= max_scale, got "
                f"{self.min_scale} and {self.max_scale}"
            )
        for name in ("enlarge_below_px", "average_from_px"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def to_json(self) -> dict[str, Any]:
        """Plain values for a model's metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ScaleParams":
        """Read parameters; an unknown key is a ValueError, because it would be ignored."""
        known = {name: value for name, value in values.items() if name not in _RETIRED}
        unknown = set(known) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(
                f"unknown keys in the scale parameters: {', '.join(sorted(unknown))}; "
                "this model was made for a newer version of Granulo"
            )
        return cls(**known)


def fitting_scale(
    at_one: Consistency,
    consistency_at: Callable[[Fraction], Consistency],
    diameter_at: Callable[[Fraction], float],
    image_px: int,
    params: ScaleParams,
) -> Fraction:
    """Scale at which a network agrees best with itself: smaller and smaller as long as it helps.

    Parameters
    ----------
    at_one : Consistency
        At the image's own scale.
    consistency_at : callable
        Predicts at another scale.
    diameter_at : callable
        Typical equivalent-circle diameter in pixels of the image of what was found at a scale; 0:
        nothing. Asked after ``consistency_at``, or of the image's own scale.
    image_px : int
        Pixels of the image.
    params : ScaleParams

    Returns
    -------
    Fraction
        A multiple of 1/16.
    """

    def is_small(factor: Fraction) -> bool:
        return 0 < diameter_at(factor) * factor < params.enlarge_below_px

    smaller = [factor for factor in _DOWN if factor >= params.min_scale]
    larger = [
        factor
        for factor in (_UP if is_small(Fraction(1)) else ())
        if factor <= params.max_scale and factor**2 * image_px <= params.max_enlarged_px
    ]
    best, highest = Fraction(1), at_one.share
    for factors in (smaller, larger):
        for factor in factors:
            share = consistency_at(factor).share
            if share <= highest:
                break
            if factor < 1 and is_small(factor):
                # What would have to be enlarged again is not made smaller.
                return best
            best, highest = factor, share
        if best != 1:
            break
    return best


def beside(factor: Fraction, diameter_px: float, params: ScaleParams) -> Fraction | None:
    """The scale whose outputs those of the fitting scale are averaged with.

    Two looks at a particle err at different places, which takes pieces of large particles together
    and keeps neighbours apart; small particles lose what tells them apart at a smaller scale.

    Parameters
    ----------
    factor : Fraction
        Of `fitting_scale`.
    diameter_px : float
        Typical equivalent-circle diameter at the image's own scale of what was found at that one.
    params : ScaleParams

    Returns
    -------
    Fraction or None
        The next smaller scale; None where particles are too small for it, so small that the
        image was enlarged, or where there is none.
    """
    is_large = diameter_px * factor >= params.average_from_px > 0
    if factor > 1 or not is_large:
        return None
    return next((other for other in _DOWN if params.min_scale <= other < factor), None)


def typical_diameter_px(areas_px: NDArray[np.integer[Any]]) -> float:
    """Equivalent-circle diameter of an instance of typical area; 0 for none."""
    return float(2.0 * np.sqrt(typical_area(areas_px) / np.pi))


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


def consistency_at_scale(
    labels: NDArray[Any], outputs: NDArray[np.float32], scale: float, threshold: float
) -> Consistency:
    """`consistency` of an image's instances and outputs, compared at the network's scale.

    Parameters
    ----------
    labels : (H, W) integer array
    outputs : (H, W, 2) float32
        Foreground and distance at the image's scale.
    scale : float
        Pixels of the network for one of the image.
    threshold : float
        Of the foreground.
    """
    own = labels.astype(np.float32)  # exact up to 2^24 instances, and what OpenCV resizes
    if scale == 1.0:
        return consistency(own, outputs[..., 0], outputs[..., 1], threshold)
    height, width = labels.shape
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    small = cv2.resize(own, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    foreground, distance = (restored(outputs[..., index], shape) for index in range(2))
    return consistency(small, foreground, distance, threshold)


def predict_adaptively(
    image: NDArray[np.uint8],
    predict: Predict,
    instances: InstanceParams,
    params: ScaleParams,
) -> tuple[NDArray[np.float32], float]:
    """Predict at the image's own scale, and at others as long as they fit better.

    Returns
    -------
    outputs : (H, W, 2) float32
        Foreground and distance at the image's size.
    scale : float
        The factor that fits best.
    """
    known = {Fraction(1): predict(image)}

    def outputs_at(factor: Fraction) -> NDArray[np.float32]:
        if factor not in known:
            again = predict(rescaled(image, float(factor)))
            channels = [restored(again[..., i], image.shape) for i in range(again.shape[2])]
            known[factor] = np.dstack(channels)
        return known[factor]

    def labels_at(factor: Fraction) -> NDArray[np.int32]:
        outputs = outputs_at(factor)
        return decode(outputs[..., 0], outputs[..., 1], instances, image)

    def look(factor: Fraction) -> Consistency:
        threshold = instances.foreground_threshold
        return consistency_at_scale(labels_at(factor), outputs_at(factor), float(factor), threshold)

    def diameter_px(factor: Fraction) -> float:
        areas = np.bincount(labels_at(factor).ravel())[1:]
        return typical_diameter_px(areas[areas > 0])

    one = Fraction(1)
    scale = fitting_scale(look(one), look, diameter_px, image.size, params)
    other = beside(scale, diameter_px(scale), params)
    outputs = outputs_at(scale)
    if other is not None:
        outputs = (outputs + outputs_at(other)) / np.float32(2.0)
    return outputs, float(scale)
