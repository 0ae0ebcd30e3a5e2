# SPDX-License-Identifier: GPL-3.0-or-later
"""TIFF, BigTIFF and OME-TIFF, by tifffile and imagecodecs: any window without the rest."""

import logging
from math import ceil
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from granulo_core.imaging.reading.blocks import Blocks, block_fits
from granulo_core.imaging.reading.jpeg import check_jpeg
from granulo_core.imaging.reading.plane import Calibration, Plane, PlaneInfo, Window
from granulo_core.imaging.reading.problems import cut_off, decoding, unreadable
from granulo_core.imaging.reading.source import Source
from granulo_core.imaging.reading.strided import StridedPlane
from granulo_core.imaging.reading.tiff_chain import check_chain
from granulo_core.imaging.reading.vendor_tags import calibrate

# A damaged file is reported by an error; tifffile writes a line for each of its tags besides.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_MAX_CHANNELS = 4
# Every decoder is native code that a hostile file may crash: only those that microscopes use.
_COMPRESSIONS = {
    1: "none", 5: "LZW", 7: "JPEG", 8: "Deflate", 32946: "Deflate", 32773: "PackBits",
    34925: "LZMA", 34926: "Zstandard", 50000: "Zstandard",
}  # fmt: skip
_JPEG = 7
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6


class TiffImageFile:
    """An opened TIFF file; reduced pictures (thumbnails, pyramids) and masks are no pages.

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE
    """

    format = "TIFF"

    def __init__(self, source: Source) -> None:
        self._source = source
        self._indices: list[int] | None = None
        with decoding(source.name, self.format):
            source.file.seek(0)
            self._tiff = tifffile.TiffFile(source.file)
            check_chain(source, self._tiff.tiff)
            self._frames = self._contiguous_frames()

    @property
    def pages(self) -> int:
        """How many images it holds."""
        if self._frames > 1:
            return self._frames
        if self._indices is None:
            with decoding(self._source.name, self.format):
                whole = range(len(self._tiff.pages))
                self._indices = [i for i in whole if self._is_image(self._tiff.pages[i])]
                for page in self._tiff.pages:
                    _check_extent(page, self._source)
        if not self._indices:
            raise unreadable(self._source.name, "is a TIFF without an image")
        return len(self._indices)

    def plane(self, page: int) -> Plane:
        """The page ``page``, counted from 0."""
        pages = self.pages
        with decoding(self._source.name, self.format):
            index = 0 if self._frames > 1 or self._indices is None else self._indices[page]
            found = self._tiff.pages[index]
            info = _describe(found, self._source.name, calibrate(found))
            if self._frames > 1:
                return self._frame(found, info, page, pages)
            return _open_page(self._source, found, info)

    def close(self) -> None:
        """Let go of the file."""
        self._tiff.close()

    @staticmethod
    def _is_image(page: Any) -> bool:
        return not int(page.subfiletype) & 0b101

    def _contiguous_frames(self) -> int:
        """ImageJ writes stacks above 4 GB as one page with all others behind its samples."""
        first = self._tiff.pages.first
        if not first.is_imagej or first.compression != 1 or len(self._tiff.pages) != 1:
            return 1
        metadata = self._tiff.imagej_metadata or {}
        return max(1, int(metadata.get("images", 1)))

    def _frame(self, page: Any, info: PlaneInfo, frame: int, frames: int) -> Plane:
        bytes_each = info.stored_bytes
        begin = int(page.dataoffsets[0])
        return StridedPlane(
            self._source,
            _as_stored(page, info),
            begin + frame * bytes_each,
            needs_bytes=begin + frames * bytes_each,
        )


def _describe(page: Any, name: str, calibration: Calibration | None) -> PlaneInfo:
    channels = int(page.samplesperpixel)
    if page.imagedepth != 1 or not 1 <= channels <= _MAX_CHANNELS:
        raise unreadable(
            name,
            f"has {channels} channels and {page.imagedepth} layers; export one grey or RGB image",
        )
    compression, photometric = int(page.compression), int(page.photometric)
    if compression not in _COMPRESSIONS:
        known = ", ".join(sorted(set(_COMPRESSIONS.values())))
        raise unreadable(
            name, f"is compressed by method {compression}, of the known ones ({known}) none"
        )
    colours = (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE)
    if photometric not in colours and not (photometric == _YCBCR and compression == _JPEG):
        kind = getattr(page.photometric, "name", photometric)
        raise unreadable(name, f"holds colours of another kind ({kind}); export it as grey or RGB")
    if page.dtype is None or not isinstance(page.bitspersample, int):
        raise unreadable(name, f"holds samples of {page.bitspersample} bits; export 8 or 16 bits")
    palette = None
    if photometric == _PALETTE and page.colormap is not None:
        palette = np.asarray(page.colormap, dtype=np.uint16).T
    return PlaneInfo(
        height_px=int(page.imagelength),
        width_px=int(page.imagewidth),
        dtype=np.dtype(page.dtype),
        channels=channels,
        bits=int(page.bitspersample),
        palette=palette,
        white_is_zero=photometric == _WHITE_IS_ZERO,
        calibration=calibration,
    )


