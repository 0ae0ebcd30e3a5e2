# SPDX-License-Identifier: GPL-3.0-or-later
"""Thermo Fisher's Velox EMD: HDF5 by h5py, its chunks decoded here within their declared size.

HDF5 follows links and raw-data references into other files, and its filters decode whatever a
chunk expands to. A micrograph needs neither.
"""

import json
import zlib
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.reading.blocks import Blocks, block_fits
from granulo_core.imaging.reading.lengths import length_nm, plausible
from granulo_core.imaging.reading.plane import Calibration, PlaneInfo, Window
from granulo_core.imaging.reading.problems import decoding, unreadable
from granulo_core.imaging.reading.source import Source

_MAX_IMAGES = 4096
_MAX_METADATA_BYTES = 1 << 24
_DEFLATE, _SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE


class VeloxFile:
    """An opened Velox file; each frame of each image is a page, images in the order of their ids.

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE
    """

    format = "Velox EMD"

    def __init__(self, source: Source) -> None:
        self._source = source
        with decoding(source.name, self.format):
            self._file = h5py.File(source.path or source.file, "r")
            try:
                self._images = self._find_images()
            except BaseException:
                self._file.close()
                raise
        self._frames = [_frames(data) for data, _ in self._images]
        self.pages = sum(self._frames)

    def plane(self, page: int) -> "_FramePlane":
        """The page ``page``, counted from 0."""
        index = 0
        while page >= self._frames[index]:
            page -= self._frames[index]
            index += 1
        data, metadata = self._images[index]
        with decoding(self._source.name, self.format):
            return _FramePlane(self._source, data, page, _calibration(metadata, page))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _find_images(self) -> list[tuple[h5py.Dataset, h5py.Dataset | None]]:
        name = self._source.name
        group = _member(_member(self._file, "Data", h5py.Group), "Image", h5py.Group)
        found = []
        for key in sorted(group)[:_MAX_IMAGES] if group is not None else ():
            image = _member(group, key, h5py.Group)
            data = _member(image, "Data", h5py.Dataset)
            # Fourier transforms are pairs of numbers, and no images.
            if data is not None and data.ndim in (2, 3) and data.size and data.dtype.kind in "uif":
                found.append((data, _member(image, "Metadata", h5py.Dataset)))
        if not found:
            raise unreadable(name, "is an HDF5 file without images of Velox (Data/Image)")
        return found


