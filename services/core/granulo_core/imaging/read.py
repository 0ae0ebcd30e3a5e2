# SPDX-License-Identifier: GPL-3.0-or-later
"""Micrographs from files: grey levels, pixel size and where the data bar begins.

The single way in, whatever instrument wrote the file: `read_micrograph` reads one whole,
`open_micrograph` region by region, `count_pages` tells how many there are. docs/formats.md lists
the formats and what of them is read.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from granulo_core.errors import GranuloError, Reason
from granulo_core.imaging.databar import find_content_height
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.reading.problems import DEFAULT_MAX_PX
from granulo_core.imaging.reading.region import OpenMicrograph, count_pages, open_micrograph

__all__ = [
    "DEFAULT_MAX_PX",
    "MIN_SIDE_PX",
    "Micrograph",
    "OpenMicrograph",
    "count_pages",
    "open_micrograph",
    "read_micrograph",
]

MIN_SIDE_PX = 16
"""A smaller image cannot hold a particle that could be measured."""


@dataclass(frozen=True)
class Micrograph:
    """One grey image with what its file tells of it."""

    pixels: NDArray[Any]
    """(H, W) uint8, uint16 or float32; the whole image, with the data bar if there is one."""
    pixel_size: PixelSize | None
    """None where the file does not tell it reliably."""
    content_height_px: int
    """Rows ``[0, content_height_px)`` are the micrograph, below is a data bar; H without one."""
    source: str
    """What was read, for people: ``TIFF, page 1 of 3, pixel size from the Zeiss tag``."""
    pixel_size_source: str = ""
    """Who says the pixel size: ``user``, ``Zeiss tag`` and so on; empty where nobody does."""
    page: int = 0
    """Which of the file's images this is, counted from 0."""
    pages: int = 1
    """How many images the file holds."""

    @property
    def pixel_size_nm(self) -> tuple[float, float] | None:
        """``(x_nm, y_nm)`` or None."""
        return self.pixel_size.as_tuple() if self.pixel_size else None

    @property
    def content(self) -> NDArray[Any]:
        """(content_height_px, W) view without the data bar."""
        return self.pixels[: self.content_height_px]


def read_micrograph(
    data: bytes | Path,
    *,
    max_px: int = DEFAULT_MAX_PX,
    name: str | None = None,
    page: int = 0,
    pixel_size: PixelSize | None = None,
) -> Micrograph:
    """Read an image file as a micrograph.

    8-bit and 16-bit grey levels are kept, other numbers become float32 (values that are not finite
    become the lowest finite one), colours are reduced to their luminance. Its content decides what
    a file is, not its name.

    Parameters
    ----------
    data : bytes or Path
        Any format of docs/formats.md.
    max_px : int
        Largest accepted number of pixels.
    name : str, optional
        What the user calls the file, for messages; a path's own name by default.
    page : int
        Which image of the file, counted from 0.
    pixel_size : PixelSize, optional
        What the user says goes before what the file says.

    Returns
    -------
    Micrograph

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE, IMAGE_TOO_LARGE, IMAGE_TOO_SMALL, FIELD_INVALID for a page that the file
        does not have (all INVALID_ARGUMENT).
    """
    with open_micrograph(
        data, page=page, max_px=max_px, max_image_px=max_px, name=name, pixel_size=pixel_size
    ) as opened:
        height, width = opened.shape
        if min(height, width) < MIN_SIDE_PX:
            raise GranuloError(
                Reason.IMAGE_TOO_SMALL,
                f"{opened.name} has {width} × {height} pixels; at least {MIN_SIDE_PX} × "
                f"{MIN_SIDE_PX} are needed to see a particle. Is it a thumbnail?",
                metadata={"image": opened.name},
            )
        pixels = opened.read_whole()
        return Micrograph(
            pixels=pixels,
            pixel_size=opened.pixel_size,
            content_height_px=find_content_height(pixels),
            source=opened.source,
            pixel_size_source=opened.pixel_size_source,
            page=opened.page,
            pages=opened.pages,
        )
