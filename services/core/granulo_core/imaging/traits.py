# SPDX-License-Identifier: GPL-3.0-or-later
"""What the network's outputs say of each instance: the ground on which it is believed."""

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
    if not boxes:
        return np.zeros((0, len(TRAITS) - 1))
    places = np.flatnonzero(labels)
    numbers = labels.ravel()[places]
    size = int(numbers.max()) + 1
    area = np.bincount(numbers, minlength=size)
    result = np.zeros((size, len(TRAITS) - 1))
    values = foreground.ravel()[places]
    result[:, 0] = _mean(numbers, values, area)
    rim, touching = (part.ravel()[places] for part in _rims(labels))
    at_rim = np.bincount(numbers[rim], minlength=size)
    result[:, 1] = _mean(numbers[rim], values[rim], at_rim)
    if distance is not None:
        depth = distance.ravel()[places]
        peaks = np.zeros(size, dtype=depth.dtype)
        np.maximum.at(peaks, numbers, depth)
        result[:, 2], result[:, 3] = peaks, _mean(numbers, depth, area)
    result[:, 4] = 1.0 - np.bincount(numbers[touching], minlength=size) / np.maximum(at_rim, 1)
    result[:, 6] = np.log(np.maximum(area, 1))
    result = result[1 : len(boxes) + 1]
    for index, box in enumerate(boxes):
        mask = (labels[box] == index + 1).astype(np.uint8)
        result[index, 5] = area[index + 1] / _hull_area(mask)
    return result


def _mean(
    numbers: NDArray[np.int32], values: NDArray[np.float32], count: NDArray[np.int64]
) -> NDArray[np.float64]:
    return np.asarray(np.bincount(numbers, values, len(count)) / np.maximum(count, 1))


def _rims(labels: NDArray[np.int32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Outermost pixels of instances, and those of them beside another instance.

    Beyond the image's edge an instance goes on.
    """
    kernel = np.ones((3, 3), np.uint8)
    own = labels.astype(np.float32)  # exact up to 2^24, and what OpenCV compares
    highest, lowest = cv2.dilate(own, kernel), cv2.erode(own, kernel)
    instead = np.where(labels > 0, own, np.float32(np.inf))
    touching = (labels > 0) & ((highest > own) | (cv2.erode(instead, kernel) < own))
    rim = (labels > 0) & ((highest != own) | (lowest != own))
    return rim, touching


def with_relative_area(traits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add the last column: how far an area lies from the image's median, as a logarithm."""
    log_area = traits[:, -1]
    typical = float(np.median(log_area)) if len(log_area) else 0.0
    return np.column_stack([traits, np.abs(log_area - typical)])


def _hull_area(mask: NDArray[np.uint8]) -> float:
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(np.concatenate(outlines))
    # A hull through the pixels' centres lacks half a pixel all around.
    return float(cv2.contourArea(hull) + cv2.arcLength(hull, closed=True) / 2 + 1)
