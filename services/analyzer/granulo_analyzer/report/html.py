# SPDX-License-Identifier: GPL-3.0-or-later
"""The report: one HTML file with everything in it, to be read, printed and kept."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from granulo_analyzer.domain import statistics as stats
from granulo_analyzer.domain.ensemble import Ensemble, ImageSummary
from granulo_analyzer.domain.statistics import Distribution
from granulo_analyzer.report.figures import image_figure, svg_text

MAX_PICTURES = 24
"""More overlays than this stay in their folder: a report of hundreds of MB opens nowhere."""
_MANY_AT_FRAME = 0.25

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
_UNITS = {"nm": "nm", "nm2": "nm²", "[px]": "px", "[px]2": "px²", "1": ""}


@dataclass(frozen=True)
class LineageItem:
    """Something the analysis was made from."""

    role: str
    """``segmentation``, ``labels``, ``micrograph``, ``model``."""
    name: str
    digest: str
    """Empty where only the name is known."""


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from."""

    resource: str
    """``analyses/<id>``."""
    created: str
    """Date for people."""
    lineage: tuple[LineageItem, ...]
    producer: Mapping[str, Any]
    """``version``, ``git_revision`` and ``packages`` of the maker."""


def render_report(
    ensemble: Ensemble,
    provenance: Provenance,
    *,
    histogram_svg: str,
    previews: Sequence[bytes],
) -> str:
    """Write the report of an analysis.

    Parameters
    ----------
    ensemble : Ensemble
    provenance : Provenance
    histogram_svg : str
        Figure 1.
    previews : sequence of bytes
        JPEG overlays of the first images, at most `MAX_PICTURES`.

    Returns
    -------
    str
        A whole HTML page that loads nothing.
    """
    count = len(ensemble.images)
    return _template().render(
        title="Particle size and shape",
        subtitle=_names_of(ensemble.images),
        created=provenance.created,
        abstract=_abstract(ensemble),
        notes=_notes(ensemble),
        key_figures=_key_figures(ensemble),
        histogram_svg=histogram_svg,
        fit_sentence=_fit_sentence(ensemble),
        counted=ensemble.counted,
        statistics=[_row(item) for item in ensemble.distributions.values()],
        images=[_image_row(image) for image in ensemble.images],
        pictures=[_picture(ensemble, place, jpeg) for place, jpeg in enumerate(previews)],
        left_out=count - len(previews),
        rule=ensemble.settings.rule,
        level=_percent(ensemble.settings.confidence_level),
        scheme=ensemble.findings.scheme,
        unit=ensemble.unit,
        unit_sentence=_unit_sentence(ensemble),
        min_modes=stats.MIN_COUNT_FOR_MODES,
        resamples=ensemble.settings.replicates,
        bootstrap_seed=ensemble.settings.seed,
        lineage=provenance.lineage,
        resource=provenance.resource,
        producer=provenance.producer,
    )


def significant(value: float, digits: int = 4) -> str:
    """Write a number with so many significant digits, never with an exponent below a million.

    Parameters
    ----------
    value : float
        NaN is what a sample cannot tell, and becomes a dash.
    digits : int

    Returns
    -------
    str
    """
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude >= 7:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - magnitude)}f}"


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("granulo_analyzer", "report"),
        autoescape=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("report.html.j2")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _names_of(images: Sequence[ImageSummary]) -> str:
    shown = ", ".join(image.name for image in images[:3])
    return shown if len(images) <= 3 else f"{shown} and {len(images) - 3} more"


def _abstract(ensemble: Ensemble) -> str:
    where = _plural(len(ensemble.images), "image")
    if not ensemble.listed:
        return f"No particle was found in {where}."
    if not ensemble.counted:
        return f"Every particle found in {where} touches the frame; none could be counted."
    ecd, unit = ensemble.distributions["ecd"], ensemble.unit
    level = _percent(ensemble.settings.confidence_level)
    text = (
        f"{_plural(ensemble.counted, 'particle')} in {where} "
        f"{'was' if ensemble.counted == 1 else 'were'} measured. "
        f"The median equivalent circular diameter is {significant(ecd.median)} {unit}"
    )
    if ecd.count > 1:
        text += (
            f" ({level} interval {significant(ecd.median_low)} to {significant(ecd.median_high)} "
            f"{unit}); ten per cent of the particles are below {significant(ecd.p10)} {unit} and "
            f"ten per cent above {significant(ecd.p90)} {unit}"
        )
    at_frame = ensemble.at_frame
    if at_frame:
        verb = "touches" if at_frame == 1 else "touch"
        text += (
            f". {at_frame} more {verb} the frame and {'is' if at_frame == 1 else 'are'} left out"
        )
    return text + "."


