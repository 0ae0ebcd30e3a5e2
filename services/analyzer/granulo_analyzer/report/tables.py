# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of a report's tables: plain text by column."""

import math
from collections.abc import Sequence

from granulo_analyzer.domain.ensemble import Ensemble, ImageSummary
from granulo_analyzer.domain.figures import WEIGHTINGS, Figure
from granulo_analyzer.domain.fits import Fit
from granulo_analyzer.domain.statistics import Distribution
from granulo_analyzer.report.words import UNKNOWN, interval, percent, significant, with_unit

Row = dict[str, str]

_NAMES = {
    "ecd": "ECD",
    "sqrt_area": "√area",
    "min_feret": "Min. Feret",
    "max_feret": "Max. Feret",
    "area": "Area",
    "aspect_ratio": "Aspect ratio",
    "circularity": "Circularity",
    "solidity": "Solidity",
}
_MEANS = {
    "mean": "arithmetic mean D[1,0]",
    "stddev": "standard deviation",
    "geometric_mean": "geometric mean",
    "gsd": "geometric standard deviation, GSD",
    "mode": "mode",
    "mean_volume_d30": "diameter of mean volume D[3,0]",
    "sauter_d32": "Sauter mean diameter D[3,2]",
    "volume_mean_d43": "volume-weighted mean D[4,3]",
}
_NEEDED = {
    "median": "median (D50 by number)",
    "mean_volume": "mean volume",
    "volume_d50": "D50 by volume",
    "volume_d90": "D90 by volume",
}
_FAMILIES = {"normal": "normal", "lognormal": "log-normal", "weibull": "Weibull"}
_PARAMETERS = {"stddev": "SD", "gsd": "GSD"}
_RATIOS = ("gsd", "shape", "share")
_LARGE_BIC = 10_000.0
_MIN_COUNT_FOR_TAILS = 5
"""Of fewer values a tenth lies beyond none (Hazen's rule)."""


def by_quantity(ensemble: Ensemble) -> list[Row]:
    """Every quantity, by number."""
    return [_quantity(item) for item in ensemble.distributions.values()]


def percentiles(ensemble: Ensemble) -> list[Row]:
    """D10, D50, D90 and span of the ECD by number, length, area and volume, with intervals."""
    figures, count = ensemble.distributions["ecd"].figures, ensemble.distributions["ecd"].count
    names: dict[str, tuple[str, ...]] = {"number": ("p10", "median", "p90", "span")}
    names |= {kind: tuple(f"{kind}_{part}" for part in _PARTS) for kind in WEIGHTINGS}
    rows = []
    for kind, keys in names.items():
        row = {"weighting": kind}
        for part, key in zip(_PARTS, keys, strict=True):
            row[part], row[f"{part}_interval"] = (
                (UNKNOWN, UNKNOWN)
                if part != "d50" and count < _MIN_COUNT_FOR_TAILS
                else _stated(figures[key], 3 if part == "span" else 4)
            )
        rows.append(row)
    return rows


_PARTS = ("d10", "d50", "d90", "span")


def means(ensemble: Ensemble) -> list[Row]:
    """Means and spreads of the ECD, with intervals and standard errors."""
    ecd = ensemble.distributions["ecd"]
    rows = []
    for key, name in _MEANS.items():
        if key not in ecd.figures:
            continue
        value, bounds = _stated(ecd.figures[key])
        error = significant(ecd.figures[key].standard_error, 2)
        label = with_unit(name, ecd.unit_of(key))
        rows.append({"name": label, "value": value, "interval": bounds, "error": error})
    return rows


def fits(ensemble: Ensemble) -> list[Row]:
    """The models of the distribution, by rising BIC."""
    found = ensemble.findings.fits
    best = found[0].bic if found else 0.0
    return [
        {
            "family": family(fit),
            "parameters": "; ".join(_parameter(fit, name, ensemble.unit) for name in _shown(fit)),
            "bic": _behind(fit.bic - best),
            "ks": significant(fit.ks_distance, 2),
        }
        for fit in found
    ]


def family(fit: Fit) -> str:
    """``log-normal``, ``2 log-normal components``."""
    if fit.is_mixture:
        return f"{fit.family.rpartition('_')[2]} log-normal components"
    return _FAMILIES[fit.family]


