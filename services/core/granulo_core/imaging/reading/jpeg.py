# SPDX-License-Identifier: GPL-3.0-or-later
"""What a JPEG stream declares, before the decoder believes it."""

import struct
from collections.abc import Iterator

_STANDALONE = frozenset((0x01, *range(0xD0, 0xDA)))
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = b"\xff\xd9"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker of the header and where it stands; the start of the scan is the last."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _STANDALONE:
            at += 2
        else:
            yield marker, at
            if marker == _START_OF_SCAN:
                return
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in a stream's frame header, None where it has none before its scan."""
    for marker, at in _markers(data):
        if marker in _FRAMES and at + 9 <= len(data):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
    return None


def jpeg_is_complete(data: bytes) -> bool:
    """Whether the image's end follows its scan: entropy-coded data never look like that marker."""
    for marker, at in _markers(data):
        if marker == _START_OF_SCAN:
            return data.find(_END_OF_IMAGE, at) >= 0
    return False


def check_jpeg(data: bytes, width: int, height: int) -> None:
    """Refuse a JPEG stream that is cut off, or larger than the segment that holds it.

    The decoder would fill up what is missing with grey, and allocate whatever size is declared.

    Raises
    ------
    ValueError
    """
    found = jpeg_size(data)
    if found is None:
        raise ValueError("a JPEG segment has no frame header")
    if found[0] > width or found[1] > height:
        raise ValueError(f"a JPEG segment declares {found[0]} × {found[1]} pixels")
    if not jpeg_is_complete(data):
        raise ValueError("a JPEG segment is cut off")
