# SPDX-License-Identifier: GPL-3.0-or-later
"""Lengths as files write them, and which of them can be a pixel of a microscope's image."""

import math
import re

from granulo_core.imaging.pixels import PixelSize

_NM = {
    "m": 1e9, "meter": 1e9, "meters": 1e9, "metre": 1e9, "cm": 1e7, "centimeter": 1e7, "mm": 1e6,
    "millimeter": 1e6, "µm": 1e3, "um": 1e3, "micron": 1e3, "microns": 1e3, "micrometer": 1e3,
    "micrometre": 1e3, "nm": 1.0, "nanometer": 1.0, "nanometre": 1.0, "å": 0.1, "a": 0.1,
    "angstrom": 0.1, "pm": 1e-3, "picometer": 1e-3, "fm": 1e-6,
}  # fmt: skip
_PLAUSIBLE_NM = (1e-3, 1e6)
MICROSCOPIC_NM = 200.0
"""Resolution tags are believed below this: 127,000 dots per inch, which nobody prints or shows."""
_MOST_ANISOTROPIC = 4.0
_QUANTITY = re.compile(r"\s*([-+0-9.eE]+)\s*([^\W\d_]+)\s*")


def unit_nm(unit: object) -> float | None:
    """Nanometres of a unit of length, None where it is none (``px``, ``1/nm``, empty)."""
    text = re.sub(r"\\u00b5|μ", "µ", str(unit).strip().lower())
    return _NM.get(text)


def length_nm(value: object, unit: object) -> float | None:
    """A length in nm; None where number or unit cannot be understood."""
    factor = unit_nm(unit)
    try:
        return float(str(value)) * factor if factor else None
    except ValueError:
        return None


def quantity_nm(text: object) -> float | None:
    """A length written as one text, ``100nm`` or ``1.5 µm``, in nm."""
    found = _QUANTITY.fullmatch(str(text))
    return length_nm(found[1], found[2]) if found else None


def plausible(x_nm: float | None, y_nm: float | None) -> PixelSize | None:
    """A pixel size where both numbers can be one: between 1 pm and 1 mm, and not a thin line."""
    if x_nm is None or y_nm is None:
        return None
    low, high = _PLAUSIBLE_NM
    if not all(math.isfinite(value) and low <= value <= high for value in (x_nm, y_nm)):
        return None
    if not 1 / _MOST_ANISOTROPIC <= x_nm / y_nm <= _MOST_ANISOTROPIC:
        return None
    return PixelSize(x_nm, y_nm)


def from_resolution(
    x_per_unit: float, y_per_unit: float, unit_length_nm: float
) -> PixelSize | None:
    """Pixel size from pixels per inch or centimetre, where it is plainly microscopic."""
    if min(x_per_unit, y_per_unit) <= 0:
        return None
    size = plausible(unit_length_nm / x_per_unit, unit_length_nm / y_per_unit)
    if size is None or max(size.as_tuple()) > MICROSCOPIC_NM:
        return None
    return size
