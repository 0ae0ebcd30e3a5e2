# SPDX-License-Identifier: GPL-3.0-or-later
"""PNG, BMP and JPEG, by Pillow: one page, decoded as a whole."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from granulo_core.imaging.reading.jpeg import jpeg_is_complete
from granulo_core.imaging.reading.lengths import from_resolution
from granulo_core.imaging.reading.plane import Calibration, PlaneInfo, Window
from granulo_core.imaging.reading.problems import decoding, unreadable
from granulo_core.imaging.reading.source import Source

PICTURE_MAGIC = {b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP", b"\xff\xd8\xff": "JPEG"}

# The limits of `reading` are checked on the header, before decoding; Pillow's own fixed one would
# refuse images that the settings allow.
Image.MAX_IMAGE_PIXELS = None

_INCH_NM = 25.4e6
_DTYPES = {
    "1": "?", "L": "u1", "P": "u1", "LA": "u1", "RGB": "u1", "RGBA": "u1", "RGBX": "u1",
    "I;16": "<u2", "I;16B": ">u2", "I;16L": "<u2", "I;16N": "=u2", "I": "i4", "F": "f4",
}  # fmt: skip
_IEND = b"IEND\xaeB`\x82"


class PictureFile:
    """An opened PNG, BMP or JPEG.

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE
    """

    pages = 1

    def __init__(self, source: Source, kind: str) -> None:
        self.format = kind
        self._source = source
        with decoding(source.name, kind):
            source.file.seek(0)
            self._image: Image.Image = Image.open(source.file, formats=(kind,))

    def plane(self, page: int) -> "PicturePlane":
        """The only page."""
        return PicturePlane(self._source, self._image, self.format)

    def close(self) -> None:
        """Let go of the file."""
        self._image.close()


class PicturePlane:
    """The page of a picture, decoded when it is first read."""

    def __init__(self, source: Source, image: Image.Image, kind: str) -> None:
        mode = image.mode
        # What has no type here is converted to colours when it is decoded.
        shown = mode if mode in _DTYPES else "RGB"
        dtype = np.dtype(_DTYPES[shown])
        palette = None
        with decoding(source.name, kind):
            if mode == "P":
                colours = np.asarray(image.getpalette("RGB"), dtype=np.uint16).reshape(-1, 3)
                palette = (colours * 257).astype(np.uint16)
            calibration = _physical_size(image) if kind == "PNG" else None
        self.info = PlaneInfo(
            height_px=image.height,
            width_px=image.width,
            dtype=dtype,
            channels=len(Image.new(shown, (1, 1)).getbands()),
            palette=palette,
            calibration=calibration,
        )
        self.block_shape = (image.height, image.width)
        self._source = source
        self._image = image
        self._kind = kind
        self._samples: NDArray[Any] | None = None

    def check_complete(self) -> None:
        """Refuse a file whose end is missing even where the decoder would not care."""
        source = self._source
        if self._kind == "PNG":
            at = max(0, source.size_bytes - (1 << 16))
            complete = _IEND in source.read_at(at, source.size_bytes - at)
        elif self._kind == "JPEG":
            complete = jpeg_is_complete(source.read_at(0, source.size_bytes))
        else:
            complete = True
        if not complete:
            raise unreadable(
                source.name, f"is a {self._kind} without its end; copy it again from the microscope"
            )

    def read(self, window: Window) -> NDArray[Any]:
        """Stored samples of a window: (h, w), or (h, w, channels)."""
        if self._samples is None:
            with decoding(self._source.name, self._kind):
                image = self._image
                if image.mode not in _DTYPES:
                    image = image.convert("RGB")
                self._samples = np.asarray(image)
        return self._samples[window.top : window.bottom, window.left : window.right]


def _physical_size(image: Image.Image) -> Calibration | None:
    """PNG's pHYs chunk; nearly always it tells of a screen, and then it is ignored."""
    dpi = image.info.get("dpi")
    if not isinstance(dpi, tuple) or len(dpi) != 2:
        return None
    size = from_resolution(float(dpi[0]), float(dpi[1]), _INCH_NM)
    return Calibration(size, "PNG's pHYs") if size else None
