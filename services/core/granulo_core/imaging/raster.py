# SPDX-License-Identifier: GPL-3.0-or-later
"""Strict decoding of image files: the first image of a TIFF, PNG, BMP or JPEG, or a clear refusal.

The header is checked before anything is decoded, so that a small file that declares a huge image
costs nothing.
"""

import contextlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from granulo_core.errors import GranuloError, Reason

DEFAULT_MAX_PX = 16384 * 16384
"""Largest image that is decoded unless the caller says otherwise."""

# The limit of this module is checked on the header, before decoding; Pillow's own fixed one would
# refuse images that the settings allow.
Image.MAX_IMAGE_PIXELS = None

_TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_PILLOW_MAGIC = {b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP", b"\xff\xd8\xff": "JPEG"}
_MAX_CHANNELS = 4


@dataclass(frozen=True)
class Raster:
    """The stored samples of a file's first image, not yet turned into grey levels."""

    samples: NDArray[Any]
    """(H, W) or (H, W, C), any numeric type."""
    format: str
    """``TIFF``, ``PNG``, ``BMP`` or ``JPEG``."""
    pages: int = 1
    """Images in the file; only the first is decoded."""
    palette: NDArray[np.uint16] | None = None
    """(N, 3): colours of a palette image, whose samples are indices."""
    white_is_zero: bool = False
    """The samples grow from white to black."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Of a TIFF: ``zeiss``, ``fei``, ``imagej`` dictionaries, ``ome`` text, ``resolution``."""


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
    if isinstance(data, Path):
        name = name or data.name
        try:
            data = data.read_bytes()
        except OSError as error:
            raise unreadable(name, f"cannot be opened ({error.strerror or error})") from error
    name = name or "the image"
    if not data:
        raise unreadable(name, "is empty (0 bytes); copy it again from the microscope")
    if data[:4] in _TIFF_MAGIC:
        return _open_tiff(data, max_px, name)
    for magic, kind in _PILLOW_MAGIC.items():
        if data.startswith(magic):
            return _open_pillow(data, kind, max_px, name)
    raise unreadable(
        name, "is no TIFF, PNG, BMP or JPEG, whatever its name says; export it as TIFF or PNG"
    )


def unreadable(name: str, problem: str) -> GranuloError:
    """Make the IMAGE_UNREADABLE error: ``name`` and what is wrong with it."""
    return GranuloError(Reason.IMAGE_UNREADABLE, f"{name} {problem}.", metadata={"image": name})


def _check_size(width: int, height: int, max_px: int, name: str) -> None:
    if width < 1 or height < 1:
        raise unreadable(name, f"declares a size of {width} × {height} pixels")
    if width * height > max_px:
        raise GranuloError(
            Reason.IMAGE_TOO_LARGE,
            f"{name} has {width} × {height} = {width * height} pixels, more than the limit of "
            f"{max_px}; crop it or raise GRANULO_MAX_IMAGE_PX.",
            metadata={"image": name, "max_px": str(max_px)},
        )


def _open_tiff(data: bytes, max_px: int, name: str) -> Raster:
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages.first
            _check_size(page.imagewidth, page.imagelength, max_px, name)
            if page.imagedepth != 1 or page.samplesperpixel > _MAX_CHANNELS:
                raise unreadable(
                    name,
                    f"has {page.samplesperpixel} channels and {page.imagedepth} layers; export one "
                    "grey or RGB image",
                )
            _check_complete(page, len(data), name)
            samples = np.asarray(page.asarray())
            if page.axes == "SYX":
                samples = np.moveaxis(samples, 0, -1)
            elif page.axes not in ("YX", "YXS"):
                raise unreadable(name, f"holds an unusual arrangement of axes ({page.axes})")
            if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
                raise unreadable(name, "holds printing colours (CMYK); export it as grey or RGB")
            palette = None
            if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
                palette = np.asarray(page.colormap, dtype=np.uint16).T
            return Raster(
                samples=samples,
                format="TIFF",
                pages=len(tiff.pages),
                palette=palette,
                white_is_zero=page.photometric == tifffile.PHOTOMETRIC.MINISWHITE,
                metadata=_tiff_metadata(tiff, page),
            )
    except GranuloError:
        raise
    except Exception as error:
        # Damaged files make the decoders fail in every way there is.
        raise _damaged(name, "TIFF", error) from error


def _check_complete(page: Any, size_bytes: int, name: str) -> None:
    """Refuse missing strips, which decoders would silently fill with zeros."""
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        if count <= 0 or offset + count > size_bytes:
            raise unreadable(
                name,
                f"is cut off: image data should reach byte {offset + count}, the file has "
                f"{size_bytes}; copy it again from the microscope",
            )
    if not page.dataoffsets:
        raise unreadable(name, "is a TIFF without image data")


def _tiff_metadata(tiff: Any, page: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"ome": page.description if page.is_ome else None}
    for key, owner, attribute in (
        ("zeiss", tiff, "sem_metadata"),
        ("fei", tiff, "fei_metadata"),
        ("imagej", tiff, "imagej_metadata"),
        ("resolution", page, "resolution"),
    ):
        # A vendor's broken tag must not cost the image.
        with contextlib.suppress(Exception):
            found[key] = getattr(owner, attribute)
    return {key: value for key, value in found.items() if value}


def _open_pillow(data: bytes, kind: str, max_px: int, name: str) -> Raster:
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as opened:
            image: Image.Image = opened
            _check_size(image.width, image.height, max_px, name)
            pages = int(getattr(image, "n_frames", 1))
            palette = None
            if image.mode == "P":
                colours = np.asarray(image.getpalette("RGB"), dtype=np.uint16).reshape(-1, 3)
                palette = (colours * 257).astype(np.uint16)
            elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "PA"):
                image = image.convert("RGB")
            samples = np.asarray(image)
            return Raster(samples=samples, format=kind, pages=pages, palette=palette)
    except GranuloError:
        raise
    except Exception as error:
        raise _damaged(name, kind, error) from error


def _damaged(name: str, kind: str, error: Exception) -> GranuloError:
    detail = str(error).strip().splitlines()
    return unreadable(
        name,
        f"is a damaged or incomplete {kind} ({detail[0][:120] if detail else type(error).__name__})"
        "; copy it again from the microscope",
    )
