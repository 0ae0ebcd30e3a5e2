# SPDX-License-Identifier: GPL-3.0-or-later
"""The network's input of a whole image, made in strips: as if the image came whole."""

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.normalise import (
    GreyLevels,
    GreyRange,
    InputConvention,
    equalise,
    stretch,
    to_grey,
)
from granulo_segmenter.domain.planes import MakePlane, Plane, Window, whole
from granulo_segmenter.domain.tiling import mirrored

_STRIP_PX = 2**24
"""Pixels that are taken in at once."""


def grey_levels(content: Plane) -> GreyLevels:
    """Look at all grey levels of an image."""
    levels = GreyLevels(content.shape)
    for strip in _strips(content.shape):
        levels.add(to_grey(content.read(strip)), strip.top)
    return levels


def network_input(
    content: Plane, levels: GreyRange, convention: InputConvention, make_plane: MakePlane
) -> Plane:
    """An image as the network takes it.

    Parameters
    ----------
    content : Plane
        Grey levels of any type.
    levels : GreyRange
    convention : InputConvention
    make_plane : callable

    Returns
    -------
    Plane
        uint8
    """
    result = make_plane(content.shape, np.uint8)
    for strip in _strips(content.shape):
        result.write(strip, stretch(to_grey(content.read(strip)), levels, convention))
    if convention.clahe_clip_limit > 0 and levels.black != levels.white:
        _equalise(result, convention, make_plane)
    return result


def _equalise(image: Plane, convention: InputConvention, make_plane: MakePlane) -> None:
    height, width = image.shape
    if height * width <= _STRIP_PX:
        image.write(whole(image.shape), equalise(image.read(whole(image.shape)), convention))
        return
    # OpenCV's own padding: tiles of one size, and a whole row or column of pixels too many a tile
    # where only the other side does not divide.
    rows, columns = (max(1, round(side / convention.clahe_tile_px)) for side in (height, width))
    bottom, right = 0, 0
    if height % rows or width % columns:
        bottom, right = rows - height % rows, columns - width % columns
    tile_px = (height + bottom) // rows
    original = make_plane(image.shape, np.uint8)
    for strip in _strips(image.shape):
        original.write(strip, image.read(strip))
    step = max(1, _STRIP_PX // (width * tile_px))
    for first in range(0, rows, step):
        # A pixel's grey level follows from its tile and the next ones: one row more on each side.
        seen = max(0, first - 1), min(rows, first + step + 1)
        band = _band(original, seen[0] * tile_px, seen[1] * tile_px, width + right)
        clahe = cv2.createCLAHE(
            clipLimit=convention.clahe_clip_limit, tileGridSize=(columns, seen[1] - seen[0])
        )
        top, end = first * tile_px, min(height, (first + step) * tile_px)
        found = clahe.apply(band)[top - seen[0] * tile_px : end - seen[0] * tile_px, :width]
        image.write(Window(top, end, 0, width), found)


def _band(image: Plane, top: int, bottom: int, width: int) -> NDArray[np.uint8]:
    """Rows of an image that is mirrored beyond its lower and right ends."""
    rows = mirrored(top, bottom - top, image.shape[0])
    first = int(rows.min())
    seen = image.read(Window(first, int(rows.max()) + 1, 0, image.shape[1]))
    return np.ascontiguousarray(
        seen[np.ix_(rows - first, mirrored(0, width, image.shape[1]))], dtype=np.uint8
    )


def _strips(shape: tuple[int, int]) -> list[Window]:
    height, width = shape
    step = max(1, _STRIP_PX // width)
    return [Window(top, min(height, top + step), 0, width) for top in range(0, height, step)]