class _FramePlane:
    """One frame of an image of the shape (height, width, frames)."""

    def __init__(
        self, source: Source, data: h5py.Dataset, frame: int, calibration: Calibration | None
    ) -> None:
        height, width = (int(size) for size in data.shape[:2])
        self.info = PlaneInfo(height, width, data.dtype, calibration=calibration)
        self._source = source
        self._data = data
        self._frame = frame
        if data.external or data.is_virtual:
            raise unreadable(source.name, "keeps its images in other files")
        self._chunks = data.chunks
        if self._chunks:
            self._blocks = Blocks(self._chunks[0], self._chunks[1], self._decode)
            self._filters = _filters(data, source.name)
            if not block_fits(int(np.prod(self._chunks)), self.info.pixel_count):
                raise unreadable(source.name, f"declares chunks of {self._chunks} pixels")
        self.block_shape = (
            (min(self._chunks[0], height), min(self._chunks[1], width)) if self._chunks
            else (1, width)
        )  # fmt: skip

    def check_complete(self) -> None:
        """Refuse images of which parts were never written: HDF5 would give zeros for them."""
        data = self._data
        with decoding(self._source.name, "Velox EMD"):
            if self._chunks:
                sizes = zip(data.shape, self._chunks, strict=True)
                needed = int(np.prod([-(-whole // part) for whole, part in sizes]))
                complete = data.id.get_num_chunks() == needed
            else:
                complete = data.id.get_storage_size() >= data.size * data.dtype.itemsize
                offset = data.id.get_offset()
                end = (offset or 0) + data.id.get_storage_size()
                complete = complete and end <= self._source.size_bytes
        if not complete:
            raise unreadable(self._source.name, "is a Velox file without all of its image data")

    def read(self, window: Window) -> NDArray[Any]:
        """Stored samples of a window, (h, w)."""
        with decoding(self._source.name, "Velox EMD"):
            if not self._chunks:
                region = (slice(window.top, window.bottom), slice(window.left, window.right))
                frame = () if self._data.ndim == 2 else (self._frame,)
                return np.asarray(self._data[(*region, *frame)])
            found = np.empty(window.shape, self.info.dtype)
            self._blocks.fill(found, window.top, window.left)
            return found

    def _decode(self, _: int, row: int, column: int) -> NDArray[Any]:
        assert self._chunks is not None
        frame = self._frame if self._data.ndim == 3 else 0
        depth = self._chunks[2] if self._data.ndim == 3 else 1
        at = (row * self._chunks[0], column * self._chunks[1], frame // depth * depth)
        chunk = _read_chunk(self._data, at[: self._data.ndim], self._filters)
        return chunk.reshape(*self._chunks[:2], depth)[..., frame % depth]


def _member(parent: Any, key: str, kind: type) -> Any:
    """A member that lies in the file itself: links lead out of it, or in circles."""
    if parent is None or not isinstance(parent.get(key, getlink=True), h5py.HardLink):
        return None
    found = parent[key]
    return found if isinstance(found, kind) else None


def _frames(data: h5py.Dataset) -> int:
    return int(data.shape[2]) if data.ndim == 3 else 1


def _filters(data: h5py.Dataset, name: str) -> list[int]:
    properties = data.id.get_create_plist()
    found = [int(properties.get_filter(i)[0]) for i in range(properties.get_nfilters())]
    if not set(found) <= {_DEFLATE, _SHUFFLE}:
        raise unreadable(name, f"is compressed by HDF5 filters {found}, not by deflate")
    return found


def _read_chunk(data: h5py.Dataset, at: tuple[int, ...], filters: list[int]) -> NDArray[Any]:
    """The chunk that begins at ``at``, of the chunks' shape."""
    skipped, stored = data.id.read_direct_chunk(at)
    applied = [kind for number, kind in enumerate(filters) if not skipped >> number & 1]
    size = int(np.prod(data.chunks)) * data.dtype.itemsize
    samples = np.frombuffer(_undo(stored, applied, size, data.dtype.itemsize), data.dtype)
    return samples.reshape(data.chunks)


def _undo(stored: bytes, filters: list[int], size: int, itemsize: int) -> bytes:
    """A chunk's bytes: exactly ``size`` of them, or a ValueError."""
    for kind in reversed(filters):
        if kind == _DEFLATE:
            stored = zlib.decompressobj().decompress(stored, size + 1)
        elif itemsize > 1 and len(stored) == size:
            stored = np.frombuffer(stored, np.uint8).reshape(itemsize, -1).T.tobytes()
    if len(stored) != size:
        raise ValueError(f"a chunk does not hold the {size} bytes that it should")
    return stored


def _calibration(metadata: h5py.Dataset | None, frame: int) -> Calibration | None:
    """Pixel size in the JSON text that is one column of ``Metadata``."""
    try:
        text = _metadata_text(metadata, frame)
        result = json.loads(text)["BinaryResult"] if text else {}
        size = plausible(
            length_nm(result["PixelSize"]["width"], result["PixelUnitX"]),
            length_nm(
                result["PixelSize"]["height"], result.get("PixelUnitY", result["PixelUnitX"])
            ),
        )
    except Exception:
        # Broken metadata must not cost the image.
        return None
    return Calibration(size, "Velox metadata") if size else None


def _metadata_text(metadata: h5py.Dataset | None, frame: int) -> str:
    if metadata is None or metadata.external or metadata.is_virtual or metadata.dtype != np.uint8:
        return ""
    if metadata.ndim != 2 or metadata.shape[0] > _MAX_METADATA_BYTES:
        return ""
    frame = min(frame, metadata.shape[1] - 1)
    if not metadata.chunks:
        column = np.asarray(metadata[:, frame])
    else:
        height, width = metadata.chunks
        if height * width > _MAX_METADATA_BYTES:
            return ""
        filters = _filters(metadata, "")
        starts = range(0, metadata.shape[0], height)
        parts = [_read_chunk(metadata, (top, frame // width * width), filters) for top in starts]
        column = np.concatenate([part[:, frame % width] for part in parts])[: metadata.shape[0]]
    return column.tobytes().split(b"\0", 1)[0].decode("utf-8")
