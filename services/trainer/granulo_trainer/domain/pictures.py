# SPDX-License-Identifier: GPL-3.0-or-later
"""PNG of what a checkpoint saw and of what it found."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_MOST_IDS = 65_535


def encode_label_png(labels: NDArray[np.integer[Any]]) -> bytes:
    """Write instances as a 16-bit grey PNG.

    Parameters
    ----------
    labels : (H, W) integer
        0 is background. From the 65,536th particle on ids begin again at 1: for a look at a
        checkpoint it is enough that neighbours differ.

    Returns
    -------
    bytes
    """
    wrapped = np.where(labels > 0, (labels - 1) % _MOST_IDS + 1, 0).astype(np.uint16)
    # Runs of equal ids are all there is to compress: a sixth of the time, as small.
    return _png(wrapped, cv2.IMWRITE_PNG_STRATEGY_RLE)


def encode_grey_png(pixels: NDArray[np.uint8]) -> bytes:
    """Write (H, W) grey levels as an 8-bit PNG."""
    return _png(pixels, cv2.IMWRITE_PNG_STRATEGY_DEFAULT)


def decode_png(data: bytes) -> NDArray[Any]:
    """Read a PNG of one channel as it was written, (H, W) uint8 or uint16.

    Raises
    ------
    ValueError
        When the bytes are no such PNG.
    """
    buffer = np.frombuffer(data, np.uint8)
    found = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED) if data else None
    if found is None or found.ndim != 2:
        raise ValueError("the bytes are no PNG of one channel")
    return np.asarray(found)


def _png(values: NDArray[Any], strategy: int) -> bytes:
    parameters = [cv2.IMWRITE_PNG_COMPRESSION, 9, cv2.IMWRITE_PNG_STRATEGY, strategy]
    written, data = cv2.imencode(".png", values, parameters)
    if not written:
        raise ValueError("the picture could not be encoded as PNG")
    return bytes(data)