def _check_extent(page: Any, source: Source) -> None:
    """Refuse image data that would lie beyond the end of the file."""
    offsets = np.asarray(page.dataoffsets, dtype=np.float64)
    sizes = np.asarray(page.databytecounts, dtype=np.float64)[: len(offsets)]
    end = (offsets[: len(sizes)] + sizes).max(initial=0)
    if end > source.size_bytes or (offsets < 0).any():
        raise cut_off(source.name, int(end), source.size_bytes)


def _as_stored(page: Any, info: PlaneInfo) -> PlaneInfo:
    return info.stored_as(info.dtype.newbyteorder(page.parent.byteorder))


def _open_page(source: Source, page: Any, info: PlaneInfo) -> Plane:
    segments = _Segments(source, page, info)
    if segments.lie_row_after_row():
        return StridedPlane(source, _as_stored(page, info), int(page.dataoffsets[0]))
    return _SegmentedPlane(source, page, info, segments)


class _Segments:
    """Geometry of a page's strips or tiles."""

    def __init__(self, source: Source, page: Any, info: PlaneInfo) -> None:
        self._source = source
        self._page = page
        self._info = info
        self.separate = int(page.planarconfig) == 2 and info.channels > 1
        if page.is_tiled:
            self.height, self.width = int(page.tilelength), int(page.tilewidth)
        else:
            self.height = min(int(page.rowsperstrip), info.height_px)
            self.width = info.width_px
        if info.pixel_count and not block_fits(self.height * self.width, info.pixel_count):
            raise unreadable(
                source.name, f"declares strips or tiles of {self.width} × {self.height} pixels"
            )
        self.across = ceil(info.width_px / max(1, self.width))
        self.down = ceil(info.height_px / max(1, self.height))
        count = self.across * self.down * (info.channels if self.separate else 1)
        self.offsets = np.asarray(page.dataoffsets[:count], dtype=np.float64)
        self.sizes = np.asarray(page.databytecounts[:count], dtype=np.float64)
        self.are_all_there = len(self.offsets) == len(self.sizes) == count

    def check(self) -> None:
        """Refuse missing segments, which decoders would silently fill with zeros."""
        if not self.are_all_there or (self.sizes <= 0).any() or not len(self.sizes):
            raise unreadable(self._source.name, "is a TIFF without all of its image data")
        _check_extent(self._page, self._source)

    def lie_row_after_row(self) -> bool:
        """Whether the page is nothing but uncompressed rows, one after the other."""
        page, info = self._page, self._info
        if page.is_tiled or self.separate or not self.are_all_there or not len(self.sizes):
            return False
        plain = int(page.compression) == int(page.predictor) == int(page.fillorder) == 1
        whole_bytes = info.bits == 8 * info.dtype.itemsize
        strip = self.height * info.width_px * info.channels * info.dtype.itemsize
        last = strip - (self.down * self.height - info.height_px) * (strip // self.height)
        adjoining = (self.offsets[:-1] + self.sizes[:-1] == self.offsets[1:]).all()
        full = (self.sizes[:-1] == strip).all() and self.sizes[-1] >= last
        return plain and whole_bytes and bool(adjoining) and bool(full)


class _SegmentedPlane:
    """A page in strips or tiles, of which only those that a window touches are decoded."""

    def __init__(self, source: Source, page: Any, info: PlaneInfo, segments: _Segments) -> None:
        self.info = info
        self.block_shape = (
            min(segments.height, info.height_px), min(segments.width, info.width_px)
        )  # fmt: skip
        self._source = source
        self._page = page
        self._segments = segments
        self._blocks = Blocks(segments.height, segments.width, self._decode)
        self._options: dict[str, Any] = {}
        if int(page.compression) == _JPEG:
            self._options = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}

    def check_complete(self) -> None:
        """Refuse a file that lacks strips or tiles."""
        self._segments.check()

    def read(self, window: Window) -> NDArray[Any]:
        """Stored samples of a window: (h, w), or (h, w, channels)."""
        info = self.info
        found = np.empty((*window.shape, info.channels), info.dtype)
        with decoding(self._source.name, "TIFF"):
            if self._segments.separate:
                for channel in range(info.channels):
                    target = found[..., channel : channel + 1]
                    self._blocks.fill(target, window.top, window.left, channel)
            else:
                self._blocks.fill(found, window.top, window.left)
        return found[..., 0] if info.channels == 1 else found

    def _decode(self, channel: int, row: int, column: int) -> NDArray[Any]:
        """(height, width, channels of a segment)."""
        page, segments = self._page, self._segments
        number = (channel * segments.down + row) * segments.across + column
        data = self._source.read_at(int(page.dataoffsets[number]), int(page.databytecounts[number]))
        if int(page.compression) == _JPEG:
            check_jpeg(data, segments.width, segments.height)
        # tifffile decodes into as many bytes as the segment should have, and refuses fewer.
        samples, _, _ = page.decode(data, number, **self._options)
        return np.asarray(samples[0])
