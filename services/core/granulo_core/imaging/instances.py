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
from scipy.ndimage import find_objects
from skimage.segmentation import watershed

_LEVELS = 250
"""Grey levels of the quantised distance: fine enough for h, and uint8 is what OpenCV is fast on."""

_FEWEST_COMPARED = 3
"""Of fewer instances none can be called unusually faint."""


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
    """Pieces below this share of the typical area, see `typical_area`, are scraps."""
    min_contrast_fraction: float = 0.25
    """Isolated pieces of less than this share of the typical contrast are no particles."""

    def __post_init__(self) -> None:
        """Refuse thresholds that no output can satisfy."""
        for name in ("foreground_threshold", "marker_threshold", "marker_depth"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise ValueError(f"{name} must lie between 0 and 1, got {value!r}")
        if self.smoothing_sigma_px < 0 or self.min_area_px < 0:
            raise ValueError("smoothing_sigma_px and min_area_px must not be negative")
        for name in ("min_area_fraction", "min_contrast_fraction"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {value!r}")

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
    image: NDArray[np.uint8] | None = None,
) -> NDArray[np.int32]:
    """Divide the foreground into particles by marker watershed on the distance.

    Parameters
    ----------
    foreground : (H, W) float array
        Probability that a pixel belongs to a particle.
    distance : (H, W) float array
        Per-instance normalised distance, 0 at the outline and 1 in the middle.
    params : InstanceParams
    image : (H, W) uint8, optional
        What the network saw; lets faint relief of the substrate be told from particles.

    Returns
    -------
    (H, W) int32
        Labels 1 to n without gaps, 0 is background.

    Raises
    ------
    ValueError
        When the two maps differ in shape or are not two-dimensional.
    """
    labels, _ = find(foreground, distance, params)
    found = remove_scraps(labels, params.min_area_px, params.min_area_fraction)
    if image is None or params.min_contrast_fraction == 0:
        return found
    return remove_faint(found, image, params.min_contrast_fraction)


def find(
    foreground: NDArray[Any], distance: NDArray[Any], params: InstanceParams = DEFAULT_PARAMS
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Divide the foreground like `decode`, and keep scraps and faint pieces.

    Returns
    -------
    labels : (H, W) int32
        1 to n; a marker without foreground leaves a gap.
    peaks : (n + 1,) int64
        Flat index of the highest pixel of every instance's marker, the first of equals: where an
        instance is, whatever part of the image is looked at. The first entry is of no instance.
    """
    if foreground.ndim != 2 or foreground.shape != distance.shape:
        raise ValueError(
            f"foreground and distance must be two maps of one shape, got {foreground.shape} and "
            f"{distance.shape}"
        )
    mask = (foreground > params.foreground_threshold).astype(np.uint8)
    smooth = distance.astype(np.float32)
    if params.smoothing_sigma_px > 0:
        smooth = cv2.GaussianBlur(smooth, (0, 0), params.smoothing_sigma_px)
    levels = cv2.convertScaleAbs(cv2.max(smooth, 0.0), alpha=_LEVELS)
    levels *= mask
    markers = _markers(levels, params)
    return divide(mask, levels, markers), peak_pixels(markers, levels)


def divide(
    mask: NDArray[np.uint8], heights: NDArray[Any], markers: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Marker watershed that floods only the components with several markers.

    The result is that of one watershed of the whole mask, but for ties: a component with one marker
    belongs to it altogether, and one without any to nobody.

    Parameters
    ----------
    mask : (H, W) uint8
        0 or 1.
    heights : (H, W)
        Flooded from the highest down.
    markers : (H, W) int32
        Numbered from 1, 0 elsewhere, within the mask.

    Returns
    -------
    (H, W) int32
    """
    count, components, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    marked = np.flatnonzero(markers)
    step = int(markers.max(initial=0)) + 1
    pairs = np.unique(components.ravel()[marked].astype(np.int64) * step + markers.ravel()[marked])
    owner, marker = np.divmod(pairs, step)
    claims = np.bincount(owner, minlength=count)
    numbers = np.zeros(count, dtype=np.int32)
    numbers[owner] = np.where(claims[owner] == 1, marker, 0)
    labels: NDArray[np.int32] = numbers[components]
    for component in np.flatnonzero(claims > 1):
        left, top, width, height = boxes[component, :4]
        window = slice(top, top + height), slice(left, left + width)
        own = components[window] == component
        # Negative heights must not wrap.
        depths = -heights[window].astype(np.int32)
        part = watershed(depths, np.where(own, markers[window], 0), mask=own)
        labels[window][own] = part[own]
    return labels


def peak_pixels(markers: NDArray[np.int32], heights: NDArray[Any]) -> NDArray[np.int64]:
    """Flat index of the highest pixel of every marker, the first of equals; entry 0 is unused."""
    places = np.flatnonzero(markers)
    numbers = markers.ravel()[places]
    order = np.lexsort((places, -heights.ravel()[places].astype(np.int64), numbers))
    found, first = np.unique(numbers[order], return_index=True)
    peaks = np.full(int(markers.max(initial=0)) + 1, -1, dtype=np.int64)
    peaks[found] = places[order][first]
    return peaks


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
        Smallest area that is kept, as a share of the typical area of all instances.

    Returns
    -------
    (H, W) int32
    """
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    keep = is_no_scrap(areas, min_area_px, min_area_fraction)
    numbers = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return numbers[labels]


def is_no_scrap(
    areas: NDArray[np.integer[Any]], min_area_px: int, min_area_fraction: float
) -> NDArray[np.bool_]:
    """Which of these areas are large enough; zeros are of no instance. See `remove_scraps`."""
    smallest = max(float(min_area_px), min_area_fraction * typical_area(areas), 1.0)
    return np.asarray(areas >= smallest)


def typical_area(areas: NDArray[np.integer[Any]]) -> float:
    """Area-weighted median: half of all that instances cover belongs to smaller ones; 0 for none.

    Debris beside a few large particles may be most by number, and is little by area.
    """
    ordered = np.sort(areas)
    upto = np.cumsum(ordered)
    return float(ordered[np.searchsorted(upto, upto[-1] / 2)]) if areas.size else 0.0


def remove_faint(
    labels: NDArray[np.int32], image: NDArray[np.uint8], min_contrast_fraction: float
) -> NDArray[np.int32]:
    """Drop isolated instances that hardly differ from their surroundings.

    Thin loops of relief in a substrate have the outline of a particle and nothing inside. They are
    known by their contrast, compared with that of the other instances of the image, so that images
    of faint particles keep them all. Instances that touch others are left alone.

    Parameters
    ----------
    labels : (H, W) int32
        Numbered from 1 without gaps.
    image : (H, W) uint8
    min_contrast_fraction : float
        Smallest contrast that is kept, as a share of the area-weighted median contrast.

    Returns
    -------
    (H, W) int32
        Numbered from 1 without gaps.
    """
    contrast, isolated = contrasts(labels, image)
    areas = np.bincount(labels.ravel(), minlength=len(contrast) + 1)[1:]
    keep = np.append(False, ~is_faint(contrast, isolated, areas, min_contrast_fraction))
    numbers = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return numbers[labels]


def contrasts(
    labels: NDArray[np.int32], image: NDArray[np.uint8], count: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """How much instances differ from the background beside them, and whether they touch others.

    Parameters
    ----------
    labels : (H, W) int32
        Numbered from 1 without gaps.
    image : (H, W) uint8
    count : int, optional
        Only the instances up to this number are asked for.

    Returns
    -------
    contrast : (count,) float
        Grey levels brighter than the background; NaN where there is none beside it.
    isolated : (count,) bool
        Nearly all around is background.
    """
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.0)
    boxes = find_objects(labels, max_label=count or 0)
    contrast = np.full(len(boxes), np.nan)
    isolated = np.zeros(len(boxes), dtype=bool)
    for index, box in enumerate(boxes):
        window = tuple(slice(max(0, side.start - 6), side.stop + 6) for side in box)
        contrast[index], isolated[index] = _contrast(
            labels[window] == index + 1, labels[window], smooth[window]
        )
    return contrast, isolated


def is_faint(
    contrast: NDArray[np.float64],
    isolated: NDArray[np.bool_],
    areas: NDArray[np.integer[Any]],
    min_contrast_fraction: float,
) -> NDArray[np.bool_]:
    """Which instances of an image are unusually faint; see `remove_faint`."""
    known = np.flatnonzero(~np.isnan(contrast))
    if known.size < _FEWEST_COMPARED:
        return np.zeros(len(contrast), dtype=bool)
    order = known[np.argsort(contrast[known])]
    upto = np.cumsum(areas[order])
    typical = contrast[order[np.searchsorted(upto, upto[-1] / 2)]]
    return np.asarray(isolated & (contrast < min_contrast_fraction * typical))


def _contrast(
    own: NDArray[np.bool_], labels: NDArray[np.int32], image: NDArray[np.float32]
) -> tuple[float, bool]:
    """Median inside minus median of the background around, and whether that is all around."""
    around = (cv2.dilate(own.astype(np.uint8), np.ones((11, 11), np.uint8)) > 0) & ~own
    background = around & (labels == 0)
    if background.sum() <= 10:
        return float("nan"), False
    inner = cv2.erode(own.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    inside = image[inner if inner.sum() > 5 else own]
    isolated = bool(background.sum() > 0.8 * around.sum())
    return _median(inside) - _median(image[background]), isolated


def _median(values: NDArray[np.float32]) -> float:
    """The upper median; NumPy's own costs more than all the rest on a few hundred values."""
    middle = len(values) // 2
    return float(np.partition(values, middle)[middle])


def _markers(levels: NDArray[np.uint8], params: InstanceParams) -> NDArray[np.int32]:
    """Connected h-maxima of a uint8 map that reach the marker threshold.

    A maximum of dynamics h or more stands out by exactly h over the reconstruction of
    ``levels - h`` under ``levels``; lower ones stand out by less.
    """
    depth = max(1, round(params.marker_depth * _LEVELS))
    residue = cv2.subtract(levels, _reconstruct(cv2.subtract(levels, depth), levels))
    count, domes = cv2.connectedComponents((residue > 0).astype(np.uint8), connectivity=8)
    places = np.flatnonzero(residue)
    flat = domes.ravel()[places]
    tops = np.zeros(count, dtype=np.uint8)
    stands_out = np.zeros(count, dtype=np.uint8)
    np.maximum.at(tops, flat, levels.ravel()[places])
    np.maximum.at(stands_out, flat, residue.ravel()[places])
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
