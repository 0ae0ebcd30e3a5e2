# SPDX-License-Identifier: GPL-3.0-or-later
"""OME-Zarr (NGFF 0.4 and 0.5) in a folder or a zip file, by zarr: the largest level of an image.

Chunks are checked before they are decoded: none may expand to more than its declared shape.
"""

import asyncio
import zipfile
from collections.abc import AsyncIterator, Iterable
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype

from granulo_core.imaging.reading.blocks import block_fits
from granulo_core.imaging.reading.chunk_codecs import ChunkGuard
from granulo_core.imaging.reading.lengths import length_nm, plausible
from granulo_core.imaging.reading.plane import Calibration, PlaneInfo, Window
from granulo_core.imaging.reading.problems import decoding, unreadable
from granulo_core.imaging.reading.source import Source

_ROOTS = ("zarr.json", ".zgroup", ".zattrs")
_METADATA = frozenset((*_ROOTS, ".zarray", ".zmetadata"))
_MAX_METADATA_BYTES = 1 << 24
_MAX_ENTRIES = 1 << 22


class OmeZarrFile:
    """An opened OME-Zarr image.

    Axes other than y and x (time, channel, z) are pages, the last of them running fastest. Chunks
    that were never written hold the fill value, as the format says.

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE
    """

    format = "OME-Zarr"

    def __init__(self, source: Source) -> None:
        self._source = source
        with decoding(source.name, self.format):
            files = _Folder(source.path) if source.is_folder else _Zip(source)
            self._store = _ReadOnlyStore(files)
            group = zarr.open_group(self._store, mode="r")
            scales = _multiscales(dict(group.attrs))
            if scales is None:
                raise unreadable(source.name, "is a Zarr folder without an OME image")
            self._array: Any = group[str(scales["datasets"][0]["path"])]
            if not isinstance(self._array, zarr.Array):
                raise unreadable(source.name, "has no array where its metadata tell of one")
            axes = _axes(scales, self._array.ndim)
        if axes[-2:] != ["y", "x"]:
            raise unreadable(source.name, f"has axes {axes}; y and x should be the last two")
        chunks = tuple(int(size) for size in self._array.chunks)
        height, width = (int(size) for size in self._array.shape[-2:])
        with decoding(source.name, self.format):
            self._store.guard = ChunkGuard.of(self._array)
            if not block_fits(prod(chunks), height * width):
                raise unreadable(source.name, f"declares chunks of {chunks} pixels")
            size = _pixel_size(scales, self._array.ndim)
        self.pages = prod(self._array.shape[:-2])
        self._block_shape = (min(chunks[-2], height), min(chunks[-1], width))
        self._info = PlaneInfo(
            height, width, np.dtype(self._array.dtype),
            calibration=Calibration(size, "OME-Zarr metadata") if size else None,
        )  # fmt: skip

    def plane(self, page: int) -> "_ArrayPlane":
        """The page ``page``, counted from 0."""
        index = np.unravel_index(page, self._array.shape[:-2]) if self._array.ndim > 2 else ()
        at = tuple(int(i) for i in index)
        return _ArrayPlane(self._source, self._array, at, self._info, self._block_shape)

    def close(self) -> None:
        """Let go of a zip file."""
        self._store.files.close()


class _ArrayPlane:
    """Two axes of an array."""

    def __init__(
        self,
        source: Source,
        array: Any,
        at: tuple[int, ...],
        info: PlaneInfo,
        block_shape: tuple[int, int],
    ) -> None:
        self.info = info
        self.block_shape = block_shape
        self._source = source
        self._array = array
        self._at = at

    def check_complete(self) -> None:
        """Nothing to check: what is missing holds the fill value."""

    def read(self, window: Window) -> NDArray[Any]:
        """Stored samples of a window, (h, w)."""
        with decoding(self._source.name, "OME-Zarr"):
            region = (slice(window.top, window.bottom), slice(window.left, window.right))
            return np.asarray(self._array[(*self._at, *region)])


