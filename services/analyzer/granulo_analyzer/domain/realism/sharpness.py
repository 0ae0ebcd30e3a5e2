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
_FINE_PX, _COARSE_PX = 1.0, 2.0
_SIGNIFICANT = 5.0
_STRONGEST = 0.25
_FEWEST_POINTS = 50
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
    """Width of edges from 10 to 90 % of their step, over the strongest edges.

    Zhuo and Sim 2011 (Pattern Recognit. 44, 1852): blurring a blurred step further lowers its
    gradient by a ratio that tells its blur. Here both gradients are those after a blur, of 1 and of
    2 px, so that noise does not decide.

    Parameters
    ----------
    image : (H, W) float
        Grey levels 0 to 1.

    Returns
    -------
    float
        0 for an ideal edge; NaN where fewer than 50 points of edges stand out from the noise.
    """
    grey = np.asarray(image, dtype=np.float32)
    across, down = (ndimage.gaussian_filter(grey, _FINE_PX, order=o) for o in ((0, 1), (1, 0)))
    fine = np.hypot(across, down)
    # Of white noise, after the blur, every component of the gradient has this deviation.
    noise = noise_level(image) / (np.sqrt(8 * np.pi) * _FINE_PX**2)
    ridge = (fine > _SIGNIFICANT * noise + 1e-6) & _is_peak(fine, np.abs(across) > np.abs(down))
    if np.count_nonzero(ridge) < _FEWEST_POINTS:
        return float("nan")
    ridge &= fine >= np.quantile(fine[ridge], 1 - _STRONGEST)
    coarse = ndimage.gaussian_gradient_magnitude(grey, _COARSE_PX)
    ratio = float(np.median(fine[ridge] / np.maximum(coarse[ridge], 1e-9))) ** 2
    if ratio <= 1.0:
        return float("nan")
    variance = (_COARSE_PX**2 - ratio * _FINE_PX**2) / (ratio - 1.0)
    return _RISE * float(np.sqrt(max(0.0, variance)))


def _is_peak(values: NDArray[np.float32], across: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where values are highest along their row (``across``), elsewhere along their column."""
    peaks = [
        values >= ndimage.maximum_filter1d(values, 3, axis=axis, mode="nearest") for axis in (0, 1)
    ]
    return np.where(across, peaks[1], peaks[0])
