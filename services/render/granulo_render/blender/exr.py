# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading Cycles' passes from an uncompressed multilayer OpenEXR file."""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MAGIC = 20000630
_FLOAT = 2  # OpenEXR's pixel type of 32-bit floats


def read_passes(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read a scan-line file of 32-bit channels without compression, as Blender writes it.

    Blender offers no access to the passes of a render result but through a file, and none of the
    installed image libraries reads OpenEXR; without compression the format is this simple.

    Returns
    -------
    dict of str to NDArray[float32]
        Channel name without its view layer (``Combined.R``, ``Depth.Z``) to (H, W) pixels.

    Raises
    ------
    ValueError
        When the file is something else.
    """
    data = path.read_bytes()
    if len(data) < 8 or struct.unpack_from("<i", data)[0] != _MAGIC:
        raise ValueError(f"{path} is no OpenEXR file")
    attributes, start = _attributes(data)
    if attributes["compression"] != b"\0" or attributes["lineOrder"] != b"\0":
        raise ValueError(f"{path} is compressed or not in increasing line order")
    left, top, right, bottom = struct.unpack("<4i", attributes["dataWindow"])
    width, height = right - left + 1, bottom - top + 1
    names = _channels(attributes["channels"])
    line = np.dtype([("y", "<i4"), ("size", "<i4"), ("pixels", "<f4", (len(names), width))])
    rows = np.frombuffer(data, line, height, start + 8 * height)
    return {name: rows["pixels"][:, i] for i, name in enumerate(names)}


def _attributes(data: bytes) -> tuple[dict[str, bytes], int]:
    found: dict[str, bytes] = {}
    at = 8
    while data[at]:
        end = data.index(b"\0", at)
        name = data[at:end].decode()
        end = data.index(b"\0", end + 1)  # the type's name, which the attribute's name implies
        size = struct.unpack_from("<i", data, end + 1)[0]
        found[name] = data[end + 5 : end + 5 + size]
        at = end + 5 + size
    return found, at + 1


def _channels(listing: bytes) -> list[str]:
    names = []
    at = 0
    while listing[at]:
        end = listing.index(b"\0", at)
        if struct.unpack_from("<i", listing, end + 1)[0] != _FLOAT:
            raise ValueError("an OpenEXR channel is not of 32-bit floats")
        names.append(listing[at:end].decode().partition(".")[2])
        at = end + 17
    return names
