# SPDX-License-Identifier: GPL-3.0-or-later
"""Windows put together from the blocks (strips, tiles, chunks) that a file stores compressed."""

from collections import OrderedDict
from collections.abc import Callable
from math import ceil
from typing import Any

from numpy.typing import NDArray

_CACHE_BYTES = 64 << 20
MIN_BLOCK_ROOM_PX = 1 << 22


def block_fits(block_px: int, image_px: int) -> bool:
    """Whether a block's size is sane: it may be larger than its image, but not by magnitudes."""
    return 1 <= block_px <= max(4 * image_px, MIN_BLOCK_ROOM_PX)


class Blocks:
    """Blocks of one size that cover a page; those used last are kept decoded.

    Parameters
    ----------
    height, width : int
        Of a block, in pixels.
    decode : callable
        ``(layer, row, column)`` of a block to its samples; those beyond the page may be missing.
    """

    def __init__(
        self, height: int, width: int, decode: Callable[[int, int, int], NDArray[Any]]
    ) -> None:
        self._height = height
        self._width = width
        self._decode = decode
        self._kept: OrderedDict[tuple[int, int, int], NDArray[Any]] = OrderedDict()

    def fill(self, target: NDArray[Any], top: int, left: int, layer: int = 0) -> None:
        """Copy what the blocks hold from row ``top`` and column ``left`` on into ``target``."""
        bottom, right = top + target.shape[0], left + target.shape[1]
        for row in range(top // self._height, ceil(bottom / self._height)):
            for column in range(left // self._width, ceil(right / self._width)):
                samples = self._get(layer, row, column)
                above, before = row * self._height, column * self._width
                first, last = max(above, top), min(above + self._height, bottom)
                begin, end = max(before, left), min(before + self._width, right)
                target[first - top : last - top, begin - left : end - left] = samples[
                    first - above : last - above, begin - before : end - before
                ]

    def _get(self, layer: int, row: int, column: int) -> NDArray[Any]:
        key = (layer, row, column)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        samples = self._decode(layer, row, column)
        self._kept[key] = samples
        held = sum(kept.nbytes for kept in self._kept.values())
        while held > _CACHE_BYTES and len(self._kept) > 1:
            held -= self._kept.popitem(last=False)[1].nbytes
        return samples
