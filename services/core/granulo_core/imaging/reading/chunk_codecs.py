# SPDX-License-Identifier: GPL-3.0-or-later
"""What a compressed Zarr chunk would expand to, before its decoder is called."""

import zlib
from dataclasses import dataclass
from math import prod
from typing import Any, Self

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_OVERHEAD_BYTES = 1 << 16
_HARMLESS = frozenset(("bytes", "transpose", "crc32c", "shuffle", "numcodecs.shuffle"))


@dataclass(frozen=True)
class ChunkGuard:
    """Knows how large a chunk of one array may be, stored and decoded."""

    decoded_bytes: int
    codecs: tuple[str, ...]
    """Names of its codecs in the order in which they encode."""

    @classmethod
    def of(cls, array: Any) -> Self:
        """The guard of a Zarr array; ValueError for codecs that cannot be checked."""
        metadata = array.metadata
        if metadata.zarr_format == 2:
            used = [
                *(metadata.filters or ()),
                *([metadata.compressor] if metadata.compressor else ()),
            ]
            names = tuple(str(getattr(codec, "codec_id", codec)) for codec in used)
        else:
            names = tuple(str(codec.to_dict()["name"]) for codec in metadata.codecs)
        unknown = set(names) - _HARMLESS - set(_DECLARED)
        if unknown:
            raise ValueError(f"chunks are coded by {', '.join(sorted(unknown))}; use blosc or zstd")
        return cls(prod(array.chunks) * array.dtype.itemsize, names)

    @property
    def most_bytes(self) -> int:
        """A stored chunk is hardly larger than a decoded one."""
        return self.decoded_bytes + self.decoded_bytes // 8 + _OVERHEAD_BYTES

    def check(self, stored: bytes, key: str) -> None:
        """Raise a ValueError for a chunk that expands to anything but its declared size."""
        for name in self.codecs:
            if name not in _DECLARED:
                continue
            size = _DECLARED[name](stored, self.most_bytes)
            if not 0 <= size <= self.most_bytes:
                raise ValueError(f"chunk {key} would expand beyond the {self.decoded_bytes} bytes "
                                 "that it should have")  # fmt: skip
            return


def _blosc_size(stored: bytes, _: int) -> int:
    return int.from_bytes(stored[4:8], "little") if len(stored) >= 16 else -1


def _lz4_size(stored: bytes, _: int) -> int:
    return int.from_bytes(stored[:4], "little", signed=True) if len(stored) >= 4 else -1


def _deflate_size(stored: bytes, limit: int) -> int:
    """Decode, but not beyond the limit: the stream itself does not tell its size."""
    return len(zlib.decompressobj(wbits=47).decompress(stored, limit + 1))


def _zstd_size(stored: bytes, _: int) -> int:
    """Content size in the header of a Zstandard frame (RFC 8878), -1 where it is left out."""
    if stored[:4] != _ZSTD_MAGIC or len(stored) < 6:
        return -1
    flags = stored[4]
    single, kind = flags >> 5 & 1, flags >> 6
    length = (1 if single else 0, 2, 4, 8)[kind]
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[flags & 3]
    if not length or len(stored) < at + length:
        return -1
    return int.from_bytes(stored[at : at + length], "little") + (256 if length == 2 else 0)


_DECLARED = {
    "blosc": _blosc_size, "lz4": _lz4_size, "zstd": _zstd_size, "gzip": _deflate_size,
    "zlib": _deflate_size, "numcodecs.lz4": _lz4_size, "numcodecs.zlib": _deflate_size,
}  # fmt: skip
