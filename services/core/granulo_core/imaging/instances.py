# SPDX-License-Identifier: GPL-3.0-or-later
"""From network outputs to labels: foreground and per-instance distance become instances.

The distance output is 1 in the middle of every particle and 0 at its outline, whatever the size of
the particle, so that its h-maxima mark the particles and a watershed on it divides the foreground.
"""

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

_LEVELS = 250
"""Grey levels of the quantised distance: fine enough for h, and uint8 is what OpenCV is fast on."""


@dataclass(frozen=True)
class InstanceParams:
    """Thresholds that turn network outputs into instances; saved with the model."""

    foreground_threshold: float = 0.5
    """A pixel belongs to a particle above this probability."""
    marker_threshold: float = 0.5
    """The normalised distance that the middle of a particle must reach."""
    marker_depth: float = 0.12
    """Depth h by which two middles must be separated to be two particles."""
    smoothing_sigma_px: float = 1.0
    """Gaussian smoothing of the distance before its maxima are sought."""
    min_area_px: int = 20
    """Smaller pieces are scraps."""
    min_area_fraction: float = 0.05
    """Pieces below this share of the median area are scraps."""

    def __post_init__(self) -> None:
        """Refuse thresholds that no output can satisfy."""
        for name in ("foreground_threshold", "marker_threshold", "marker_depth"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise ValueError(f"{name} must lie between 0 and 1, got {value!r}")
        if self.smoothing_sigma_px < 0 or self.min_area_px < 0:
            raise ValueError("smoothing_sigma_px and min_area_px must not be negative")
        if not 0.0 <= self.min_area_fraction < 1.0:
            raise ValueError(
                f"min_area_fraction must lie in [0, 1), got {self.min_area_fraction!r}"
            )

    def to_json(self) -> dict[str, Any]:
        """The thresholds as plain values for a model's metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "InstanceParams":
        """Read thresholds; an unknown key is a ValueError, because it would be ignored."""
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(
                f"unknown keys in the instance thresholds: {', '.join(sorted(unknown))}; "
                "this model was made for a newer version of Granulo"
            )
        return cls(**values)


DEFAULT_PARAMS = InstanceParams()


def decode(
    foreground: NDArray[Any],
    distance: NDArray[Any],
    params: InstanceParams = DEFAULT_PARAMS,
) -> NDArray[np.int32]:
    """Divide the foreground into particles by marker watershed on the distance.

    Parameters
    ----------
    foreground : (H, W) float array
        Probability that a pixel belongs to a particle.
    distance : (H, W) float array
        Per-instance normalised distance, 0 at the outline and 1 in the middle.
    params : InstanceParams

    Returns
    -------
    (H, W) int32
        Labels 1 to n without gaps, 0 is background.

    Raises
    ------
    ValueError
        When the two maps differ in shape or are not two-dimensional.
    """
    if foreground.ndim != 2 or foreground.shape != distance.shape:
        raise ValueError(
            f"foreground and distance must be two maps of one shape, got {foreground.shape} and "
            f"{distance.shape}"
        )
    mask = foreground > params.foreground_threshold
    smooth = distance.astype(np.float32)
    if params.smoothing_sigma_px > 0:
        smooth = cv2.GaussianBlur(smooth, (0, 0), params.smoothing_sigma_px)
    levels = np.clip(np.rint(smooth * _LEVELS), 0, 255).astype(np.uint8)
    levels[~mask] = 0
    markers = _markers(levels, params)
    if not markers.any():
        return np.zeros(mask.shape, dtype=np.int32)
    labels = watershed(255 - levels, markers, mask=mask)
    return remove_scraps(labels.astype(np.int32), params.min_area_px, params.min_area_fraction)


def remove_scraps(
    labels: NDArray[np.int32], min_area_px: int, min_area_fraction: float = 0.0
) -> NDArray[np.int32]:
    """Drop instances that are too small, and number the rest from 1 without gaps.

    Parameters
    ----------
    labels : (H, W) int32
    min_area_px : int
        Smallest area that is kept.
    min_area_fraction : float
        Smallest area that is kept, as a share of the median area of all instances.

    Returns
    -------
    (H, W) int32
    """
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    present = areas[areas > 0]
    if not present.size:
        return labels
    smallest = max(float(min_area_px), min_area_fraction * float(np.median(present)))
    keep = areas >= max(smallest, 1.0)
    numbers = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return numbers[labels]


def _markers(levels: NDArray[np.uint8], params: InstanceParams) -> NDArray[np.int32]:
    """Connected h-maxima of a uint8 map that reach the marker threshold.

    A maximum of dynamics h or more stands out by exactly h over the reconstruction of
    ``levels - h`` under ``levels``; lower ones stand out by less.
    """
    depth = max(1, round(params.marker_depth * _LEVELS))
    residue = cv2.subtract(levels, _reconstruct(cv2.subtract(levels, depth), levels))
    count, domes = cv2.connectedComponents((residue > 0).astype(np.uint8), connectivity=8)
    flat = domes.ravel()
    tops = np.zeros(count, dtype=np.uint8)
    stands_out = np.zeros(count, dtype=np.uint8)
    np.maximum.at(tops, flat, levels.ravel())
    np.maximum.at(stands_out, flat, residue.ravel())
    keep = (stands_out >= depth) & (tops >= round(params.marker_threshold * _LEVELS))
    keep[0] = False
    numbers = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return numbers[domes]


def _reconstruct(seed: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey-scale reconstruction of ``seed`` under ``mask`` by repeated geodesic dilation.

    Plateaus are at most as wide as a particle, so that few rounds suffice; on uint8 OpenCV makes
    this several times as fast as the queue algorithm of scikit-image.
    """
    kernel = np.ones((3, 3), dtype=np.uint8)
    current = seed
    while True:
        before = current
        for _ in range(8):
            current = cv2.min(cv2.dilate(current, kernel), mask)
        if np.array_equal(before, current):
            return np.asarray(current, dtype=np.uint8)
