# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages whose samples lie uncompressed, row after row, in the file: any window is read alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.reading.plane import PlaneInfo, Window
from granulo_core.imaging.reading.problems import cut_off
from granulo_core.imaging.reading.source import Source


class StridedPlane:
    """An uncompressed page.

    Parameters
    ----------
    source : Source
    info : PlaneInfo
        Its ``dtype`` is that of the file, byte order included.
    offset : int
        Where the samples begin, in bytes.
    bottom_up : bool
        The first row in the file is the lowest of the image.
    needs_bytes : int
        How long the file must be for all of its pages, where it says so.
    """

    def __init__(
        self,
        source: Source,
        info: PlaneInfo,
        offset: int,
        *,
        bottom_up: bool = False,
        needs_bytes: int = 0,
    ) -> None:
        self.info = info
        self.block_shape = (1, info.width_px)
        self._source = source
        self._offset = offset
        self._bottom_up = bottom_up
        self._needs_bytes = needs_bytes
        self._row_bytes = info.width_px * info.channels * info.dtype.itemsize

    def check_complete(self) -> None:
        """Refuse a file that ends before the page does."""
        end = self._offset + self._row_bytes * self.info.height_px
        end = max(end, self._needs_bytes)
        if self._offset < 0 or end > self._source.size_bytes:
            raise cut_off(self._source.name, end, self._source.size_bytes)

    def read(self, window: Window) -> NDArray[Any]:
        """Stored samples of a window: (h, w), or (h, w, channels)."""
        height, width = window.shape
        info = self.info
        first = info.height_px - window.bottom if self._bottom_up else window.top
        data = self._source.read_at(
            self._offset + first * self._row_bytes, height * self._row_bytes
        )
        rows = np.frombuffer(data, info.dtype).reshape(height, info.width_px, info.channels)
        found = rows[:, window.left : window.right]
        if self._bottom_up:
            found = found[::-1]
        return found.reshape(height, width) if info.channels == 1 else found