def _notes(ensemble: Ensemble) -> list[str]:
    notes = ensemble.warnings()
    known = sum(image.pixel_size_nm is not None for image in ensemble.images)
    if not known:
        notes.append(
            "The pixel size is unknown: all lengths are in pixels. Give it with the images to get "
            "nanometres."
        )
    elif ensemble.unit == "px":
        notes.append(
            f"Only {known} of {len(ensemble.images)} images have a pixel size, so that the set is "
            "reported in pixels; images of different magnification are then not comparable."
        )
    empty = [image.name for image in ensemble.images if not image.listed]
    if empty and ensemble.listed:
        notes.append(f"No particle was found in {', '.join(empty[:5])}{'…' * (len(empty) > 5)}.")
    share = ensemble.at_frame / ensemble.listed if ensemble.listed else 0.0
    if ensemble.counted and share > _MANY_AT_FRAME:
        notes.append(
            f"{100 * share:.0f} % of the particles touch the frame. The large ones among them are "
            "missing from the distribution more often than the small ones; a lower magnification "
            "would help."
        )
    return notes


def _key_figures(ensemble: Ensemble) -> list[dict[str, str]]:
    ecd, root = ensemble.distributions["ecd"], ensemble.distributions["sqrt_area"]
    ratio, unit = ensemble.distributions["aspect_ratio"], ensemble.unit
    return [
        {
            "label": "Particles, Np",
            "value": str(ensemble.counted),
            "detail": f"counted of {ensemble.listed}",
        },
        {
            "label": "Median ECD",
            "value": f"{significant(ecd.median)} {unit}",
            "detail": _interval(ecd, 4),
        },
        {
            "label": "Median √area",
            "value": f"{significant(root.median)} {unit}",
            "detail": f"mean {_mean(root, 4)}",
        },
        {
            "label": "GSD of ECD",
            "value": significant(ecd.gsd, 3),
            "detail": f"D10 {significant(ecd.p10, 3)}, D90 {significant(ecd.p90, 3)} {unit}",
        },
        {
            "label": "Median aspect ratio",
            "value": significant(ratio.median, 3),
            "detail": "min. over max. Feret",
        },
    ]


def _fit_sentence(ensemble: Ensemble) -> str:
    fit = ensemble.distributions["sqrt_area"].lognormal
    if fit is None:
        return ""
    return (
        "Dashed: log-normal distribution fitted by maximum likelihood "
        f"(√area: median {significant(fit.median)} {ensemble.unit}, "
        f"GSD {significant(fit.gsd, 3)}, "
        f"largest distance to the data {significant(fit.ks_distance, 2)})."
    )


def _row(item: Distribution) -> dict[str, str]:
    unit = _UNITS[item.unit]
    digits = 4 if unit else 3
    return {
        "name": _NAMES[item.quantity] + (f" ({unit})" if unit else ""),
        "count": str(item.count),
        "mean": _mean(item, digits),
        "median": significant(item.median, digits),
        "interval": _interval(item, digits),
        "p10": significant(item.p10, digits),
        "p90": significant(item.p90, digits),
        "gsd": significant(item.gsd, 3),
        "modes": ", ".join(significant(mode, 3) for mode in item.modes[:3]) or "–",
    }


def _interval(item: Distribution, digits: int) -> str:
    if item.count < 2:
        return "–"
    return f"{significant(item.median_low, digits)} to {significant(item.median_high, digits)}"


def _mean(item: Distribution, digits: int) -> str:
    mean = significant(item.mean, digits)
    return f"{mean} ± {significant(item.stddev, 3)}" if item.count > 1 else mean


def _image_row(image: ImageSummary) -> dict[str, str]:
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


def _picture(ensemble: Ensemble, place: int, jpeg: bytes) -> dict[str, str]:
    image = ensemble.images[place]
    left_out = image.listed - image.counted
    grey = f" {_plural(left_out, 'particle')} in grey, not counted." if left_out else ""
    return {
        "name": image.name,
        "jpeg": base64.b64encode(jpeg).decode(),
        "svg": svg_text(image_figure(ensemble, place), f"image-{place}"),
        "caption": f"{_plural(image.counted, 'counted particle')}, with the numbers of the table's "
        f"column label.{grey} Right: √area, in the bins of Figure 1.",
    }


def _unit_sentence(ensemble: Ensemble) -> str:
    if ensemble.unit == "px":
        return "Lengths are in pixels, areas in square pixels; nothing was converted."
    sizes = {image.pixel_size_nm for image in ensemble.images if image.pixel_size_nm}
    text = "Lengths are in nanometres, areas in square nanometres, angles in degrees"
    if len(sizes) > 1:
        text += "; the images have different pixel sizes"
    if any(x_nm != y_nm for x_nm, y_nm in sizes):
        text += "; pixels are not square, and lengths were computed from scaled coordinates"
    return text + "."
