# SPDX-License-Identifier: GPL-3.0-or-later
"""Noise and sharpness of a micrograph, without labels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import ndtri

_LAPLACIAN = np.outer((1.0, -2.0, 1.0), (1.0, -2.0, 1.0))
"""The difference of two Laplacians: blind to grey levels that vary linearly."""
_MEDIAN = float(ndtri(0.75))
"""Median of the absolute value of a standard normal variable."""
_SMOOTHING_PX = 1.0
"""Before edges are looked for, so that noise does not decide."""
_SIGNIFICANT = 5.0
_STRONGEST = 0.25
_FEWEST_POINTS, _MOST_POINTS = 50, 4000
_REACH_PX, _STEP_PX = 10.0, 0.5
_RISE = 2.0 * float(ndtri(0.9))
"""From 10 to 90 % of a blurred step, in standard deviations of the blur."""


def noise_level(image: NDArray[Any]) -> float:
    """Standard deviation of the noise from pixel to pixel.

    Immerkaer 1996 (Comput. Vis. Image Underst. 64, 300), with the median instead of the mean of the
    absolute response, so that edges do not count.

    Parameters
    ----------
    image : (H, W) float
        Grey levels 0 to 1, 3 x 3 px or more.

    Returns
    -------
    float
        In shares of the grey range. Of blurred noise only what is left at the finest scale.
    """
    response = ndimage.convolve(np.asarray(image, dtype=np.float32), _LAPLACIAN)[1:-1, 1:-1]
    # The mask's coefficients have a sum of squares of 36.
    return float(np.median(np.abs(response))) / _MEDIAN / 6.0


def edge_width_px(image: NDArray[Any]) -> float:
    """Width of the strongest edges, from 10 to 90 % of their rise.

    Across an edge grey levels rise without a break from the ground to the particle, or to the crest
    of its bright rim. Of a step that is blurred by s, this rise over its steepest slope is
    sqrt(2 pi) s; the width is 2.56 s. It is measured after a smoothing by 1 px, which is left in
    it: what remains of the narrow rims of sharpened images would be noise.

    Parameters
    ----------
    image : (H, W) float
        Grey levels 0 to 1.

    Returns
    -------
    float
        2.6 px of an ideal step, less of a rim that is narrower than the smoothing. Median over the
        strongest quarter of all points of edges; NaN where fewer than 50 stand out from the noise.
    """
    grey = np.asarray(image, dtype=np.float32)
    across, down = (
        ndimage.gaussian_filter(grey, _SMOOTHING_PX, order=order) for order in ((0, 1), (1, 0))
    )
    slope = np.hypot(across, down)
    # Of white noise, after the smoothing, every component of the gradient has this deviation.
    noise = noise_level(image) / (np.sqrt(8 * np.pi) * _SMOOTHING_PX**2)
    edge = (slope > _SIGNIFICANT * noise + 1e-6) & _is_peak(slope, np.abs(across) > np.abs(down))
    if np.count_nonzero(edge) < _FEWEST_POINTS:
        return float("nan")
    edge &= slope >= np.quantile(slope[edge], 1 - _STRONGEST)
    rows, columns = np.nonzero(edge)
    chosen = np.arange(min(len(rows), _MOST_POINTS)) * len(rows) // min(len(rows), _MOST_POINTS)
    rows, columns = rows[chosen], columns[chosen]
    steepest = slope[rows, columns]
    smooth = ndimage.gaussian_filter(grey, _SMOOTHING_PX)
    unit = down[rows, columns] / steepest, across[rows, columns] / steepest
    rise = _rise(smooth, rows, columns, *unit, float(noise))
    return _RISE * float(np.median(rise / steepest)) / float(np.sqrt(2 * np.pi))


def _rise(
    smooth: NDArray[np.float32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    down: NDArray[np.float32],
    across: NDArray[np.float32],
    noise: float,
) -> NDArray[np.float64]:
    """Unbroken rise through every point along its direction, but for falls by noise, (n,)."""
    reach = round(_REACH_PX / _STEP_PX)
    offsets = np.arange(-reach, reach + 1) * _STEP_PX
    profile = ndimage.map_coordinates(
        smooth,
        (rows[:, None] + down[:, None] * offsets, columns[:, None] + across[:, None] * offsets),
        order=1,
        mode="nearest",
    )
    steps = np.diff(profile, axis=1)
    total = np.zeros(len(rows))
    # Outwards from the middle on both sides.
    for side in (steps[:, reach:], steps[:, reach - 1 :: -1]):
        is_rising = np.logical_and.accumulate(side > -2 * noise * _STEP_PX, axis=1)
        total += np.cumsum(side * is_rising, axis=1).max(axis=1)
    return total


def _is_peak(values: NDArray[np.float32], across: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where values are highest along their row (``across``), elsewhere along their column."""
    peaks = [
        values >= ndimage.maximum_filter1d(values, 3, axis=axis, mode="nearest") for axis in (0, 1)
    ]
    return np.where(across, peaks[1], peaks[0])
