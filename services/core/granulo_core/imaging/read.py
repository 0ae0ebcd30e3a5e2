# SPDX-License-Identifier: GPL-3.0-or-later
"""Micrographs from files: grey levels, pixel size and where the data bar begins."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from granulo_core.errors import GranuloError, Reason
from granulo_core.imaging.databar import find_content_height
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.raster import DEFAULT_MAX_PX, Raster, open_raster, unreadable

MIN_SIDE_PX = 16
"""A smaller image cannot hold a particle that could be measured."""

_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_NM = {
    "m": 1e9, "cm": 1e7, "mm": 1e6, "µm": 1e3, "um": 1e3, "micron": 1e3, "microns": 1e3,
    "micrometer": 1e3, "micrometre": 1e3, "nm": 1.0, "nanometer": 1.0, "å": 0.1, "angstrom": 0.1,
    "pm": 1e-3, "fm": 1e-6,
}  # fmt: skip
# Programs write these two when nobody calibrated anything: they describe paper, not a sample.
_UNTRUSTED_UNITS = {"cm", "inch", "m"}
_PLAUSIBLE_NM = (1e-3, 1e6)


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

    @property
    def pixel_size_nm(self) -> tuple[float, float] | None:
        """``(x_nm, y_nm)`` or None."""
        return self.pixel_size.as_tuple() if self.pixel_size else None

    @property
    def content(self) -> NDArray[Any]:
        """(content_height_px, W) view without the data bar."""
        return self.pixels[: self.content_height_px]


def read_micrograph(
    data: bytes | Path, *, max_px: int = DEFAULT_MAX_PX, name: str | None = None
) -> Micrograph:
    """Read an image file as a micrograph.

    8-bit and 16-bit grey levels are kept, other numbers become float32 (values that are not finite
    become the lowest finite one), colours are reduced to their luminance. Of several pages the
    first is read. The pixel size is taken from Zeiss, FEI, OME and ImageJ metadata; bare resolution
    tags mean printing and are not believed.

    Parameters
    ----------
    data : bytes or Path
        TIFF, PNG, BMP or JPEG.
    max_px : int
        Largest accepted number of pixels.
    name : str, optional
        What the user calls the file, for messages; a path's own name by default.

    Returns
    -------
    Micrograph

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE, IMAGE_TOO_LARGE, IMAGE_TOO_SMALL (all INVALID_ARGUMENT).
    """
    name = name or (data.name if isinstance(data, Path) else "the image")
    raster = open_raster(data, max_px=max_px, name=name)
    height, width = raster.samples.shape[:2]
    if min(height, width) < MIN_SIDE_PX:
        raise GranuloError(
            Reason.IMAGE_TOO_SMALL,
            f"{name} has {width} × {height} pixels; at least {MIN_SIDE_PX} × {MIN_SIDE_PX} are "
            "needed to see a particle. Is it a thumbnail?",
            metadata={"image": name},
        )
    pixels = _to_grey(raster, name)
    pixel_size, origin = _pixel_size(raster)
    parts = [raster.format]
    if raster.pages > 1:
        parts.append(f"page 1 of {raster.pages}")
    if origin:
        parts.append(f"pixel size from {origin}")
    return Micrograph(
        pixels=pixels,
        pixel_size=pixel_size,
        content_height_px=find_content_height(pixels),
        source=", ".join(parts),
    )


def _to_grey(raster: Raster, name: str) -> NDArray[Any]:
    samples = raster.samples
    if raster.palette is not None:
        samples = _look_up(samples, raster.palette, name)
    if samples.dtype == np.bool_:
        samples = samples.astype(np.uint8) * np.uint8(255)
    if samples.dtype.kind not in "uif":
        raise unreadable(name, f"holds {samples.dtype} samples; export grey levels")
    if raster.white_is_zero and samples.dtype.kind == "u":
        samples = np.iinfo(samples.dtype).max - samples
    if samples.ndim == 3:
        samples = _luminance(samples)
    if samples.dtype in (np.uint8, np.uint16):
        return np.ascontiguousarray(samples)
    grey = samples.astype(np.float32)
    finite = np.isfinite(grey)
    if not finite.any():
        raise unreadable(name, "holds no finite grey level, only NaN or infinity")
    if not finite.all():
        grey[~finite] = grey[finite].min()
    return grey


def _look_up(indices: NDArray[Any], palette: NDArray[np.uint16], name: str) -> NDArray[Any]:
    if indices.ndim != 2 or int(indices.max()) >= len(palette):
        raise unreadable(name, "uses colours that its palette does not have")
    # Writers expand 8-bit colours to 16 bits by 256 or by 257; the high byte is the same.
    colours: NDArray[Any] = (palette >> 8).astype(np.uint8)[indices]
    return colours


def _luminance(samples: NDArray[Any]) -> NDArray[Any]:
    red: NDArray[Any] = samples[..., 0]
    if samples.shape[2] <= 2:
        return red
    if np.array_equal(red, samples[..., 1]) and np.array_equal(red, samples[..., 2]):
        return red
    grey = samples[..., :3].astype(np.float32) @ _LUMINANCE
    if samples.dtype.kind == "u" and samples.dtype.itemsize <= 2:
        grey = np.rint(grey).astype(samples.dtype)
    return np.asarray(grey)


def _pixel_size(raster: Raster) -> tuple[PixelSize | None, str]:
    found = raster.metadata
    width = raster.samples.shape[1]
    for origin, size in (
        ("the Zeiss tag", _zeiss(found.get("zeiss"), width)),
        ("the FEI tag", _fei(found.get("fei"))),
        ("OME-XML", _ome(found.get("ome"))),
        ("ImageJ's calibration", _imagej(found.get("imagej"), found.get("resolution"))),
    ):
        if size is not None:
            return size, origin
    return None, ""


def _plausible(x_nm: float, y_nm: float) -> PixelSize | None:
    low, high = _PLAUSIBLE_NM
    if all(math.isfinite(value) and low <= value <= high for value in (x_nm, y_nm)):
        return PixelSize(x_nm, y_nm)
    return None


def _zeiss(tag: Any, width_px: int) -> PixelSize | None:
    """The image's pixel size; ``ap_pixel_size`` is the screen's, which may have other pixels."""
    if not isinstance(tag, dict):
        return None
    size_nm = _zeiss_length_nm(tag.get("ap_image_pixel_size"))
    if size_nm is None:
        field_nm = _zeiss_length_nm(tag.get("ap_width"))
        size_nm = field_nm / width_px if field_nm else None
    return _plausible(size_nm, size_nm) if size_nm else None


def _zeiss_length_nm(entry: Any) -> float | None:
    if not isinstance(entry, tuple) or len(entry) < 3:
        return None
    unit = _NM.get(str(entry[2]).strip().lower().replace("μ", "µ"))
    try:
        return float(entry[1]) * unit if unit else None
    except (TypeError, ValueError):
        return None


def _fei(tag: Any) -> PixelSize | None:
    """Newer FEI and Thermo Fisher files; the old binary tag knows only a magnification."""
    if not isinstance(tag, dict):
        return None
    for section in ("Scan", "EScan", "IScan"):
        values = tag.get(section)
        if isinstance(values, dict) and "PixelWidth" in values:
            try:
                x_nm = float(values["PixelWidth"]) * 1e9
                y_nm = (
                    float(values["PixelHeight" if "PixelHeight" in values else "PixelWidth"]) * 1e9
                )
            except (TypeError, ValueError):
                continue
            return _plausible(x_nm, y_nm)
    return None


def _ome(text: Any) -> PixelSize | None:
    if not isinstance(text, str) or "<!ENTITY" in text or "<!DOCTYPE" in text:
        return None
    try:
        root = ET.fromstring(text)  # entities, the known danger, are refused above
    except ET.ParseError:
        return None
    for element in root.iter():
        if element.tag.rsplit("}", 1)[-1] != "Pixels":
            continue
        sizes = []
        for axis in ("X", "Y"):
            unit = element.get(f"PhysicalSize{axis}Unit", "µm").strip().lower().replace("μ", "µ")
            try:
                size = float(element.get(f"PhysicalSize{axis}") or "nan")
            except ValueError:
                return None
            sizes.append(size * _NM.get(unit, 0.0))
        return _plausible(sizes[0], sizes[1])
    return None


def _imagej(tag: Any, resolution: Any) -> PixelSize | None:
    if not isinstance(tag, dict) or not resolution:
        return None
    unit = str(tag.get("unit", "")).strip().lower()
    unit = re.sub(r"\\u00b5|μ", "µ", unit)
    if unit in _UNTRUSTED_UNITS or unit not in _NM or min(resolution) <= 0:
        return None
    return _plausible(_NM[unit] / float(resolution[0]), _NM[unit] / float(resolution[1]))
