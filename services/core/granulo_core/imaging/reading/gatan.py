# SPDX-License-Identifier: GPL-3.0-or-later
"""Gatan DM3 and DM4: the tags by rosettasciio, samples read where they lie."""

import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rsciio.digitalmicrograph._api import DigitalMicrographReader, ImageObject

from granulo_core.imaging.reading.lengths import length_nm, plausible
from granulo_core.imaging.reading.plane import Calibration, PlaneInfo, Window
from granulo_core.imaging.reading.problems import decoding, unreadable
from granulo_core.imaging.reading.source import Source
from granulo_core.imaging.reading.strided import StridedPlane

_MAX_CALLS = 3_000_000
"""Of the tag reader to the file; a file of 5,000 tags needs 200,000."""
_BGRA = (2, 1, 0, 3)


def is_gatan(head: bytes) -> bool:
    """Whether a file begins like a DM3 or DM4 file: its version, and which end comes first."""
    version = int.from_bytes(head[:4], "big")
    order = head[8:12] if version == 3 else head[12:16]
    return version in (3, 4) and order in (b"\0\0\0\1", b"\0\0\0\0")


class GatanFile:
    """An opened DM3 or DM4 file; each image and each layer of a stack is a page.

    Thumbnails, spectra and spectrum images are none.

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.format = "DM4" if source.head(4) == b"\0\0\0\4" else "DM3"
        with decoding(source.name, self.format):
            reader = _BoundedReader(source)
            reader.parse_file()
            found = [ImageObject(tags, reader.f) for tags in reader.get_image_dictionaries() or ()]
            images = [image for image in found if len(image.shape) in (2, 3)]
            self._images = [image for image in images if not image.to_spectrum]
            self._order: Literal["<", ">"] = "<" if reader.endian == "little" else ">"
            self._layers = [int(np.prod(image.shape[:-2])) for image in self._images]
        self.pages = sum(self._layers)
        if self.pages < 1 or min(self._layers) < 1:
            raise unreadable(source.name, f"is a {self.format} file without an image")

    def plane(self, page: int) -> StridedPlane:
        """The page ``page``, counted from 0."""
        with decoding(self._source.name, self.format):
            index = 0
            while page >= self._layers[index]:
                page -= self._layers[index]
                index += 1
            image = self._images[index]
            height, width = (int(size) for size in image.shape[-2:])
            stored = np.dtype(image.dtype)
            colours = stored.names is not None
            dtype = np.dtype(np.uint8) if colours else stored.newbyteorder(self._order)
            channels = 4 if colours else 1
            info = PlaneInfo(height, width, dtype, channels, calibration=_calibration(image))
            begin = int(image.imdict.ImageData.Data.offset)
            layer_bytes = height * width * channels * dtype.itemsize
            kind = _BgraPlane if colours else StridedPlane
            return kind(
                self._source,
                info,
                begin + page * layer_bytes,
                needs_bytes=begin + self._layers[index] * layer_bytes,
            )

    def close(self) -> None:
        """Nothing to let go of."""


class _BgraPlane(StridedPlane):
    """A page of colours in the order blue, green, red, alpha."""

    def read(self, window: Window) -> NDArray[Any]:
        """Red, green, blue and alpha of a window, (h, w, 4)."""
        return super().read(window)[..., _BGRA]


class _BoundedFile:
    """Reads forwards only, never beyond the end, and not for ever.

    The tag reader believes every count and length of a damaged file.
    """

    def __init__(self, source: Source) -> None:
        self._file = source.file
        self._size = source.size_bytes
        self._calls = 0
        self._at = 0

    def tell(self) -> int:
        self._count()
        return self._at

    def read(self, count: int) -> bytes:
        self._count()
        if not 0 <= count <= self._size - self._at:
            raise EOFError(f"a tag goes on beyond the end of the file at byte {self._at}")
        self._file.seek(self._at)
        self._at += count
        return self._file.read(count)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._count()
        target = offset if whence == io.SEEK_SET else self._at + offset
        if not self._at <= target <= self._size:
            raise EOFError(f"a tag at byte {self._at} leads to byte {target}")
        self._at = target
        return target

    def left(self) -> int:
        return self._size - self._at

    def _count(self) -> None:
        self._calls += 1
        if self._calls > _MAX_CALLS:
            raise ValueError("its tags have no end")


class _BoundedReader(DigitalMicrographReader):  # type: ignore[misc]
    """The tag reader, without arrays that are longer than the rest of the file."""

    def __init__(self, source: Source) -> None:
        super().__init__(_BoundedFile(source))

    def read_array(
        self, size: int, enc_eltype: int, extra: dict[str, Any] | None = None, skip: bool = False
    ) -> Any:
        if not 0 <= size <= self.f.left():
            raise EOFError(f"an array of {size} elements goes beyond the end of the file")
        return super().read_array(size, enc_eltype, extra=extra, skip=skip)


def _calibration(image: ImageObject) -> Calibration | None:
    """Scales of the two axes; units like 1/nm belong to a diffraction pattern and are none."""
    (y_scale, x_scale), (y_unit, x_unit) = image.scales[-2:], image.units[-2:]
    size = plausible(length_nm(x_scale, x_unit), length_nm(y_scale, y_unit))
    return Calibration(size, "Gatan tags") if size else None
