# SPDX-License-Identifier: GPL-3.0-or-later
"""Letters and scale bars that were burned into a micrograph.

Graphics are drawn in one grey level, mostly at an end of the range, with edges as sharp as the
raster allows. Letters have strokes that are thin for their height; they stand in lines on a common
foot, or alone in a corner as the label of a figure's panel. A scale bar is a filled rectangle
beside a line of letters, a box a filled rectangle around them. Particles have one or two of these
properties, not all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

_INK_LEVELS = (0.94, 0.8, 0.65)
"""Where ink begins, as shares of the range: full ink, and letters of a duller one."""
_LEAST_LETTER_PX = 6
_MOST_LETTER_SHARE = 0.22
"""Letters are at most this share of the image's height."""
_STROKE_SHARE = 0.3
"""Half of a stroke's width as a share of the letter's height, at most."""
_LEAST_STEP = 0.2
"""Median step from ink to what is beside it, as a share of the range."""
_LEAST_LETTERS = 3
_MOST_LETTERS = 2000
"""So many are a texture."""
_ONE_LEVEL = 0.04
"""How far the brightest pixels of a line's letters may differ, as a share of the range."""
_LEAST_OPEN = 2
"""Letters without a hole in a line: every unit of length has them."""
_ONE_FOOT = 0.1
"""How far the feet of a line's letters may differ, as a share of their height."""
_CORNER_SHARE = 0.08
"""Labels of panels are this near to two of the image's sides, as a share of its width."""
_MOST_SOLID = 0.85
"""Share of its convex hull that a lone letter fills, at most."""
_LEAST_STROKE = 4.0
"""Area of a lone letter in inscribed circles, at least; of a gap between three spheres it is 2."""
_BAR_ASPECT = 4.0
_BAR_FILL = 0.9
_BOX_FILL = 0.6
_BOX_OUTLINE = 0.9
_BOX_FULL = 0.25
"""Share of a box's fill that is full ink, at least: small letters blur into it."""
_FRAYED_PX = 2
_LEAST_BOX_PX = 12
_MOST_BOX_SHARE = 0.4
"""Sides of a box as a share of the image's."""


@dataclass(frozen=True, eq=False)
class Writing:
    """What was burned into a micrograph."""

    ink: NDArray[np.bool_]
    """(H, W) strokes of letters and scale bars."""
    boxes: NDArray[np.bool_]
    """(H, W) filled rectangles with letters, as a whole."""


def writing(grey: NDArray[Any]) -> Writing:
    """Find burned-in letters, their scale bars and the boxes that they stand in.

    Parameters
    ----------
    grey : (H, W)
        Grey levels as they are in the file.

    Returns
    -------
    Writing
    """
    levels = grey.astype(np.float32)
    low, high = float(levels.min()), float(levels.max())
    found = Writing(np.zeros(levels.shape, dtype=bool), np.zeros(levels.shape, dtype=bool))
    if high <= low:
        return found
    levels = (levels - low) / (high - low)
    for shown in (levels, 1 - levels):
        for least in _INK_LEVELS:
            _mark(shown, least, found)
    return found