class _Folder:
    """Files below a folder."""

    def __init__(self, root: Path | None) -> None:
        assert root is not None
        self._root = root.resolve()

    def read(self, key: str, most_bytes: int) -> bytes | None:
        path = self._root / key
        # A link may lead out of the folder.
        if not path.is_file() or not path.resolve().is_relative_to(self._root):
            return None
        if path.stat().st_size > most_bytes:
            raise ValueError(f"{key} is larger than it can be ({path.stat().st_size} bytes)")
        return path.read_bytes()

    def keys(self) -> Iterable[str]:
        return (
            path.relative_to(self._root).as_posix()
            for path in self._root.rglob("*")
            if path.is_file()
        )

    def close(self) -> None:
        """Nothing to let go of."""


class _Zip:
    """Entries of a zip file, at its top or below one folder."""

    def __init__(self, source: Source) -> None:
        source.file.seek(0)
        self._zip = zipfile.ZipFile(source.file)
        entries = self._zip.infolist()
        if len(entries) > _MAX_ENTRIES:
            raise unreadable(source.name, f"has {len(entries)} entries")
        self._entries = {entry.filename: entry for entry in entries}
        found = [PurePosixPath(name) for name in self._entries if name.split("/")[-1] in _ROOTS]
        tops = sorted({str(path.parent) for path in found}, key=lambda top: (top.count("/"), top))
        if not tops:
            raise unreadable(source.name, "is a zip file without an OME-Zarr image")
        self._top = "" if tops[0] == "." else tops[0] + "/"

    def read(self, key: str, most_bytes: int) -> bytes | None:
        entry = self._entries.get(self._top + key)
        if entry is None:
            return None
        if entry.file_size > most_bytes:
            raise ValueError(f"{key} is larger than it can be ({entry.file_size} bytes)")
        # zipfile gives no more than the declared size, and checks the sum.
        return self._zip.read(entry)

    def keys(self) -> Iterable[str]:
        return (name.removeprefix(self._top) for name in self._entries if name[-1:] != "/")

    def close(self) -> None:
        self._zip.close()


class _ReadOnlyStore(Store):
    """What zarr reads from; every chunk passes the guard first."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, files: _Folder | _Zip) -> None:
        super().__init__(read_only=True)
        self.files = files
        self.guard: ChunkGuard | None = None

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if byte_range is not None:
            raise ValueError("chunks within larger files (sharding) are not read; use OME-TIFF")
        data = await asyncio.to_thread(self._read, key)
        return None if data is None else prototype.buffer.from_bytes(data)

    def _read(self, key: str) -> bytes | None:
        if key.rsplit("/", 1)[-1] in _METADATA or self.guard is None:
            return self.files.read(key, _MAX_METADATA_BYTES)
        data = self.files.read(key, self.guard.most_bytes)
        if data is not None:
            self.guard.check(data, key)
        return data

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        return self.files.read(key, _MAX_METADATA_BYTES) is not None

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()  # it never is: raises zarr's own error

    async def delete(self, key: str) -> None:
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        for key in self.files.keys():  # noqa: SIM118 - no dictionary
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        start = prefix.rstrip("/") + "/" if prefix else ""
        seen = set()
        async for key in self.list_prefix(start):
            name = key.removeprefix(start).split("/")[0]
            if name not in seen:
                seen.add(name)
                yield name


def _multiscales(attributes: dict[str, Any]) -> Any:
    """NGFF 0.5 keeps it below ``ome``, 0.4 at the top."""
    inner = attributes.get("ome")
    found = (inner if isinstance(inner, dict) else attributes).get("multiscales")
    return found[0] if isinstance(found, list) and found else None


def _axes(scales: Any, ndim: int) -> list[str]:
    """Names of the axes; before 0.3 they were always these five, and are left out."""
    axes = scales.get("axes", list("tczyx"))
    names = [str(axis["name"] if isinstance(axis, dict) else axis).lower() for axis in axes]
    if len(names) != ndim or ndim < 2:
        raise ValueError(f"{len(names)} axes are named, the array has {ndim}")
    return names


def _pixel_size(scales: Any, ndim: int) -> Any:
    """Scales of the largest level and of all levels together, in the units of the axes."""
    factors = np.ones(ndim)
    for holder in (scales, scales["datasets"][0]):
        for step in holder.get("coordinateTransformations", ()):
            if step.get("type") == "scale":
                factors = factors * np.asarray(step["scale"], dtype=np.float64)
    axes = scales.get("axes", ())
    if len(axes) != ndim or not isinstance(axes[-1], dict):
        return None
    y, x = (length_nm(factors[i], axes[i].get("unit", "")) for i in (-2, -1))
    return plausible(x, y)
