# SPDX-License-Identifier: GPL-3.0-or-later
"""What the network's outputs say of each instance: the ground on which it is believed."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

TRAITS = (
    "foreground_mean", "foreground_rim", "distance_peak", "distance_mean", "free_rim",
    "solidity", "log_area", "relative_area",
)  # fmt: skip
"""Columns of `measure`, but for the last, which needs the other instances of the image."""


def measure(
    labels: NDArray[np.int32],
    foreground: NDArray[np.float32],
    distance: NDArray[np.float32] | None,
    count: int | None = None,
) -> NDArray[np.float64]:
    """Measure instances.

    Parameters
    ----------
    labels : (H, W) int32
        Numbered from 1 without gaps.
    foreground : (H, W) float32
        Probability.
    distance : (H, W) float32, optional
        Per-instance normalised distance; its columns are 0 without it.
    count : int, optional
        Only the instances up to this number are asked for.

    Returns
    -------
    (count, 7) float
        - foreground_mean: mean probability.
        - foreground_rim: mean probability of the outermost pixels.
        - distance_peak, distance_mean: largest and mean distance.
        - free_rim: share of the outermost pixels that touch background only.
        - solidity: area over the area of the convex hull.
        - log_area: natural logarithm of the area in px.
    """
    boxes = find_objects(labels, max_label=count or 0)
    result = np.zeros((len(boxes), len(TRAITS) - 1))
    for index, box in enumerate(boxes):
        window = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
        own = labels[window] == index + 1
        mask = own.astype(np.uint8)
        area = int(np.count_nonzero(own))
        rim = own & (_eroded(mask) == 0)
        others = ((labels[window] > 0) & ~own).astype(np.uint8)
        touching = cv2.dilate(others, np.ones((3, 3), np.uint8)) > 0
        inside = foreground[window][own]
        result[index, 0] = inside.mean()
        result[index, 1] = foreground[window][rim].mean()
        if distance is not None:
            depth = distance[window][own]
            result[index, 2:4] = depth.max(), depth.mean()
        result[index, 4] = 1.0 - np.count_nonzero(rim & touching) / np.count_nonzero(rim)
        result[index, 5] = area / _hull_area(mask)
        result[index, 6] = np.log(area)
    return result


def with_relative_area(traits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add the last column: how far an area lies from the image's median, as a logarithm."""
    log_area = traits[:, -1]
    typical = float(np.median(log_area)) if len(log_area) else 0.0
    return np.column_stack([traits, np.abs(log_area - typical)])


def _eroded(mask: NDArray[np.uint8]) -> NDArray[Any]:
    # Beyond the image's edge an instance goes on.
    return np.asarray(cv2.erode(mask, np.ones((3, 3), np.uint8)))


def _hull_area(mask: NDArray[np.uint8]) -> float:
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(np.concatenate(outlines))
    # A hull through the pixels' centres lacks half a pixel all around.
    return float(cv2.contourArea(hull) + cv2.arcLength(hull, closed=True) / 2 + 1)