@dataclass(frozen=True, eq=False)
class _Ink:
    """Connected patches of ink."""

    shown: NDArray[np.float32]
    """(H, W) levels, 1 where ink is brightest."""
    patches: NDArray[np.int32]
    boxes: NDArray[np.int32]
    """(n, 5) left, top, width, height, area of each; the first is what is no ink."""

    def window(self, number: int, margin_px: int) -> tuple[slice, slice]:
        left, top, width, height = self.boxes[number, :4]
        return (
            slice(max(0, top - margin_px), top + height + margin_px),
            slice(max(0, left - margin_px), left + width + margin_px),
        )

    def patch(self, number: int, margin_px: int) -> NDArray[np.uint8]:
        own: NDArray[np.uint8] = (self.patches[self.window(number, margin_px)] == number).astype(
            np.uint8
        )
        return own

    def level(self, number: int) -> float:
        """Of the middle of a patch's strokes."""
        inside = self.shown[self.window(number, 0)][self.patch(number, 0) > 0]
        return float(np.percentile(inside, 90))

    def is_sharp(self, number: int) -> bool:
        """Whether two pixels beside it the grey level is another, on most of the outline."""
        own = self.patch(number, 2)
        wide, near = (cv2.dilate(own, np.ones((side, side), np.uint8)) for side in (5, 3))
        window = self.shown[self.window(number, 2)]
        outside = window[wide > near]
        if not outside.size:
            return False
        ink = float(np.median(window[own > 0]))
        return float(np.percentile(ink - outside, 25)) >= _LEAST_STEP

    def has_hole(self, number: int) -> bool:
        outside = np.pad(1 - self.patch(number, 0), 1, constant_values=1)
        return int(cv2.connectedComponents(outside, connectivity=4)[0]) > 2

    def half_stroke_px(self, number: int) -> float:
        padded = np.pad(self.patch(number, 0), 1)
        return float(cv2.distanceTransform(padded, cv2.DIST_L2, 3).max())

    def has_thin_strokes(self, number: int) -> bool:
        return bool(self.half_stroke_px(number) <= max(1.5, _STROKE_SHARE * self.boxes[number, 3]))


def _mark(shown: NDArray[np.float32], least: float, found: Writing) -> None:
    """Add what is drawn in ink of at least this level."""
    count, patches, boxes, _ = cv2.connectedComponentsWithStats(
        (shown >= least).astype(np.uint8), connectivity=8
    )
    ink = _Ink(shown, patches, boxes)
    width, height, area = boxes[:, 2], boxes[:, 3], boxes[:, 4]
    small = height <= _MOST_LETTER_SHARE * len(shown)
    small[0] = False
    is_bar = small & (height >= 2) & (width >= _BAR_ASPECT * height)
    is_bar &= area >= _BAR_FILL * width * height
    is_letter = small & ~is_bar & (height >= _LEAST_LETTER_PX) & (width <= 2 * height)
    if np.count_nonzero(is_bar | is_letter) > _MOST_LETTERS:
        return
    bars = [number for number in np.flatnonzero(is_bar) if ink.is_sharp(number)]
    letters = [
        number
        for number in np.flatnonzero(is_letter)
        if ink.has_thin_strokes(number) and ink.is_sharp(number)
    ]
    is_full = least == _INK_LEVELS[0]
    text = [number for number in letters if _is_label(ink, number)]
    for line in _lines(ink, letters, is_full=is_full):
        text += [*line, *_dots(ink, line)]
    chosen = np.zeros(count, dtype=bool)
    chosen[text] = True
    for number in bars:
        chosen[number] = any(_is_near(boxes[number], boxes[letter]) for letter in text)
    found.ink[chosen[patches]] = True
    for number in np.flatnonzero(_may_be_box(boxes, shown.shape)):
        if _is_box(ink, number):
            found.boxes[ink.window(number, 0)] = True


def _lines(ink: _Ink, letters: list[int], *, is_full: bool) -> Iterator[list[int]]:
    """Letters that follow one another: of one size, at one height, near.

    Of dull ink, which may be the rims of bright particles, lines must have one level, one foot and
    letters without a hole too.
    """
    if not letters:
        return
    boxes = ink.boxes[letters]
    left, top, width, height = (boxes[:, index].astype(np.int64) for index in range(4))
    taller, lower = np.maximum.outer(height, height), np.minimum.outer(height, height)
    overlap = np.minimum.outer(top + height, top + height) - np.maximum.outer(top, top)
    gap = np.maximum.outer(left, left) - np.minimum.outer(left + width, left + width)
    follows = (taller <= 2 * lower) & (overlap >= 0.6 * lower) & (gap <= 1.5 * taller)
    count, line = connected_components(follows, directed=False)
    for number in range(count):
        members = np.flatnonzero(line == number)
        if len(members) < _LEAST_LETTERS:
            continue
        numbers = [letters[member] for member in members]
        if is_full or (
            sum(not ink.has_hole(letter) for letter in numbers) >= _LEAST_OPEN
            and _agree([ink.level(letter) for letter in numbers], _ONE_LEVEL)
            and _agree(
                (top + height)[members], max(1.0, _ONE_FOOT * float(np.median(height[members])))
            )
        ):
            yield numbers