def budget(ensemble: Ensemble) -> list[Row]:
    """Lines of the uncertainty budget, and what they come to."""
    found = ensemble.findings.uncertainty
    if found is None:
        return []

    def row(name: str, size: float, source: str) -> Row:
        share = percent(size / found.median)
        return {"name": name, "value": significant(size, 2), "share": share, "source": source}

    lines = [row(line.name, line.standard_uncertainty, line.source) for line in found.lines]
    lines.append(row("combined", found.combined, "root of the sum of squares"))
    factor = f"k = {found.coverage_factor:.3g}, {percent(ensemble.settings.confidence_level)}"
    return [*lines, row("expanded", found.expanded, factor)]


def needed(ensemble: Ensemble) -> list[Row]:
    """How many particles make a figure as precise as is wanted."""
    return [
        {
            "figure": _NEEDED[item.figure],
            "bootstrap": _count(item.by_bootstrap),
            "formula": _count(item.by_formula),
        }
        for item in ensemble.findings.needed
    ]


def images(ensemble: Ensemble, most: int) -> list[Row]:
    """The first images, one a row."""
    return [_image(image) for image in ensemble.images[:most]]


def names_of(images: Sequence[ImageSummary]) -> str:
    """Names of the first images."""
    shown = ", ".join(image.name for image in images[:3])
    return shown if len(images) <= 3 else f"{shown} and {len(images) - 3} more"


def _stated(figure: Figure, digits: int = 4) -> tuple[str, str]:
    return significant(figure.value, digits), interval(figure, digits)


def _quantity(item: Distribution) -> Row:
    digits = 3 if item.unit == "1" else 4
    knows_tails = item.count >= _MIN_COUNT_FOR_TAILS
    mean = significant(item.mean, digits)
    return {
        "name": with_unit(_NAMES[item.quantity], item.unit),
        "count": str(item.count),
        "mean": f"{mean} ± {significant(item.stddev, 3)}" if item.count > 1 else mean,
        "median": significant(item.median, digits),
        "interval": interval(item.figures["median"], digits) if item.count > 1 else UNKNOWN,
        "p10": significant(item.p10, digits) if knows_tails else UNKNOWN,
        "p90": significant(item.p90, digits) if knows_tails else UNKNOWN,
        "gsd": significant(item.gsd, 3),
        "modes": ", ".join(significant(mode, 3) for mode in item.modes[:3]) or UNKNOWN,
    }


def _shown(fit: Fit) -> list[str]:
    """Parameters by component."""
    return (
        sorted(fit.parameters, key=lambda name: name.rpartition("_")[2])
        if fit.is_mixture
        else [*fit.parameters]
    )


def _parameter(fit: Fit, name: str, unit: str) -> str:
    base, _, number = name.partition("_")
    label = _PARAMETERS.get(base, base) + (f" {number}" if number else "")
    text = f"{label} {significant(fit.parameters[name], 3)}"
    bounds = fit.intervals.get(name)
    if bounds and all(map(math.isfinite, bounds)):
        text += f" ({significant(bounds[0], 3)} to {significant(bounds[1], 3)})"
    return text if base in _RATIOS else f"{text} {unit}"


def _behind(bic: float) -> str:
    return f"{bic:.1f}" if bic < _LARGE_BIC else f"above {_LARGE_BIC:,.0f}".replace(",", "\u202f")


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}".replace(",", "\u202f")


def _image(image: ImageSummary) -> Row:
    size = "unknown"
    if image.pixel_size_nm is not None:
        x_nm, y_nm = image.pixel_size_nm
        size = f"{x_nm:.5g} nm" if x_nm == y_nm else f"{x_nm:.5g} × {y_nm:.5g} nm"
    return {
        "name": image.name,
        "size": f"{image.width_px} × {image.height_px}",
        "pixel_size": size,
        "listed": str(image.listed),
        "at_frame": str(image.at_frame),
        "counted": str(image.counted),
        "coverage": f"{100 * image.coverage:.1f} %",
        "sqrt_area": significant(image.distributions["sqrt_area"].median),
        "ecd": significant(image.distributions["ecd"].median),
    }
