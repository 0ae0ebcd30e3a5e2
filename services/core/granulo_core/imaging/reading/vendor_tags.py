# SPDX-License-Identifier: GPL-3.0-or-later
"""Pixel sizes from the tags that instruments and programs write into TIFF files.

Every parser returns None for what it does not understand: a vendor's broken tag must not cost the
image.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.reading.lengths import (
    from_resolution,
    length_nm,
    plausible,
    unit_nm,
)
from granulo_core.imaging.reading.notes import calibration_from_notes, decode_notes
from granulo_core.imaging.reading.plane import Calibration
from granulo_core.imaging.reading.xml import local_name, parse_xml

_FEI_TITAN = 34683
_TESCAN = 50431
_GATAN_UNITS, _GATAN_SCALES = (65003, 65004), (65009, 65010)
_RESOLUTION_NM = {2: 25.4e6, 3: 1e7}
# Programs write these when nobody calibrated anything: they describe paper, not a sample.
_PAPER_UNITS = {"cm", "inch", "m", "centimeter", "meter"}


def calibrate(page: Any) -> Calibration | None:
    """Pixel size of a page of a TIFF.

    Parameters
    ----------
    page : tifffile.TiffPage

    Returns
    -------
    Calibration or None
        None where no tag tells it reliably.
    """
    readers: tuple[tuple[str, Callable[[Any], PixelSize | None]], ...] = (
        ("Zeiss tag", _zeiss),
        ("FEI tag", _fei),
        ("Thermo Fisher XML", _fei_titan),
        ("SIS tag", _sis),
        ("TVIPS tag", _tvips),
        ("Gatan tags", _gatan),
        ("JEOL XML", _jeol_reporter),
        ("OME-XML", _ome),
        ("ImageJ's calibration", _imagej),
    )
    for source, read in readers:
        with contextlib.suppress(Exception):
            size = read(page)
            if size is not None:
                return Calibration(size, source)
    for read_text in (_notes, _resolution):
        with contextlib.suppress(Exception):
            found = read_text(page)
            if found is not None:
                return found
    return None


def _zeiss(page: Any) -> PixelSize | None:
    """The image's pixel size; ``ap_pixel_size`` is the screen's, which may have other pixels."""
    tag = page.tags.valueof(34118)
    if not isinstance(tag, dict):
        return None
    size_nm = _zeiss_length_nm(tag.get("ap_image_pixel_size"))
    if size_nm is None:
        field_nm = _zeiss_length_nm(tag.get("ap_width"))
        size_nm = field_nm / page.imagewidth if field_nm else None
    return plausible(size_nm, size_nm)


def _zeiss_length_nm(entry: Any) -> float | None:
    if not isinstance(entry, tuple) or len(entry) < 3:
        return None
    return length_nm(entry[1], entry[2])


def _fei(page: Any) -> PixelSize | None:
    """Newer FEI and Thermo Fisher files; the old binary tag 34680 knows only a magnification."""
    for code in (34682, 34680):
        tag = page.tags.valueof(code)
        for section in ("Scan", "EScan", "IScan"):
            values = tag.get(section) if isinstance(tag, dict) else None
            if isinstance(values, dict) and "PixelWidth" in values:
                width = values["PixelWidth"]
                size = plausible(
                    length_nm(width, "m"), length_nm(values.get("PixelHeight", width), "m")
                )
                if size:
                    return size
    return None


def _fei_titan(page: Any) -> PixelSize | None:
    """XML of Thermo Fisher's TEM programs: ``PixelSize`` with ``X`` and ``Y``, unit m."""
    text = page.tags.valueof(_FEI_TITAN)
    root = parse_xml(decode_notes(text) if isinstance(text, bytes) else text)
    for element in root.iter() if root is not None else ():
        if local_name(element).lower() != "pixelsize":
            continue
        axes = {local_name(child).lower(): child for child in element}
        if "x" in axes and "y" in axes:
            sizes = [length_nm(axes[k].text, axes[k].get("unit", "m")) for k in ("x", "y")]
            return plausible(*sizes)
    return None


