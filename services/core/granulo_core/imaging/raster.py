# SPDX-License-Identifier: GPL-3.0-or-later
"""Stored samples of label images: those of a TIFF, PNG, BMP or JPEG, not made grey."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from granulo_core.imaging.reading.formats import open_picture
from granulo_core.imaging.reading.plane import Window
from granulo_core.imaging.reading.problems import DEFAULT_MAX_PX, check_size, unreadable
from granulo_core.imaging.reading.source import Source

__all__ = ["DEFAULT_MAX_PX", "Raster", "open_raster", "open_rasters", "unreadable"]

MAX_PAGES = 64
"""Of a file that is read as a whole."""


@dataclass(frozen=True)
class Raster:
    """The stored samples of one image of a file."""

    samples: NDArray[Any]
    """(H, W) or (H, W, C), any numeric type."""
    format: str
    """``TIFF``, ``PNG``, ``BMP`` or ``JPEG``."""


def open_raster(
    data: bytes | Path, *, max_px: int = DEFAULT_MAX_PX, name: str | None = None
) -> Raster:
    """Decode the first image of a file.

    Parameters
    ----------
    data : bytes or Path
        The file's content, or where it lies.
    max_px : int
        Largest accepted number of pixels.
    name : str, optional
        What the user calls the file, for messages.

    Returns
    -------
    Raster

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE for anything that is no intact TIFF, PNG, BMP or JPEG;
        IMAGE_TOO_LARGE above ``max_px``.
    """
    return _read_pages(data, 1, max_px, name)[0]


def open_rasters(
    data: bytes | Path, *, max_px: int = DEFAULT_MAX_PX, name: str | None = None
) -> list[Raster]:
    """Decode all images of a file of at most `MAX_PAGES`; otherwise as `open_raster`."""
    return _read_pages(data, MAX_PAGES, max_px, name)


def _read_pages(data: bytes | Path, most: int, max_px: int, name: str | None) -> list[Raster]:
    name = name or (data.name if isinstance(data, Path) else "the image")
    with Source(data, name) as source:
        file = open_picture(source)
        if file is None:
            raise unreadable(
                name,
                "is no TIFF, PNG, BMP or JPEG, whatever its name says; export it as TIFF or PNG",
            )
        try:
            if most > 1 and file.pages > most:
                raise unreadable(name, f"has {file.pages} pages; at most {most} are read")
            rasters = []
            for page in range(min(file.pages, most)):
                plane = file.plane(page)
                info = plane.info
                check_size(info.width_px, info.height_px, max_px, name)
                plane.check_complete()
                samples = plane.read(Window(0, info.height_px, 0, info.width_px))
                rasters.append(Raster(samples=samples, format=file.format))
            return rasters
        finally:
            file.close()
