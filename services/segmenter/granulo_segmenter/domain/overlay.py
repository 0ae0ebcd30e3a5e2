# SPDX-License-Identifier: GPL-3.0-or-later
"""Outlines of the particles over the micrograph, for people to judge."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.normalise import to_network_input

# Colours that stay apart for most colour-blind readers (Okabe and Ito), without black and grey.
_COLOURS = np.array(
    [
        (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178),
        (213, 94, 0), (204, 121, 167),
    ],
    dtype=np.uint8,
)  # fmt: skip
_PIXELS_A_LINE = 700
"""Outlines get a pixel thicker for every so many pixels of the image's shorter side."""


def draw_overlay(pixels: NDArray[Any], labels: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Draw the outline of every particle.

    Parameters
    ----------
    pixels : (H, W)
        The micrograph, any grey levels.
    labels : (H, W) integer
        0 is background.

    Returns
    -------
    (H, W, 3) uint8
        RGB; neighbours mostly differ in colour.
    """
    grey = to_network_input(pixels)
    picture = np.repeat(grey[..., None], 3, axis=2)
    line = 1 + min(pixels.shape) // _PIXELS_A_LINE
    wide = labels.astype(np.float32) if labels.max(initial=0) < 1 << 24 else _compact(labels)
    kernel = np.ones((2 * line + 1, 2 * line + 1), dtype=np.uint8)
    edge = (cv2.erode(wide, kernel) != wide) | (cv2.dilate(wide, kernel) != wide)
    edge &= labels > 0
    # A multiplier without a common factor spreads consecutive ids over the colours.
    picture[edge] = _COLOURS[(labels[edge].astype(np.int64) * 3) % len(_COLOURS)]
    return picture


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """PNG bytes of an RGB picture."""
    done, data = cv2.imencode(".png", picture[..., ::-1])
    if not done:
        raise ValueError(f"a picture of shape {picture.shape} cannot be written as PNG")
    return bytes(data)


def _compact(labels: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """Number the labels anew so that float32 holds them exactly."""
    _, numbers = np.unique(labels, return_inverse=True)
    return np.asarray(numbers.reshape(labels.shape), dtype=np.float32)
