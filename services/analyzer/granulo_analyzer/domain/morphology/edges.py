# SPDX-License-Identifier: GPL-3.0-or-later
"""How sharp the edges of particles are in the micrograph."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain.morphology.outlines import Outlines
from granulo_analyzer.domain.morphology.runs import Floats

OFFSETS_PX = (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)
"""Where the profile is taken: pixels inside and outside of the outline, a pixel apart."""


def edge_sharpness(grey: NDArray[Any], outlines: Outlines, scale: Floats) -> Floats:
    """Steepest step of the mean grey profile across the outline, over the profile's range.

    The profile is the mean over all points of the outline of the nearest pixels along its normals
    (`OFFSETS_PX`). An ideal edge rises within one pixel: 1 per pixel.

    Parameters
    ----------
    grey : (H, W) array
    outlines : Outlines
    scale : (2,) float64
        Width and height of a pixel.

    Returns
    -------
    (n,) float64
        One over the unit of the scale; its reciprocal is the width of the edge. NaN where the
        micrograph is even.
    """
    pixel = float(np.sqrt(scale[0] * scale[1]))
    tangent = (outlines.points[outlines.following] - outlines.points[outlines.before]) * scale
    length = np.hypot(tangent[:, 0], tangent[:, 1])
    tangent /= np.where(length == 0, 1.0, length)[:, None]
    # Clockwise as seen, with rows downwards: the outside is on the left.
    normal = np.stack((tangent[:, 1], -tangent[:, 0]), axis=1) * (pixel / scale)
    last = np.array(grey.shape[::-1]) - 1
    counts = np.diff(outlines.first, append=len(outlines.particle))
    profile = np.empty((len(OFFSETS_PX), len(counts)))
    for number, offset in enumerate(OFFSETS_PX):
        place = np.clip(np.floor(outlines.points + offset * normal), 0, last).astype(np.int64)
        level = grey[place[:, 1], place[:, 0]]
        profile[number] = np.add.reduceat(level, outlines.first, dtype=np.float64) / counts
    step = np.abs(np.diff(profile, axis=0)).max(axis=0) / pixel
    span = np.ptp(profile, axis=0)
    sharpness: Floats = np.where(span > 0, step / np.where(span > 0, span, 1.0), np.nan)
    return sharpness
