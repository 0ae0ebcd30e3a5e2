# SPDX-License-Identifier: GPL-3.0-or-later
"""Which found instances are particles, what is known of each, and their final numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging import instances, traits
from granulo_core.imaging.confidence import Calibration
from granulo_segmenter.domain.blocks import BLOCK_PX, Found
from granulo_segmenter.domain.ink import Ink
from granulo_segmenter.domain.maps import Maps
from granulo_segmenter.domain.model import DISTANCE, FOREGROUND
from granulo_segmenter.domain.planes import Plane, Window, blocks

_AROUND_PX = 8
"""Contrast is measured against what lies beside an instance."""
_INKED_SHARE = 0.5
"""An instance that is covered by writing to this share is writing."""


@dataclass(frozen=True, eq=False)
class Particles:
    """Particles 1 to n of an image, in the order of their labels."""

    area_px: NDArray[np.int64]
    """(n,)"""
    boxes: NDArray[np.int64]
    """(n, 4): top, bottom, left, right, ends excluded."""
    centroid_px: NDArray[np.float64]
    """(n, 2): x and y of the centre of mass; the first pixel's centre is (0, 0)."""
    confidence: NDArray[np.float64]
    """(n,): probability that the particle is one, found with an IoU of 0.5 or more."""

    def __len__(self) -> int:
        return len(self.area_px)


def faint(
    found: Found,
    keep: NDArray[np.bool_],
    labels: Plane,
    image: Plane,
    min_contrast_fraction: float,
) -> NDArray[np.bool_]:
    """Which instances are unusually faint; see `instances.remove_faint`.

    Parameters
    ----------
    found : Found
    keep : (n,) bool
        Instances that are none do not count as neighbours.
    labels, image : Plane
    min_contrast_fraction : float

    Returns
    -------
    (n,) bool
    """
    contrast = np.full(len(found), np.nan)
    isolated = np.zeros(len(found), dtype=bool)
    for window, own, local in _groups(found, keep, labels):
        part, alone = instances.contrasts(local, image.read(window), len(own))
        contrast[own], isolated[own] = part, alone
    result = np.zeros(len(found), dtype=bool)
    result[keep] = instances.is_faint(
        contrast[keep], isolated[keep], found.area_px[keep], min_contrast_fraction
    )
    return result


def lettered(found: Found, labels: Plane, ink: Sequence[Ink], window: Window) -> NDArray[np.bool_]:
    """Which instances are burned-in letters, scale bars or boxes, or were painted in their place.

    Parameters
    ----------
    found : Found
    labels : Plane
        Of the window.
    ink : sequence of Ink
        Of the whole image.
    window : Window

    Returns
    -------
    (n,) bool
    """
    inked = np.zeros(len(found) + 1)
    for one in ink:
        part = one.cropped(window)
        if part:
            own = labels.read(part.window.within(window))[part.mask]
            inked += np.bincount(own, minlength=len(inked))
    return np.asarray(inked[1:] >= np.maximum(1, _INKED_SHARE * found.area_px))


def describe(
    found: Found, keep: NDArray[np.bool_], labels: Plane, maps: Maps, calibration: Calibration
) -> Particles:
    """Measure the particles.

    Parameters
    ----------
    found : Found
    keep : (n,) bool
        Which instances are particles.
    labels : Plane
        With the instances' numbers.
    maps : Maps
        The distance is used where it was predicted.
    calibration : Calibration

    Returns
    -------
    Particles
    """
    centroid = np.zeros((len(found), 2))
    measured = np.zeros((len(found), len(traits.TRAITS) - 1))
    for window, own, local in _groups(found, keep, labels):
        distance = maps.read(DISTANCE, window) if DISTANCE in maps.planes else None
        measured[own] = traits.measure(local, maps.read(FOREGROUND, window), distance, len(own))
        centroid[own] = _centroids(local, len(own)) + np.array([window.left, window.top])
    confidence = calibration.probability(traits.with_relative_area(measured[keep]))
    return Particles(found.area_px[keep], found.boxes[keep], centroid[keep], confidence)


def renumber(labels: Plane, keep: NDArray[np.bool_]) -> None:
    """Give the kept instances numbers without gaps, in the order of their old ones."""
    numbers = np.append(0, np.where(keep, np.cumsum(keep), 0)).astype(np.uint32)
    for block in blocks(labels.shape, BLOCK_PX):
        labels.write(block, numbers[labels.read(block)])


def _groups(
    found: Found, keep: NDArray[np.bool_], labels: Plane
) -> Iterator[tuple[Window, NDArray[np.int64], NDArray[np.int32]]]:
    """The kept instances block by block.

    Yields
    ------
    window : Window
        Holds all of the block's instances and what is around them.
    own : (k,) int
        Their places in ``found``.
    local : (h, w) int32
        They are 1 to k, all others have larger numbers.
    """
    for block in np.unique(found.block[keep]):
        own = np.flatnonzero(keep & (found.block == block))
        low, high = found.boxes[own].min(axis=0), found.boxes[own].max(axis=0)
        window = Window(int(low[0]), int(high[1]), int(low[2]), int(high[3]))
        window = window.grown(_AROUND_PX, labels.shape)
        numbers = np.append(0, np.where(keep, len(own) + np.cumsum(keep), 0)).astype(np.int32)
        numbers[own + 1] = 1 + np.arange(len(own))
        yield window, own, numbers[labels.read(window)]


def _centroids(labels: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    places = np.flatnonzero(labels)
    numbers = labels.ravel()[places]
    rows, columns = np.divmod(places.astype(np.int32), np.int32(labels.shape[1]))
    mass = np.bincount(numbers, minlength=count + 1)[1 : count + 1]
    return np.stack(
        [np.bincount(numbers, place, count + 1)[1 : count + 1] / mass for place in (columns, rows)],
        axis=1,
    )