def _dots(ink: _Ink, line: list[int]) -> list[int]:
    """Points and other small signs among the letters of a line."""
    left, top, width, height = ink.boxes[line, :4].T
    own_left, own_top, own_width, own_height, _ = ink.boxes.T
    inside = (own_left >= left.min()) & (own_left + own_width <= (left + width).max())
    inside &= (own_top >= top.min()) & (own_top + own_height <= (top + height).max())
    inside[0] = False
    return [int(number) for number in np.flatnonzero(inside) if ink.is_sharp(number)]


def _agree(values: Any, tolerance: float) -> bool:
    """Whether most of the values, and enough of them for a line, are near their median."""
    near = np.abs(np.asarray(values) - np.median(values)) <= tolerance
    return bool(np.count_nonzero(near) >= max(_LEAST_LETTERS, 0.7 * len(near)))


def _is_label(ink: _Ink, number: int) -> bool:
    """Whether a letter labels a figure's panel: alone in a corner, in full ink, no plain shape."""
    left, top, width, height = (int(value) for value in ink.boxes[number, :4])
    rows, columns = ink.shown.shape
    aside = min(left, columns - left - width), min(top, rows - top - height)
    if min(aside) == 0 or max(aside) > _CORNER_SHARE * max(rows, columns):
        return False
    if ink.level(number) < _INK_LEVELS[0]:
        return False
    if ink.boxes[number, 4] < _LEAST_STROKE * np.pi * ink.half_stroke_px(number) ** 2:
        return False
    outline = np.argwhere(ink.patch(number, 0)).astype(np.int32)
    hull = cv2.contourArea(cv2.convexHull(outline)) + len(outline) ** 0.5
    return bool(ink.boxes[number, 4] <= _MOST_SOLID * hull)


def _may_be_box(boxes: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    left, top, width, height, area = boxes.T
    rows, columns = shape
    aside = np.minimum(
        np.minimum(left, columns - left - width), np.minimum(top, rows - top - height)
    )
    is_small = (width <= _MOST_BOX_SHARE * columns) & (height <= _MOST_BOX_SHARE * rows)
    is_full = (area >= _BOX_FILL * width * height) & (np.minimum(width, height) >= _LEAST_BOX_PX)
    result: NDArray[np.bool_] = is_small & is_full & (aside <= _CORNER_SHARE * max(shape))
    result[0] = False
    return result


def _is_box(ink: _Ink, number: int) -> bool:
    """Whether it is a rectangle that is filled with full ink, with writing in it.

    Its edges may be dull, as those of small boxes are where a letter touches them.
    """
    own = ink.patch(number, 0)
    if np.mean(ink.shown[ink.window(number, 0)][own > 0] >= _INK_LEVELS[0]) < _BOX_FULL:
        return False
    # Compression frays the very edge.
    inner = own[_FRAYED_PX:-_FRAYED_PX, _FRAYED_PX:-_FRAYED_PX]
    outline = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])
    corners = inner[:: len(inner) - 1, :: inner.shape[1] - 1]
    if outline.mean() < _BOX_OUTLINE or not corners.all() or not ink.is_sharp(number):
        return False
    # Letters are its holes.
    left, top, width, height, _ = cv2.connectedComponentsWithStats(1 - inner)[2][1:].T
    inside = (left > 0) & (top > 0) & (left + width < inner.shape[1]) & (top + height < len(inner))
    return bool(np.any(inside & (height >= _LEAST_LETTER_PX)))


def _is_near(bar: NDArray[Any], letter: NDArray[Any]) -> bool:
    reach = 3 * int(letter[3])
    across = max(bar[0], letter[0]) - min(bar[0] + bar[2], letter[0] + letter[2])
    down = max(bar[1], letter[1]) - min(bar[1] + bar[3], letter[1] + letter[3])
    return bool(across <= reach and down <= reach)
