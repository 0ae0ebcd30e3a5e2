# SPDX-License-Identifier: GPL-3.0-or-later
"""A micrograph that is read region by region, whatever its file's format."""

import threading
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.imaging.databar import find_content_height_in
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.reading.formats import open_image_file
from granulo_core.imaging.reading.grey import grey_type, to_grey
from granulo_core.imaging.reading.notes import calibration_beside
from granulo_core.imaging.reading.plane import Calibration, ImageFile, Window
from granulo_core.imaging.reading.problems import (
    DEFAULT_MAX_PX,
    MAX_STREAMED_PX,
    check_size,
    too_large,
    unreadable,
)
from granulo_core.imaging.reading.source import Source

_BLOCK_PX = 1 << 22
_STREAMED_SHARE = 4


class OpenMicrograph:
    """One page of an image file, of which any region can be read; use `open_micrograph`.

    Regions give exactly what the whole image gives, and any number of threads may read them, one
    after the other.
    """

    def __init__(
        self,
        source: Source,
        file: ImageFile,
        page: int,
        *,
        max_px: int,
        max_image_px: int,
        user_size: PixelSize | None,
    ) -> None:
        self._source = source
        self._file = file
        self._lock = threading.Lock()
        self.name = source.name
        self.format = file.format
        """``TIFF``, ``MRC`` and so on."""
        self.pages = file.pages
        """How many images the file holds."""
        self.page = page
        """Which of them this is, counted from 0."""
        if not 0 <= page < self.pages:
            text = f"{self.name} has {self.pages} pages, numbered from 0; there is no page {page}"
            raise invalid_fields([FieldViolation("page", text)])
        self._plane = file.plane(page)
        info = self._plane.info
        check_size(info.width_px, info.height_px, max_image_px, self.name)
        height, width = self._plane.block_shape
        if height * width > max_px:
            raise too_large(info.width_px, info.height_px, max_px, self.name)
        self._plane.check_complete()
        self._max_px = max_px
        self.shape = (info.height_px, info.width_px)
        """Height and width in pixels, with the data bar if there is one."""
        self.dtype = grey_type(info, self.name)
        """Type of the grey levels: uint8, uint16 or float32."""
        self.streams = (
            height * width <= _BLOCK_PX or height * width * _STREAMED_SHARE <= info.pixel_count
        )
        """Whether `read` touches only what it needs; otherwise the first call decodes all."""
        self._calibration = self._choose_calibration(user_size)

    @property
    def pixel_size(self) -> PixelSize | None:
        """None where neither the user nor the file tells it reliably."""
        return self._calibration.size if self._calibration else None

    @property
    def pixel_size_source(self) -> str:
        """Who says so: ``user``, ``Zeiss tag`` and so on; empty where nobody does."""
        return self._calibration.source if self._calibration else ""

    @property
    def source(self) -> str:
        """What is read, for people: ``TIFF, page 1 of 3, pixel size from the Zeiss tag``."""
        parts = [self.format]
        if self.pages > 1:
            parts.append(f"page {self.page + 1} of {self.pages}")
        if self._calibration:
            known = self._calibration.source
            parts.append("pixel size from " + (f"the {known}" if known[0].islower() else known))
        return ", ".join(parts)

    @property
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns that the file decodes at once; reading multiples of it is cheapest."""
        return self._plane.block_shape

    @cached_property
    def content_height_px(self) -> int:
        """Rows ``[0, content_height_px)`` are the micrograph, below is a data bar, if any."""
        return find_content_height_in(lambda top, bottom: self.read(slice(top, bottom)), self.shape)

    def read(self, rows: slice = slice(None), columns: slice = slice(None)) -> NDArray[Any]:
        """Grey levels of a region.

        Parameters
        ----------
        rows, columns : slice
            As in numpy, without a step: ends beyond the image are cut, negative ones count from it.

        Returns
        -------
        (h, w) array
            uint8, uint16 or float32. Values that are not finite are the lowest finite one of the
            page.

        Raises
        ------
        GranuloError
            IMAGE_UNREADABLE for damaged image data; IMAGE_TOO_LARGE for a region of more than
            ``max_px`` pixels.
        """
        window = self._window(rows, columns)
        height, width = window.shape
        if height * width > self._max_px:
            raise too_large(width, height, self._max_px, self.name)
        if not height or not width:
            return np.empty(window.shape, self.dtype)
        grey = self._read_raw(window)
        if grey.dtype.kind == "f":
            unknown = ~np.isfinite(grey)
            if unknown.any():
                grey = np.where(unknown, np.float32(self._lowest_finite), grey)
        return grey

    def read_whole(self) -> NDArray[Any]:
        """Grey levels of the page, (H, W), with little more memory than they take."""
        height, width = self.shape
        check_size(width, height, self._max_px, self.name)
        if not self.streams:
            return self.read()
        whole = np.empty(self.shape, self.dtype)
        for window in self._blocks():
            whole[window.top : window.bottom] = self._read_raw(window)
        if whole.dtype.kind == "f":
            lowest = _lowest_finite(whole)
            for window in self._blocks():
                block = whole[window.top : window.bottom]
                unknown = ~np.isfinite(block)
                if unknown.any():
                    block[unknown] = self._known(lowest)
        return whole

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _choose_calibration(self, user_size: PixelSize | None) -> Calibration | None:
        if user_size is not None:
            return Calibration(user_size, "user")
        found = self._plane.info.calibration
        if found is None and self._source.path is not None:
            found = calibration_beside(self._source.path, self.shape[1])
        return found

    def _window(self, rows: slice, columns: slice) -> Window:
        if rows.step not in (None, 1) or columns.step not in (None, 1):
            raise ValueError("regions have no step")
        top, bottom, _ = rows.indices(self.shape[0])
        left, right, _ = columns.indices(self.shape[1])
        return Window(top, max(top, bottom), left, max(left, right))

    def _read_raw(self, window: Window) -> NDArray[Any]:
        with self._lock:
            samples = self._plane.read(window)
        return np.ascontiguousarray(to_grey(samples, self._plane.info, self.name))

    def _blocks(self) -> list[Window]:
        """Bands of whole rows that cover the page, a few megapixels each."""
        height, width = self.shape
        step = self._plane.block_shape[0]
        rows = max(1, _BLOCK_PX // (width * step)) * step
        return [Window(top, min(top + rows, height), 0, width) for top in range(0, height, rows)]

    @cached_property
    def _lowest_finite(self) -> float:
        lowest = [_lowest_finite(self._read_raw(window)) for window in self._blocks()]
        known = [level for level in lowest if level is not None]
        return self._known(min(known, default=None))

    def _known(self, lowest: float | None) -> float:
        if lowest is None:
            raise unreadable(self.name, "holds no finite grey level, only NaN or infinity")
        return lowest


def _lowest_finite(grey: NDArray[Any]) -> float | None:
    lowest = float(np.min(grey, where=np.isfinite(grey), initial=np.inf))
    return lowest if np.isfinite(lowest) else None


def open_micrograph(
    data: bytes | Path,
    *,
    page: int = 0,
    max_px: int = DEFAULT_MAX_PX,
    max_image_px: int = MAX_STREAMED_PX,
    name: str | None = None,
    pixel_size: PixelSize | None = None,
) -> OpenMicrograph:
    """Open an image file for reading by regions; close it, or use it in a ``with`` statement.

    Only headers are read. Tiled and striped TIFF, MRC and uncompressed formats then read just the
    regions that are asked for, so that an image may be larger than memory; other formats, and TIFF
    in one compressed strip, are decoded as a whole at the first call (`OpenMicrograph.streams`).

    Parameters
    ----------
    data : bytes or Path
        The file's content, or where it lies; images larger than memory need the latter.
    page : int
        Which image of the file, counted from 0; see `count_pages`.
    max_px : int
        Most pixels that are decoded at once: of a region, and of an image that does not stream.
    max_image_px : int
        Most pixels of an image that does.
    name : str, optional
        What the user calls the file, for messages; a path's own name by default.
    pixel_size : PixelSize, optional
        What the user says goes before what the file says.

    Returns
    -------
    OpenMicrograph

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE, IMAGE_TOO_LARGE; FIELD_INVALID for a page that the file does not have.
    """
    source = Source(data, name or (data.name if isinstance(data, Path) else "the image"))
    file: ImageFile | None = None
    try:
        file = open_image_file(source)
        return OpenMicrograph(
            source, file, page, max_px=max_px, max_image_px=max_image_px, user_size=pixel_size
        )
    except BaseException:
        if file is not None:
            file.close()
        source.close()
        raise


def count_pages(data: bytes | Path, *, name: str | None = None) -> int:
    """How many images a file holds, from its headers alone.

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE
    """
    with Source(data, name or (data.name if isinstance(data, Path) else "the image")) as source:
        file = open_image_file(source)
        try:
            return file.pages
        finally:
            file.close()
