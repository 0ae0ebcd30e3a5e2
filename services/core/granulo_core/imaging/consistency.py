# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a network's distance agrees with the instances that are made of it.

Where a network understands an image, its distance is that of the instances: 1 in the middle of
each, 0 at its outline. Where it guesses, at a scale that it has hardly seen or on a texture that it
takes for outlines, the distance fits no instances at all. That needs no truth to be seen.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_MIN_RADIUS_PX = 2.0
_NEIGHBOURS = np.ones((3, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Consistency:
    """What was compared, of an image or a part of it."""

    error: float
    """Sum of the absolute differences of the distances."""
    pixels: int
    """That belong to an instance or to the network's foreground."""

    @property
    def share(self) -> float:
        """0 to 1; 0 where there is nothing to compare."""
        return 1.0 - self.error / self.pixels if self.pixels else 0.0


def consistency(
    labels: NDArray[Any],
    foreground: NDArray[np.float32],
    distance: NDArray[np.float32],
    threshold: float = 0.5,
) -> Consistency:
    """Compare the network's distance with that of the instances.

    Parameters
    ----------
    labels : (H, W) integer array
        Instances, 0 is background, at the network's scale.
    foreground, distance : (H, W) float32
        Outputs of the network.
    threshold : float
        Of the foreground.

    Returns
    -------
    Consistency
    """
    seen = (labels > 0) | (foreground > threshold)
    error = np.abs(distance - relative_distance(labels))
    return Consistency(float(error[seen].sum(dtype=np.float64)), int(np.count_nonzero(seen)))


def together(parts: Iterable[Consistency]) -> Consistency:
    """The consistency of several parts."""
    known = list(parts)
    return Consistency(sum(part.error for part in known), sum(part.pixels for part in known))


def relative_distance(labels: NDArray[Any]) -> NDArray[np.float32]:
    """Distance of every pixel to the outline of its own instance, as a share of the largest.

    Parameters
    ----------
    labels : (H, W) integer array
        Instances, 0 is background. The frame is no outline: particles go on beyond it.

    Returns
    -------
    (H, W) float32
        0 at outlines, towards the background or another instance, to 1 in the middle of every
        instance; 0 on the background.
    """
    foreground = labels > 0
    highest, lowest = extremes(labels)
    interior = (foreground & (highest == lowest)).astype(np.uint8)
    if interior.all():
        # The distance to an outline that is not in the picture: everything is middle.
        distance = np.full(labels.shape, _MIN_RADIUS_PX, dtype=np.float32)
    else:
        distance = cv2.distanceTransform(interior, cv2.DIST_L2, 5)
    ids = labels.ravel().astype(np.int64)
    largest = np.zeros(int(ids.max(initial=0)) + 1, dtype=np.float32)
    np.maximum.at(largest, ids, distance.ravel())
    relative = distance / np.maximum(largest[ids], _MIN_RADIUS_PX).reshape(labels.shape)
    relative[~foreground] = 0.0
    return np.asarray(np.clip(relative, 0.0, 1.0), dtype=np.float32)


def extremes(labels: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Highest and lowest label among each pixel and its 8 neighbours."""
    # OpenCV has no integer morphology beyond 16 bits; float32 is exact up to 2^24 instances.
    values = labels.astype(np.float32)
    highest = cv2.dilate(values, _NEIGHBOURS, borderType=cv2.BORDER_REPLICATE)
    lowest = cv2.erode(values, _NEIGHBOURS, borderType=cv2.BORDER_REPLICATE)
    return highest, lowest
