# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding the data bar that microscopes print below a micrograph."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_SHARE = 0.25
"""A bar takes at most this share of the image's height."""
_MAX_HEIGHT_PX = 1024
_MIN_HEIGHT_PX = 12
_TOLERANCE = 0.03
"""Grey levels this close to the bar's own (as a share of the grey range) belong to its ground."""
_MARGIN_FLATNESS = 0.9
"""Share of ground in the bar's uppermost rows, which carry no writing."""
_TEXT_FLATNESS = 0.45
"""Share of ground that even a row full of writing keeps."""
_OUTSIDE_FLATNESS = 0.6
"""Above the bar less than this share of a row has the bar's grey level."""
_MIN_TEXT = 0.003
"""Share of the bar that writing covers: without any it is a dark or bright stripe."""


def find_content_height(pixels: NDArray[Any]) -> int:
    """Find where the micrograph ends and a data bar begins.

    A bar reaches from one side of the image to the other and down to its lower edge, has one ground
    level, carries writing, and begins with a sharp edge across the width. All of it must hold:
    cutting a micrograph costs particles, a bar that was missed costs only false ones.

    Parameters
    ----------
    pixels : (H, W) array

    Returns
    -------
    int
        Rows of micrograph; H when there is no bar.
    """
    return find_content_height_in(lambda top, bottom: pixels[top:bottom], pixels.shape)


def find_content_height_in(
    read_rows: Callable[[int, int], NDArray[Any]], shape: tuple[int, ...]
) -> int:
    """Like `find_content_height`, for an image of which only the foot is read.

    Parameters
    ----------
    read_rows : callable
        Gives the rows ``[top, bottom)``.
    shape : (int, int)
        Height and width of the image.
    """
    height, width = shape
    limit = min(int(height * _MAX_SHARE), _MAX_HEIGHT_PX)
    if limit < _MIN_HEIGHT_PX or width < 2 * _MIN_HEIGHT_PX:
        return height
    foot = read_rows(max(height - limit - 4, 0), height).astype(np.float32)
    low, high = float(foot.min()), float(foot.max())
    if high <= low:
        return height
    tolerance = _TOLERANCE * (high - low)
    ground = _ground_level(foot, high - low)
    near = np.abs(foot - ground) <= tolerance
    flatness = near.mean(axis=1)
    top = _top_of_bar(flatness)
    if top is None or len(foot) - top < _MIN_HEIGHT_PX:
        return height
    bar = foot[top:]
    writing = np.abs(bar - ground) > 0.3 * (high - low)
    if writing.mean() < _MIN_TEXT:
        return height
    return height - len(bar)


def _ground_level(foot: NDArray[np.float32], grey_range: float) -> float:
    """The commonest grey level of the lowest rows."""
    lowest = foot[-_MIN_HEIGHT_PX:].ravel()
    step = grey_range / 128
    bins = np.rint((lowest - lowest.min()) / step).astype(np.int64)
    commonest = np.bincount(bins).argmax()
    return float(np.median(lowest[bins == commonest]))


def _top_of_bar(flatness: NDArray[np.floating[Any]]) -> int | None:
    """Highest row of the flat block at the lower edge, if it begins sharply.

    Rows of writing keep part of the ground; a frame or a rule across the bar, up to three rows
    thick, keeps none and is passed over.
    """
    top = None
    strangers = 0
    for row in range(len(flatness) - 1, 2, -1):
        if flatness[row] < _TEXT_FLATNESS:
            strangers += 1
            if strangers > 3:
                break
            continue
        strangers = 0
        outside = flatness[row - 3 : row - 1]
        if flatness[row] >= _MARGIN_FLATNESS and (outside < _OUTSIDE_FLATNESS).all():
            top = row
    else:
        # The block goes on above the largest bar there is: a dark or bright micrograph.
        return None
    return top