def _sis(page: Any) -> PixelSize | None:
    """Olympus Soft Imaging Solutions; in m."""
    for code in (33560, 33471):
        tag = page.tags.valueof(code)
        if isinstance(tag, dict) and "pixelsizex" in tag:
            return plausible(
                length_nm(tag["pixelsizex"], "m"), length_nm(tag.get("pixelsizey"), "m")
            )
    return None


def _tvips(page: Any) -> PixelSize | None:
    tag = page.tags.valueof(37706)
    if not isinstance(tag, dict):
        return None
    return plausible(length_nm(tag.get("PixelSizeX"), "nm"), length_nm(tag.get("PixelSizeY"), "nm"))


def _gatan(page: Any) -> PixelSize | None:
    """TIFF export of DigitalMicrograph: units and scales of both axes in private tags."""
    sizes = []
    for unit_code, scale_code in zip(_GATAN_UNITS, _GATAN_SCALES, strict=True):
        unit, scale = page.tags.valueof(unit_code), page.tags.valueof(scale_code)
        sizes.append(length_nm(scale, str(unit).strip("\0 ")))
    return plausible(*sizes)


def _jeol_reporter(page: Any) -> PixelSize | None:
    """JEOL's TEM program: the resolution tags at a magnification that its XML tells."""
    if "jeol" not in str(page.tags.valueof(271, default="")).lower():
        return None
    root = parse_xml("".join(c for c in page.description if c >= " " or c in "\r\n\t"))
    if root is None:
        return None
    texts = {local_name(element): (element.text or "").strip() for element in root.iter()}
    unit = _RESOLUTION_NM.get(int(page.resolutionunit))
    if texts.get("EosMode") != "eosTEM" or texts.get("ModeString") != "MAG" or not unit:
        return None
    magnification = float(texts["SelectorValue"])
    x, y = (float(value) for value in page.resolution)
    return plausible(unit / x / magnification, unit / y / magnification)


def _ome(page: Any) -> PixelSize | None:
    if not page.parent.is_ome:
        return None
    return ome_pixel_size(page.parent.pages.first.description)


def ome_pixel_size(text: str) -> PixelSize | None:
    """Pixel size of the first image of an OME-XML text."""
    root = parse_xml(text)
    for element in root.iter() if root is not None else ():
        if local_name(element) == "Pixels":
            sizes = [
                length_nm(
                    element.get(f"PhysicalSize{axis}"),
                    element.get(f"PhysicalSize{axis}Unit", "µm"),
                )
                for axis in ("X", "Y")
            ]
            return plausible(*sizes)
    return None


def _imagej(page: Any) -> PixelSize | None:
    tag = page.parent.imagej_metadata
    if not isinstance(tag, dict):
        return None
    factor = unit_nm(tag.get("unit", ""))
    if factor is None or str(tag.get("unit")).strip().lower() in _PAPER_UNITS:
        return None
    x, y = (float(value) for value in page.resolution)
    return plausible(factor / x, factor / y)


def _notes(page: Any) -> Calibration | None:
    """Text that SEM programs put into a tag: TESCAN's own, or JEOL's and Hitachi's notes."""
    for code in (_TESCAN, 270):
        value = page.tags.valueof(code)
        if isinstance(value, bytes | str):
            text = value if isinstance(value, str) else value.decode("latin-1")
            found = calibration_from_notes(text, page.imagewidth)
            if found:
                return Calibration(found.size, found.source.replace("notes", "tag"))
    return None


def _resolution(page: Any) -> Calibration | None:
    unit = _RESOLUTION_NM.get(int(page.resolutionunit))
    if unit is None:
        return None
    x, y = (float(value) for value in page.resolution)
    size = from_resolution(x, y, unit)
    return Calibration(size, "resolution tags") if size else None
