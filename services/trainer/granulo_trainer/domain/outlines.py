# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels as a few points an outline: what a browser draws sharply at any zoom, in few bytes."""

import struct
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

_TOLERANCE_PX = 0.6
"""Points that move an outline by less are left out."""
_LONGEST_STEP_PX = 127


def encode_outlines(labels: NDArray[np.integer[Any]]) -> bytes:
    """Outlines of all instances in a compact form.

    Parameters
    ----------
    labels : (H, W) integer
        0 is background.

    Returns
    -------
    bytes
        One outline after another, little-endian: int32 number of points, int32 x and y of the
        first point, and int8 steps dx, dy to each further one. Outlines are closed and go through
        the middles of border pixels. The number is negative where the outline belongs to the
        instance before, as a hole or a separate part.
    """
    return b"".join(_encoded(contour, first) for contour, first in _contours(labels))


def decode_outlines(data: bytes) -> list[tuple[NDArray[np.int64], bool]]:
    """Inverse of :func:`encode_outlines`, as a browser does it.

    Returns
    -------
    list of ((n, 2) int64, bool)
        Points (x, y), and whether a new instance begins.
    """
    found, place = [], 0
    while place < len(data):
        count, x, y = struct.unpack_from("<iii", data, place)
        place += 12
        number = abs(count) - 1
        steps = np.frombuffer(data, np.int8, 2 * number, place).reshape(-1, 2)
        place += 2 * number
        points = np.cumsum(np.vstack([[(x, y)], steps.astype(np.int64)]), axis=0)
        found.append((points, count > 0))
    return found


def _contours(labels: NDArray[np.integer[Any]]) -> Iterator[tuple[NDArray[np.int64], bool]]:
    for number, box in enumerate(find_objects(labels.astype(np.int32)), start=1):
        if box is None:
            continue
        mask = (labels[box] == number).astype(np.uint8)
        corner = np.array([box[1].start, box[0].start])
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        for place, contour in enumerate(contours):
            points = cv2.approxPolyDP(contour, _TOLERANCE_PX, closed=True)
            yield points[:, 0].astype(np.int64) + corner, place == 0


def _encoded(points: NDArray[np.int64], first: bool) -> bytes:
    steps = np.diff(points, axis=0)
    # Long steps are walked in equal parts that an int8 can hold.
    parts = np.maximum(1, -(-np.abs(steps).max(axis=1, initial=0) // _LONGEST_STEP_PX))
    if (parts > 1).any():
        walked = [points[:1]]
        for start, step, count in zip(points[:-1], steps, parts, strict=True):
            shares = np.arange(1, count + 1)[:, None] / count
            walked.append(np.rint(start + shares * step).astype(np.int64))
        points = np.vstack(walked)
        steps = np.diff(points, axis=0)
    count = len(points) if first else -len(points)
    x, y = points[0]
    return struct.pack("<iii", count, int(x), int(y)) + steps.astype(np.int8).tobytes()
