# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain of a TIFF's pages: where it, or one of its tags, leads beyond the end of the file.

tifffile stops at such a page and leaves such a tag out, so that a truncated file would lose pages
or its pixel size without a word.
"""

import struct
from typing import Any

from granulo_core.imaging.reading.problems import cut_off
from granulo_core.imaging.reading.source import Source

_BIGTIFF = 43
_TYPE_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8,
    18: 8,
}  # fmt: skip


def check_chain(source: Source, layout: Any) -> None:
    """Refuse a TIFF that ends before its pages' headers do.

    Parameters
    ----------
    source : Source
    layout : tifffile.TiffFormat
        Sizes and byte order of the file's fields.

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE
    """
    at = 8 if layout.version == _BIGTIFF else 4
    seen: set[int] = set()
    while True:
        (offset,) = struct.unpack(layout.offsetformat, source.read_at(at, layout.offsetsize))
        if offset == 0:
            return
        if offset in seen or offset >= source.size_bytes:
            raise cut_off(source.name, offset, source.size_bytes)
        seen.add(offset)
        (count,) = struct.unpack(layout.tagnoformat, source.read_at(offset, layout.tagnosize))
        begin = offset + layout.tagnosize
        at = begin + count * layout.tagsize
        _check_tags(source, layout, source.read_at(begin, count * layout.tagsize))


def _check_tags(source: Source, layout: Any, tags: bytes) -> None:
    order, number = layout.byteorder, layout.offsetformat[-1]
    for _, kind, count, offset in struct.iter_unpack(f"{order}HH{number}{number}", tags):
        size = _TYPE_BYTES.get(kind, 1) * count
        if size > layout.offsetsize and offset + size > source.size_bytes:
            raise cut_off(source.name, offset + size, source.size_bytes)
