# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding the data bar that microscopes print below a micrograph."""

from collections import Counter
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
_MIN_TOLERANCE = 1.5
"""A step of one grey level is no edge, however few levels there are."""
_MARGIN_FLATNESS = 0.9
"""Share of ground in the bar's uppermost rows, which carry no writing."""
_TEXT_FLATNESS = 0.45
"""Share of ground that even a row full of writing keeps."""
_OUTSIDE_FLATNESS = 0.6
"""Above the bar less than this share of a row has the bar's grey level."""
_MIN_TEXT = 0.003
"""Share of the bar that writing covers: without any it is a dark or bright stripe."""

_INSET_TOLERANCE = 0.01
_MIN_INSET = 0.6
"""A box that is no bar from side to side takes at least this share of the width."""
_PEN_PX = 8
_MIN_MARGIN_ROWS = 4
"""Rows of the box with hardly any writing."""
_SAME_EDGES = 0.8
"""Share of the rows with long runs that begin and end where the box does."""


def find_content_height(pixels: NDArray[Any]) -> int:
    """Find where the micrograph ends and a data bar begins.

    A bar reaches from one side of the image to the other and down to its lower edge, has one ground
    level, carries writing, and begins with a sharp edge across the width. All of it must hold:
    cutting a micrograph costs particles, a bar that was missed costs only false ones. A black or
    white box with writing near the lower edge counts, too, where it takes most of the width.

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
    read = read_rows(max(height - limit - 4, 0), height)
    foot = read.astype(np.float32)
    low, high = float(foot.min()), float(foot.max())
    if high <= low:
        return height
    if read.dtype.kind == "f":
        # Levels of whole numbers are a step of 1 apart at least; fractions may be of any size.
        foot, low, high = (foot - low) / (high - low) * 255, 0.0, 255.0
    top = _full_bar(foot, high - low)
    if top is None:
        top = _inset_bar(foot, low, high)
    return height if top is None else height - (len(foot) - top)


def _full_bar(foot: NDArray[np.float32], grey_range: float) -> int | None:
    """First row of a bar from side to side and down to the lower edge."""
    ground = _ground_level(foot, grey_range)
    tolerance = max(_TOLERANCE * grey_range, _MIN_TOLERANCE)
    flatness = (np.abs(foot - ground) <= tolerance).mean(axis=1)
    top = _top_of_bar(flatness)
    if top is None or len(foot) - top < _MIN_HEIGHT_PX:
        return None
    # A ramp ends where its levels leave the tolerance; a bar has one level up to its edge.
    drift = abs(float(np.median(foot[top])) - ground)
    if drift > tolerance / 3:
        return None
    return top if _has_writing(foot[top:], ground, grey_range) else None


def _has_writing(bar: NDArray[np.float32], ground: float, grey_range: float) -> bool:
    return bool((np.abs(bar - ground) > 0.3 * grey_range).mean() >= _MIN_TEXT)


def _inset_bar(foot: NDArray[np.float32], low: float, high: float) -> int | None:
    """First row of a black or white box with writing that nearly reaches the sides.

    Older FEI microscopes draw one into the picture; what is left of it beside and below the box is
    given up.
    """
    for ground in (low, high):
        near = np.abs(foot - ground) <= _INSET_TOLERANCE * (high - low)
        box = _box_of(near)
        if box is None:
            continue
        top, bottom, left, right = box
        inside = near[top:bottom, left:right]
        outside = np.delete(near[top:bottom], np.s_[left:right], axis=1)
        above = near[max(top - 3, 0) : max(top - 1, 0), left:right]
        if (
            bottom - top >= _MIN_HEIGHT_PX
            and (inside.mean(axis=1) >= _TEXT_FLATNESS).all()
            and outside.size
            and above.size
            and outside.mean() < _OUTSIDE_FLATNESS
            and (above.mean(axis=1) < _OUTSIDE_FLATNESS).all()
            and _has_writing(foot[top:bottom, left:right], ground, high - low)
        ):
            return top
    return None


def _box_of(near: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Rows and columns of the box whose empty rows all begin and end at the same columns."""
    width = near.shape[1]
    # A pen's gaps apart, a row with a long run is full: few rows need the closer look.
    full = np.flatnonzero(near.mean(axis=1) >= _MIN_INSET / 2)
    runs = [(int(row), *_longest_run(near[row])) for row in full]
    wide = [run for run in runs if run[2] - run[1] >= _MIN_INSET * width]
    if len(wide) < _MIN_MARGIN_ROWS:
        return None
    edges = Counter((left, right) for _, left, right in wide)
    (left, right), count = edges.most_common(1)[0]
    if count < _MIN_MARGIN_ROWS or count < _SAME_EDGES * len(wide):
        return None
    rows = [row for row, begin, end in wide if (begin, end) == (left, right)]
    return rows[0], rows[-1] + 1, left, right


def _longest_run(row: NDArray[np.bool_]) -> tuple[int, int]:
    """Begin and end of the longest run of true values, gaps as wide as a pen left out."""
    steps = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(np.int8), [0]))))
    if not steps.size:
        return (0, 0)
    begins, ends = steps[::2], steps[1::2]
    apart = begins[1:] - ends[:-1] > _PEN_PX
    begins, ends = begins[np.append(True, apart)], ends[np.append(apart, True)]
    longest = int(np.argmax(ends - begins))
    return int(begins[longest]), int(ends[longest])


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
