# SPDX-License-Identifier: GPL-3.0-or-later
"""MRC (CCP-EM 2014): the header by mrcfile, sections read where they lie."""

from typing import Any, Literal

import mrcfile
import mrcfile.dtypes
import mrcfile.utils
import numpy as np

from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.reading.lengths import plausible
from granulo_core.imaging.reading.plane import Calibration, PlaneInfo
from granulo_core.imaging.reading.problems import decoding, unreadable
from granulo_core.imaging.reading.source import Source
from granulo_core.imaging.reading.strided import StridedPlane

_HEADER_BYTES = 1024
_MAX_SECTIONS = 1 << 20
_ANGSTROM_NM = 0.1
# IMOD marks its files, and tells there whether the bytes of mode 0 have a sign.
_IMOD_STAMP, _IMOD_AT = 1146047817, 152


class MrcFile:
    """An opened MRC file; its sections are the pages, rows in the order of the file.

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE
    """

    format = "MRC"

    def __init__(self, source: Source) -> None:
        self._source = source
        head = source.read_at(0, _HEADER_BYTES)
        with decoding(source.name, self.format):
            order = mrcfile.utils.byte_order_from_machine_stamp(head[212:216])
            layout = mrcfile.dtypes.HEADER_DTYPE.newbyteorder(order)
            self._header = np.frombuffer(head, layout).view(np.recarray)[0]
            header = self._header
            width, height, self.pages = (int(header[key]) for key in ("nx", "ny", "nz"))
            if min(width, height, self.pages) < 1 or self.pages > _MAX_SECTIONS:
                raise unreadable(
                    source.name, f"declares a size of {width} × {height} × {self.pages} pixels"
                )
            dtype = mrcfile.utils.data_dtype_from_header(header)
            if int(header["mode"]) == 0 and _has_unsigned_bytes(head, order):
                dtype = np.dtype(np.uint8)
        self._offset = _HEADER_BYTES + int(header["nsymbt"])
        self._info = PlaneInfo(
            height, width, np.dtype(dtype), calibration=self._calibration(source)
        )
        self._section_bytes = height * width * self._info.dtype.itemsize

    def plane(self, page: int) -> StridedPlane:
        """The section ``page``, counted from 0."""
        end = self._offset + self.pages * self._section_bytes
        return StridedPlane(
            self._source, self._info, self._offset + page * self._section_bytes, needs_bytes=end
        )

    def close(self) -> None:
        """Nothing to let go of."""

    def _calibration(self, source: Source) -> Calibration | None:
        header = self._header
        size = _cell_size(header)
        if size is not None:
            return Calibration(size, "MRC header")
        size = _fei_size(source, header)
        return Calibration(size, "FEI's extended MRC header") if size else None


def _has_unsigned_bytes(head: bytes, order: Literal["<", ">"]) -> bool:
    stamp, flags = np.frombuffer(head, np.dtype(np.int32).newbyteorder(order), 2, _IMOD_AT)
    return int(stamp) == _IMOD_STAMP and not int(flags) & 1


def _cell_size(header: Any) -> PixelSize | None:
    """Cell over samples; exactly 1 Å is what programs write where nobody calibrated."""
    if int(header["mx"]) < 1 or int(header["my"]) < 1:
        return None
    x = float(header["cella"]["x"]) / int(header["mx"])
    y = float(header["cella"]["y"]) / int(header["my"])
    if x == y == 1.0:
        return None
    return plausible(x * _ANGSTROM_NM, y * _ANGSTROM_NM)


def _fei_size(source: Source, header: Any) -> PixelSize | None:
    """Pixel size in m in the extended header that Thermo Fisher's programs write."""
    kind = bytes(header["exttyp"])
    layout = mrcfile.dtypes.get_ext_header_dtype(kind, "<")
    if kind not in (b"FEI1", b"FEI2") or int(header["nsymbt"]) < layout.itemsize:
        return None
    if _HEADER_BYTES + layout.itemsize > source.size_bytes:
        return None
    entry = np.frombuffer(source.read_at(_HEADER_BYTES, layout.itemsize), layout)[0]
    return plausible(float(entry["Pixel size X"]) * 1e9, float(entry["Pixel size Y"]) * 1e9)
