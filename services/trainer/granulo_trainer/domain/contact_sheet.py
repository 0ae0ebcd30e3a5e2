# SPDX-License-Identifier: GPL-3.0-or-later
"""A small picture of the training data for the model card: images with their labels drawn in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_CELL_PX = 288
_GAP_PX = 6
_CAPTION_PX = 22
_COLUMNS = 4
_DIAMETERS = 11.0
"""Side of the shown part in median diameters: enough particles, and each still to be seen."""
_LEAST_SIDE_PX = 96
# Blue, green, red; light and saturated, so that they stand out from every grey.
_COLOURS = ((0, 176, 255), (255, 200, 60), (70, 70, 255), (120, 230, 70), (255, 110, 240))
_INK = (40, 40, 40)


@dataclass(frozen=True, eq=False)
class Example:
    """One image of the training data."""

    caption: str
    pixels: NDArray[np.uint8]
    """(H, W)."""
    labels: NDArray[Any]
    """(H, W) instances, 0 is background."""


def median_diameter_px(labels: NDArray[Any]) -> float:
    """Median equivalent-circle diameter of the instances; 0 without any."""
    areas = np.bincount(labels.ravel().astype(np.int64))[1:]
    areas = areas[areas > 0]
    return float(2.0 * np.sqrt(np.median(areas) / np.pi)) if areas.size else 0.0


def contact_sheet(examples: Sequence[Example]) -> bytes:
    """Draw examples in rows of four, each a part of its image with the particles' outlines.

    Parameters
    ----------
    examples : sequence of Example
        One or more.

    Returns
    -------
    bytes
        PNG, RGB.

    Raises
    ------
    ValueError
        When there is no example, or an image and its labels differ in size.
    """
    if not examples:
        raise ValueError("a contact sheet needs at least one example")
    cells = [_cell(example) for example in examples]
    columns = min(_COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    step_x, step_y = _CELL_PX + _GAP_PX, _CELL_PX + _CAPTION_PX + _GAP_PX
    sheet = np.full((rows * step_y + _GAP_PX, columns * step_x + _GAP_PX, 3), 255, np.uint8)
    for number, cell in enumerate(cells):
        top = _GAP_PX + number // columns * step_y
        left = _GAP_PX + number % columns * step_x
        sheet[top : top + cell.shape[0], left : left + _CELL_PX] = cell
    written, data = cv2.imencode(".png", sheet, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not written:
        raise ValueError("the contact sheet could not be encoded as PNG")
    return bytes(data)


def _cell(example: Example) -> NDArray[np.uint8]:
    pixels, labels = _part(example)
    size = (_CELL_PX, _CELL_PX)
    how = cv2.INTER_AREA if pixels.shape[0] > _CELL_PX else cv2.INTER_CUBIC
    picture = cv2.cvtColor(cv2.resize(pixels, size, interpolation=how), cv2.COLOR_GRAY2BGR)
    ids = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    near = np.ones((3, 3), np.uint8)
    outline = (cv2.dilate(ids, near) != cv2.erode(ids, near)) & (ids > 0)
    # Neighbours have neighbouring numbers more often than not: a prime step parts their colours.
    picture[outline] = np.array(_COLOURS, np.uint8)[ids[outline].astype(np.int64) * 3 % 5]
    caption = np.full((_CAPTION_PX, _CELL_PX, 3), 255, np.uint8)
    cv2.putText(
        caption, example.caption[:38], (2, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA
    )
    return np.vstack([picture, caption])


def _part(example: Example) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The square of the image that shows the most of particles."""
    if example.pixels.shape != example.labels.shape:
        raise ValueError(
            f"image and labels of {example.caption} differ in size: {example.pixels.shape} and "
            f"{example.labels.shape}"
        )
    wanted = round(_DIAMETERS * median_diameter_px(example.labels)) or min(example.pixels.shape)
    side = min(max(_LEAST_SIDE_PX, wanted), *example.pixels.shape)
    shown = cv2.integral((example.labels > 0).astype(np.uint8))
    covered = shown[side:, side:] - shown[:-side, side:] - shown[side:, :-side]
    covered += shown[:-side, :-side]
    top, left = np.unravel_index(int(covered.argmax()), covered.shape)
    window = np.s_[top : top + side, left : left + side]
    # OpenCV resizes no 32-bit integers; float32 is exact up to 2^24 instances.
    return example.pixels[window], example.labels[window].astype(np.float32)
