# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances without a distance output: the paper's recipe (M20 to M22), and Otsu as a baseline.

The paper worked at 1.0309 px/nm (0.970 nm a pixel) and gave its two sizes in pixels of that scale.
They are lengths and areas of the sample, so they are kept in nanometres here and become pixels by
the image's own pixel size:

========================  ==============================  ======================================
step                      in the paper                    here
========================  ==============================  ======================================
area opening (M21)        400 px (SiO2), 600 px (TiO2)    376 nm², 565 nm²
dynamic (M22), SiO2       4 on the normalised map         4 px = 3.88 nm
dynamic (M22), TiO2       20 on the un-normalised map     20 / 3 px = 6.47 nm (weights 3 and 4: a
                                                          step of one pixel counts 3)
========================  ==============================  ======================================

So an image of 7.344 nm a pixel gets an area opening of 7 px (SiO2) or 10 px (TiO2) and a dynamic of
0.5 or 0.9 px. Where the pixel size is unknown, the area opening removes components below 5 % of
the median component's area, and the dynamic is a tenth of the median component's largest distance.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.instances import divide, peak_pixels
from granulo_core.imaging.pixels import PixelSize

_PAPER_PX_PER_NM = 1.0309
_STRAIGHT, _DIAGONAL = 3, 4
"""Borgefors' weights."""
_FAR = np.int32(1 << 28)
_MEDIAN_AREA_SHARE = 0.05
_MEDIAN_DISTANCE_SHARE = 0.1


@dataclass(frozen=True)
class PaperParams:
    """The numbers of M20 to M22; the defaults are the paper's for SiO2."""

    threshold: float = 0.51
    """A pixel belongs to a particle above this probability."""
    min_area_nm2: float = 400 / _PAPER_PX_PER_NM**2
    """Smaller components are removed."""
    dynamic_nm: float = 4 / _PAPER_PX_PER_NM
    """Depth by which two maxima of the distance must be separated to be two particles."""
    min_area_px: float | None = None
    """Overrides ``min_area_nm2``, in pixels of the image."""
    dynamic_px: float | None = None
    """Overrides ``dynamic_nm``, in pixels of the image (the normalised map)."""

    def __post_init__(self) -> None:
        """Refuse what would remove everything or nothing without saying so."""
        if not 0.0 < self.threshold < 1.0:
            raise ValueError(f"threshold must lie between 0 and 1, got {self.threshold!r}")
        for name in ("min_area_nm2", "dynamic_nm", "min_area_px", "dynamic_px"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value!r}")


SIO2 = PaperParams()
TIO2 = PaperParams(
    min_area_nm2=600 / _PAPER_PX_PER_NM**2, dynamic_nm=20 / _STRAIGHT / _PAPER_PX_PER_NM
)


def segment_probability(
    foreground: NDArray[Any],
    pixel_size: PixelSize | None = None,
    params: PaperParams = SIO2,
) -> NDArray[np.int32]:
    """Divide a probability map into particles by the paper's recipe.

    Parameters
    ----------
    foreground : (H, W) float
        Probability that a pixel belongs to a particle.
    pixel_size : PixelSize, optional
        Turns the paper's sizes into pixels; without it they follow the median component.
    params : PaperParams

    Returns
    -------
    (H, W) int32
        Labels 1 to n without gaps, 0 is background.
    """
    if foreground.ndim != 2:
        raise ValueError(f"expected one probability map, got shape {foreground.shape}")
    return segment_mask(foreground > params.threshold, pixel_size, params)


def segment_mask(
    mask: NDArray[np.bool_],
    pixel_size: PixelSize | None = None,
    params: PaperParams = SIO2,
) -> NDArray[np.int32]:
    """Area opening and distance-transform watershed of a mask (M21, M22).

    A component that is too shallow for the dynamic stays one particle.

    Parameters
    ----------
    mask : (H, W) bool
    pixel_size : PixelSize, optional
    params : PaperParams

    Returns
    -------
    (H, W) int32
        Labels 1 to n without gaps, 0 is background; touching particles have no line between them.
    """
    labels, _ = find(mask, *sizes_px(mask, pixel_size, params))
    return _renumber(labels)


def sizes_px(
    mask: NDArray[np.bool_], pixel_size: PixelSize | None = None, params: PaperParams = SIO2
) -> tuple[float, float]:
    """Smallest area and dynamic in pixels, by the pixel size or the median component.

    Parameters
    ----------
    mask : (H, W) bool
    pixel_size : PixelSize, optional
    params : PaperParams

    Returns
    -------
    min_area_px, dynamic_px : float
    """
    min_area_px, dynamic_px = params.min_area_px, params.dynamic_px
    if pixel_size is not None:
        if min_area_px is None:
            min_area_px = params.min_area_nm2 / pixel_size.area_nm2
        if dynamic_px is None:
            dynamic_px = params.dynamic_nm / pixel_size.mean_nm
    if min_area_px is None:
        _, components = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
        areas = np.bincount(components.ravel())[1:]
        min_area_px = _MEDIAN_AREA_SHARE * float(np.median(areas)) if areas.size else 0.0
    if dynamic_px is None:
        components = _open_by_area(mask, min_area_px)
        depths = np.zeros(int(components.max(initial=0)) + 1, dtype=np.int32)
        np.maximum.at(depths, components.ravel(), chamfer_distance(components > 0).ravel())
        typical = float(np.median(depths[1:])) if depths.size > 1 else 0.0
        dynamic_px = _MEDIAN_DISTANCE_SHARE * typical / _STRAIGHT
    return min_area_px, dynamic_px


