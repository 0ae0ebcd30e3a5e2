# SPDX-License-Identifier: GPL-3.0-or-later
"""Intensity profiles along lines (M12)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.float64]
Line = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels from the upper left corner."""


def line_profile(
    image: NDArray[Any], line: Line, width_px: float = 1.0
) -> tuple[FloatArray, FloatArray]:
    """Intensity along a line (M12), interpolated bilinearly.

    Parameters
    ----------
    image : (H, W) float
    line : tuple of float
        x0, y0, x1, y1 in pixels from the upper left corner: the first pixel's centre is 0.5, 0.5.
    width_px : float
        Averages over lines side by side, 1 px apart, that span this width.

    Returns
    -------
    x_px, intensity : (N,) float64
        Distance from the line's beginning, in steps of at most 1 px, and mean grey level there.

    Raises
    ------
    ValueError
        When the line leaves the image, has no length, or the width is not positive.
    """
    height, width = image.shape
    x0, y0, x1, y1 = line
    if not (np.isfinite(line).all() and width_px > 0):
        raise ValueError(f"a profile needs finite ends and a width over 0, got {line}, {width_px}")
    if min(x0, x1) < 0 or max(x0, x1) > width or min(y0, y1) < 0 or max(y0, y1) > height:
        raise ValueError(
            f"the profile from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}) leaves the image, which is "
            f"{width} x {height} px; choose a line inside of it"
        )
    length = float(np.hypot(x1 - x0, y1 - y0))
    if length == 0:
        raise ValueError(f"the profile begins and ends at ({x0:g}, {y0:g}); give it a length")
    along = np.linspace(0, length, int(np.ceil(length)) + 1)
    lanes = max(1, round(width_px))
    aside = (np.arange(lanes) - (lanes - 1) / 2) * (width_px / lanes)
    unit_x, unit_y = (x1 - x0) / length, (y1 - y0) / length
    x = x0 + unit_x * along - unit_y * aside[:, None] - 0.5
    y = y0 + unit_y * along + unit_x * aside[:, None] - 0.5
    values = ndimage.map_coordinates(
        np.asarray(image, dtype=np.float64), (y, x), order=1, mode="nearest"
    )
    return along, np.asarray(values.mean(axis=0))
