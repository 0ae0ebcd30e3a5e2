# SPDX-License-Identifier: GPL-3.0-or-later
"""Pixel sizes in the plain text that SEM programs write beside or into their images.

JEOL and Hitachi put a text file of the same name beside the image, TESCAN a `.hdr` file or a
private tag. All of them are lines of a key and a value.
"""

import re
from pathlib import Path

from granulo_core.imaging.reading.lengths import length_nm, plausible, quantity_nm
from granulo_core.imaging.reading.plane import Calibration

_MAX_BYTES = 1 << 20
_ENDINGS = (".txt", ".TXT", ".hdr", ".HDR")
# Image.tif has its notes in Image.txt (JEOL, Hitachi) or Image-tif.hdr (TESCAN).
_TESCAN_NAME = "{stem}-{ending}.hdr"


def calibration_from_notes(text: str, width_px: int) -> Calibration | None:
    """Pixel size from an instrument's notes.

    Parameters
    ----------
    text : str
    width_px : int
        Of the image: Hitachi's notes give the pixel of the image as it was scanned, which is
        another one where the image was saved at another size.

    Returns
    -------
    Calibration or None
    """
    return _jeol(text) or _hitachi(text, width_px) or _tescan(text)


def calibration_beside(path: Path, width_px: int) -> Calibration | None:
    """Pixel size from the notes that lie beside an image."""
    names = [path.with_suffix(ending) for ending in _ENDINGS]
    names.append(path.with_name(_TESCAN_NAME.format(stem=path.stem, ending=path.suffix[1:])))
    for notes in names:
        if notes == path:
            continue
        try:
            if not notes.is_file() or notes.stat().st_size > _MAX_BYTES:
                continue
            text = decode_notes(notes.read_bytes())
        except OSError:
            continue
        found = calibration_from_notes(text, width_px)
        if found:
            return Calibration(found.size, f"{found.source} in {notes.name}")
    return None


def decode_notes(data: bytes) -> str:
    """Text of unknown encoding: UTF-16 where it says so, UTF-8, or Windows' western one."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _value(text: str, key: str, between: str = r"\s*=\s*") -> str | None:
    found = re.search(rf"^[ \t]*{re.escape(key)}{between}([^\r\n\0]*)", text, re.MULTILINE)
    return found[1].strip() if found else None


def _jeol(text: str) -> Calibration | None:
    """``$$SM_MICRON_BAR 65`` is the scale bar in pixels, ``$$SM_MICRON_MARKER 100nm`` in nm."""
    bar_px = _value(text, "$$SM_MICRON_BAR", r"[ \t]+")
    marker = _value(text, "$$SM_MICRON_MARKER", r"[ \t]+")
    length = quantity_nm(marker) if marker else None
    try:
        bar = float((bar_px or "0").split()[0])
    except (ValueError, IndexError):
        return None
    if not length or bar <= 0:
        return None
    size = plausible(length / bar, length / bar)
    return Calibration(size, "JEOL notes") if size else None


def _hitachi(text: str, width_px: int) -> Calibration | None:
    """``PixelSize`` in nm, for an image of ``DataSize=1280x960`` pixels."""
    if "[SemImageFile]" not in text:
        return None
    pixel = length_nm(_value(text, "PixelSize"), "nm")
    scanned = re.match(r"(\d+)\s*x", _value(text, "DataSize") or "")
    if pixel and scanned and width_px and int(scanned[1]) > 0:
        pixel *= int(scanned[1]) / width_px
    size = plausible(pixel, pixel)
    return Calibration(size, "Hitachi notes") if size else None


def _tescan(text: str) -> Calibration | None:
    """``PixelSizeX`` and ``PixelSizeY`` in m."""
    x_nm = length_nm(_value(text, "PixelSizeX"), "m")
    y_nm = length_nm(_value(text, "PixelSizeY"), "m")
    size = plausible(x_nm, y_nm or x_nm)
    return Calibration(size, "TESCAN notes") if size else None