def find(
    mask: NDArray[np.bool_], min_area_px: float, dynamic_px: float
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """`segment_mask` with sizes that are known already.

    Returns
    -------
    labels : (H, W) int32
        Numbered from 1, with gaps.
    peaks : (n + 1,) int64
        Flat index of the pixel of every particle's marker that is farthest from the background;
        -1 for a gap and for entry 0.
    """
    components = _open_by_area(mask, min_area_px)
    count = int(components.max(initial=0))
    if count == 0:
        return components, np.full(1, -1, dtype=np.int64)
    kept = components > 0
    distance = chamfer_distance(kept)
    markers = _extended_maxima(distance, max(1, round(dynamic_px * _STRAIGHT)))
    without = np.ones(count + 1, dtype=bool)
    without[components[markers > 0]] = False
    without[0] = False
    lonely = without[components]
    markers = np.where(lonely, components + int(markers.max()), markers).astype(np.int32)
    return divide(kept.astype(np.uint8), distance, markers), peak_pixels(markers, distance)


def otsu_watershed(pixels: NDArray[Any]) -> NDArray[np.int32]:
    """Segment a micrograph without a network: Otsu's threshold and distance-transform watershed.

    The baseline that a trained network has to beat: bright is particle, scraps are removed,
    touching particles are divided where the distance map says so. Noise makes so many scraps that
    they would be the median component; here it is the one that holds the median foreground pixel,
    and 2 % of its area is kept.

    Parameters
    ----------
    pixels : (H, W)
        Grey levels, without a data bar.

    Returns
    -------
    (H, W) int32
        Labels 1 to n without gaps, 0 is background.
    """
    grey = pixels.astype(np.float32)
    low, high = float(grey.min()), float(grey.max())
    if high <= low:
        return np.zeros(grey.shape, dtype=np.int32)
    levels = np.rint((grey - low) * (255 / (high - low))).astype(np.uint8)
    smooth = cv2.GaussianBlur(levels, (0, 0), 1.5)
    _, mask = cv2.threshold(smooth, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    _, components = cv2.connectedComponents(mask, connectivity=4)
    areas = np.sort(np.bincount(components.ravel())[1:])
    if not areas.size:
        return np.zeros(grey.shape, dtype=np.int32)
    typical = areas[np.searchsorted(np.cumsum(areas), areas.sum() / 2)]
    return segment_mask(mask > 0, params=PaperParams(min_area_px=0.02 * float(typical)))


def chamfer_distance(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Un-normalised chamfer distance to the background with Borgefors' weights 3 and 4.

    Parameters
    ----------
    mask : (H, W) bool

    Returns
    -------
    (H, W) int32
        0 on the background, 3 a pixel away from it, 4 diagonally; a third of it is the normalised
        map. What lies outside the image counts as unknown, not as background.
    """
    distance = np.where(mask, _FAR, np.int32(0)).astype(np.int32)
    _sweep(distance)
    _sweep(distance[::-1, ::-1])
    if not mask.all():
        return distance
    # No background at all: as if it began beyond the frame.
    return np.asarray(chamfer_distance(np.pad(mask, 1))[1:-1, 1:-1])


def _sweep(distance: NDArray[np.int32]) -> None:
    """One pass of the sequential algorithm, downwards, in place; rows are done at once."""
    ramp = np.arange(distance.shape[1], dtype=np.int32) * _STRAIGHT
    above: NDArray[np.int32] | None = None
    for row in distance:
        if above is not None:
            np.minimum(row, above + _STRAIGHT, out=row)
            np.minimum(row[1:], above[:-1] + _DIAGONAL, out=row[1:])
            np.minimum(row[:-1], above[1:] + _DIAGONAL, out=row[:-1])
        # Rightwards: min over i <= j of row[i] + 3 (j - i).
        row[:] = np.minimum.accumulate(row - ramp) + ramp
        above = row


def _open_by_area(mask: NDArray[np.bool_], min_area_px: float) -> NDArray[np.int32]:
    _, components = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    areas = np.bincount(components.ravel())
    areas[0] = 0
    keep = (areas > 0) & (areas >= min_area_px)
    numbers: NDArray[np.int32] = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return np.asarray(numbers[components])


def _extended_maxima(distance: NDArray[np.int32], depth: int) -> NDArray[np.int32]:
    """Number the domes that stand out by ``depth``: what lies above the h-maxima transform."""
    levels = np.minimum(distance, np.iinfo(np.uint16).max).astype(np.uint16)
    base = _reconstruct(cv2.subtract(levels, np.full_like(levels, depth)), levels)
    residue = levels - base
    count, domes = cv2.connectedComponents((residue > 0).astype(np.uint8), connectivity=8)
    stands_out = np.zeros(count, dtype=np.uint16)
    np.maximum.at(stands_out, domes.ravel(), residue.ravel())
    keep = stands_out >= depth
    keep[0] = False
    numbers: NDArray[np.int32] = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return np.asarray(numbers[domes])


def _reconstruct(seed: NDArray[np.uint16], mask: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Grey-scale reconstruction of ``seed`` under ``mask`` by repeated geodesic dilation."""
    kernel = np.ones((3, 3), dtype=np.uint8)
    current = seed
    while True:
        before = current
        for _ in range(8):
            current = cv2.min(cv2.dilate(current, kernel), mask)
        if np.array_equal(before, current):
            return np.asarray(current, dtype=np.uint16)


def _renumber(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    present = np.bincount(labels.ravel()) > 0
    present[0] = False
    numbers: NDArray[np.int32] = np.where(present, np.cumsum(present), 0).astype(np.int32)
    return numbers[labels]
