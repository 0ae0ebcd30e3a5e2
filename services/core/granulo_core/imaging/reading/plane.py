# SPDX-License-Identifier: GPL-3.0-or-later
"""What every format's reader gives: pages of stored samples that are read window by window."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.pixels import PixelSize


@dataclass(frozen=True)
class Window:
    """Rows ``[top, bottom)`` and columns ``[left, right)`` of an image."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.bottom - self.top, self.right - self.left)


@dataclass(frozen=True)
class Calibration:
    """A pixel size and who says so."""

    size: PixelSize
    source: str
    """For people, e.g. ``Zeiss tag``."""


@dataclass(frozen=True)
class PlaneInfo:
    """What a file tells of one page before it is decoded."""

    height_px: int
    width_px: int
    dtype: np.dtype[Any]
    """Of the stored samples."""
    channels: int = 1
    """Samples of a pixel: 1 grey, 2 grey and alpha, 3 colours, 4 colours and alpha."""
    bits: int = 0
    """Bits of a sample where they are fewer than its type has; 0 means all."""
    palette: NDArray[np.uint16] | None = None
    """(N, 3): colours of a palette image, whose samples are indices."""
    white_is_zero: bool = False
    """The samples grow from white to black."""
    calibration: Calibration | None = None
    """None where the file does not tell its pixel size reliably."""

    @property
    def pixel_count(self) -> int:
        """Pixels of the page."""
        return self.height_px * self.width_px

    @property
    def stored_bytes(self) -> int:
        """Bytes of the page, uncompressed."""
        return self.pixel_count * self.channels * self.dtype.itemsize

    def stored_as(self, dtype: np.dtype[Any]) -> "PlaneInfo":
        """The same with another type of sample, e.g. of another byte order."""
        return replace(self, dtype=dtype)


class Plane(Protocol):
    """One page of an image file."""

    @property
    def info(self) -> PlaneInfo:
        """What is known without decoding."""

    @property
    def block_shape(self) -> tuple[int, int]:
        """Height and width of what is decoded at once: a tile, a strip, or the whole page."""

    def check_complete(self) -> None:
        """Refuse a file that ends before the page does (IMAGE_UNREADABLE), without decoding it."""

    def read(self, window: Window) -> NDArray[Any]:
        """Stored samples of a window: (h, w), or (h, w, channels)."""


class ImageFile(Protocol):
    """An opened image file."""

    @property
    def format(self) -> str:
        """For people, e.g. ``TIFF``."""

    @property
    def pages(self) -> int:
        """How many images it holds."""

    def plane(self, page: int) -> Plane:
        """The page ``page``, counted from 0."""

    def close(self) -> None:
        """Let go of the file."""
