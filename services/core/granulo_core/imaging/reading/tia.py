# SPDX-License-Identifier: GPL-3.0-or-later
"""FEI's TIA: SER series of images, and the EMI files that go with them.

A SER file is a short header, a table of offsets and plain samples; libraries read all of its
images at once, into arrays of whatever size it declares. The layout is that of C. Boothroyd's
description of the format.
"""

import re
import struct
from pathlib import Path

import numpy as np

from granulo_core.imaging.reading.lengths import plausible
from granulo_core.imaging.reading.plane import Calibration, PlaneInfo
from granulo_core.imaging.reading.problems import unreadable
from granulo_core.imaging.reading.source import Source
from granulo_core.imaging.reading.strided import StridedPlane

SER_MAGIC = b"II\x97\x01"

_HEADER = struct.Struct("<HHHIIII")
_IMAGES, _SPECTRA = 0x4122, 0x4120
_LONG_OFFSETS = 0x0220
_ELEMENT = struct.Struct("<ddiddihii")
_DTYPES = {
    1: "<u1", 2: "<u2", 3: "<u4", 4: "<i1", 5: "<i2", 6: "<i4", 7: "<f4", 8: "<f8", 9: "<c8",
    10: "<c16",
}  # fmt: skip


class SerFile:
    """An opened SER file; its images are the pages.

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE
    """

    format = "SER"

    def __init__(self, source: Source) -> None:
        self._source = source
        _, _, version, kind, _, total, valid = _HEADER.unpack(source.read_at(0, _HEADER.size))
        if kind == _SPECTRA:
            raise unreadable(source.name, "holds spectra, not images")
        if kind != _IMAGES:
            raise unreadable(source.name, f"is a SER file of an unknown kind (0x{kind:04x})")
        if not 1 <= valid <= total:
            raise unreadable(source.name, f"holds {valid} of {total} images; export it again")
        offset = np.dtype("<u8") if version >= _LONG_OFFSETS else np.dtype("<u4")
        (table,) = np.frombuffer(source.read_at(_HEADER.size, offset.itemsize), offset)
        self.pages = valid
        self._offsets = np.frombuffer(source.read_at(int(table), valid * offset.itemsize), offset)
        last = int(self._offsets.max())
        self._needs_bytes = last + _ELEMENT.size + self._describe(last).stored_bytes

    def plane(self, page: int) -> StridedPlane:
        """The image ``page``, counted from 0."""
        begin = int(self._offsets[page])
        # The first row is the lowest.
        return StridedPlane(
            self._source,
            self._describe(begin),
            begin + _ELEMENT.size,
            bottom_up=True,
            needs_bytes=self._needs_bytes,
        )

    def _describe(self, begin: int) -> PlaneInfo:
        """What the header of the image at ``begin`` tells."""
        source = self._source
        _, x_delta, _, _, y_delta, _, code, width, height = _ELEMENT.unpack(
            source.read_at(begin, _ELEMENT.size)
        )
        if code not in _DTYPES or min(width, height) < 1:
            raise unreadable(
                source.name, f"declares {width} × {height} pixels of the unknown type {code}"
            )
        # In m; of a diffraction pattern in 1/m, which is far beyond any pixel.
        size = plausible(abs(x_delta) * 1e9, abs(y_delta) * 1e9)
        calibration = Calibration(size, "SER header") if size else None
        return PlaneInfo(height, width, np.dtype(_DTYPES[code]), calibration=calibration)

    def close(self) -> None:
        """Nothing to let go of."""


class EmiFile:
    """An opened EMI file: the images are in the SER files beside it, ``name_1.ser`` and so on."""

    format = "EMI"

    def __init__(self, source: Source) -> None:
        if source.path is None:
            raise unreadable(
                source.name,
                "is an EMI file, whose images lie in the SER files beside it; give name_1.ser",
            )
        self._sources: list[Source] = []
        self._series: list[SerFile] = []
        try:
            for path in _series_beside(source.path):
                self._sources.append(Source(path, path.name))
                self._series.append(_open_series(self._sources[-1]))
        except BaseException:
            self.close()
            raise
        if not self._series:
            raise unreadable(
                source.name,
                f"needs its SER files beside it, and there is no {source.path.stem}_1.ser",
            )
        self.pages = sum(series.pages for series in self._series)

    def plane(self, page: int) -> StridedPlane:
        """The image ``page``, counted from 0 through all series."""
        index = 0
        while page >= self._series[index].pages:
            page -= self._series[index].pages
            index += 1
        return self._series[index].plane(page)

    def close(self) -> None:
        """Let go of the SER files."""
        for source in self._sources:
            source.close()


def _series_beside(path: Path) -> list[Path]:
    name = re.compile(rf"{re.escape(path.stem)}_(\d+)\.ser", re.IGNORECASE)
    found = [(name.fullmatch(other.name), other) for other in path.parent.iterdir()]
    return [other for _, other in sorted((int(m[1]), other) for m, other in found if m)]


def _open_series(source: Source) -> SerFile:
    if source.head(len(SER_MAGIC)) != SER_MAGIC:
        raise unreadable(source.name, "is no SER file, whatever its name says")
    return SerFile(source)
