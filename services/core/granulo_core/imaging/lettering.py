# SPDX-License-Identifier: GPL-3.0-or-later
"""Letters and scale bars that were burned into a micrograph.

Graphics are drawn in one grey level at an end of the range, with edges as sharp as the raster
allows. Letters have strokes that are thin for their height and stand in lines; a scale bar is a
filled rectangle beside such a line. Particles have one or two of these properties, not all.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

_INK_SHARE = 0.06
"""Grey levels this close to an end of the range (as a share of it) may be ink."""
_LEAST_LETTER_PX = 6
_MOST_LETTER_SHARE = 0.15
"""Letters are at most this share of the image's height."""
_STROKE_SHARE = 0.3
"""Half of a stroke's width as a share of the letter's height, at most."""
_LEAST_STEP = 0.2
"""Median step from ink to what is beside it, as a share of the range."""
_LEAST_LETTERS = 3
_MOST_LETTERS = 2000
"""So many are a texture."""
_BAR_ASPECT = 4.0
_BAR_FILL = 0.9


def writing(grey: NDArray[Any]) -> NDArray[np.bool_]:
    """Find the ink of burned-in lines of letters and of their scale bars.

    Parameters
    ----------
    grey : (H, W)
        Grey levels as they are in the file.

    Returns
    -------
    (H, W) bool
    """
    levels = grey.astype(np.float32)
    low, high = float(levels.min()), float(levels.max())
    found = np.zeros(levels.shape, dtype=bool)
    if high <= low:
        return found
    levels = (levels - low) / (high - low)
    for ink in (levels >= 1.0 - _INK_SHARE, levels <= _INK_SHARE):
        found |= _lines(ink.astype(np.uint8), levels)
    return found


def _lines(ink: NDArray[np.uint8], levels: NDArray[np.float32]) -> NDArray[np.bool_]:
    count, components, boxes, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    width, height, area = boxes[:, 2], boxes[:, 3], boxes[:, 4]
    small = height <= _MOST_LETTER_SHARE * len(ink)
    small[0] = False
    is_bar = small & (height >= 2) & (width >= _BAR_ASPECT * height)
    is_bar &= area >= _BAR_FILL * width * height
    is_letter = small & ~is_bar & (height >= _LEAST_LETTER_PX) & (width <= 2 * height)
    possible = np.flatnonzero(is_bar | is_letter)
    chosen = np.zeros(count, dtype=bool)
    if len(possible) > _MOST_LETTERS:
        return np.zeros(ink.shape, dtype=bool)
    letters, bars = [], []
    for number in possible:
        left, top = boxes[number, :2]
        window = (
            slice(max(0, top - 2), top + height[number] + 2),
            slice(max(0, left - 2), left + width[number] + 2),
        )
        own = (components[window] == number).astype(np.uint8)
        if not _is_sharp(own, levels[window]):
            continue
        if is_bar[number]:
            bars.append(number)
        elif _half_stroke_px(own) <= max(1.5, _STROKE_SHARE * height[number]):
            letters.append(number)
    text = [letters[index] for line in _in_lines(boxes[letters]) for index in line]
    chosen[text] = True
    for number in bars:
        chosen[number] = any(_is_near(boxes[number], boxes[letter]) for letter in text)
    return np.asarray(chosen[components])


def _half_stroke_px(own: NDArray[np.uint8]) -> float:
    return float(cv2.distanceTransform(np.pad(own, 1), cv2.DIST_L2, 3).max())


def _is_sharp(own: NDArray[np.uint8], levels: NDArray[np.float32]) -> bool:
    """Whether two pixels beside the ink the grey level is another, on most of the outline."""
    beside = cv2.dilate(own, np.ones((5, 5), np.uint8)) - cv2.dilate(own, np.ones((3, 3), np.uint8))
    outside = levels[beside > 0]
    if not outside.size:
        return False
    ink = float(np.median(levels[own > 0]))
    return float(np.percentile(np.abs(outside - ink), 25)) >= _LEAST_STEP


def _in_lines(boxes: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Groups of letters that follow one another: of one size, at one height, near."""
    if not len(boxes):
        return []
    left, top, width, height = (boxes[:, index].astype(np.int64) for index in range(4))
    taller, lower = np.maximum.outer(height, height), np.minimum.outer(height, height)
    overlap = np.minimum.outer(top + height, top + height) - np.maximum.outer(top, top)
    gap = np.maximum.outer(left, left) - np.minimum.outer(left + width, left + width)
    follows = (taller <= 2 * lower) & (overlap >= 0.6 * lower) & (gap <= 1.5 * taller)
    count, line = connected_components(follows, directed=False)
    members = [np.flatnonzero(line == number) for number in range(count)]
    return [member for member in members if len(member) >= _LEAST_LETTERS]


def _is_near(bar: NDArray[Any], letter: NDArray[Any]) -> bool:
    reach = 3 * int(letter[3])
    across = max(bar[0], letter[0]) - min(bar[0] + bar[2], letter[0] + letter[2])
    down = max(bar[1], letter[1]) - min(bar[1] + bar[3], letter[1] + letter[3])
    return bool(across <= reach and down <= reach)
