# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers as a report writes them."""

import math

from granulo_analyzer.domain.figures import Figure

UNKNOWN = "–"
"""For what a sample cannot tell."""
_UNITS = {"nm": "nm", "nm2": "nm²", "[px]": "px", "[px]2": "px²", "1": ""}


def significant(value: float, digits: int = 4) -> str:
    """Write a number with so many significant digits, never with an exponent below a million.

    Parameters
    ----------
    value : float
        NaN becomes a dash.
    digits : int

    Returns
    -------
    str
    """
    if not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude >= 7:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - magnitude)}f}"


def interval(figure: Figure, digits: int = 4) -> str:
    """``12.3 to 14.1``; a dash where no interval can be stated."""
    if not (math.isfinite(figure.lower) and math.isfinite(figure.upper)):
        return UNKNOWN
    return f"{significant(figure.lower, digits)} to {significant(figure.upper, digits)}"


def percent(share: float) -> str:
    """``95 %``; a dash for NaN."""
    return f"{100 * share:.3g} %" if math.isfinite(share) else UNKNOWN


def plural(count: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def unit(ucum: str) -> str:
    """A unit as people write it; empty for a ratio."""
    return _UNITS[ucum]


def with_unit(name: str, ucum: str) -> str:
    """``ECD (nm)``."""
    return f"{name} ({unit(ucum)})" if unit(ucum) else name
