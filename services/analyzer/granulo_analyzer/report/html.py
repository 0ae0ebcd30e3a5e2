# SPDX-License-Identifier: GPL-3.0-or-later
"""The report: one HTML file with everything in it, to be read, printed and kept."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from granulo_analyzer.domain import statistics as stats
from granulo_analyzer.domain.ensemble import Ensemble
from granulo_analyzer.domain.settings import AnalysisSettings
from granulo_analyzer.report import figures, sentences, tables
from granulo_analyzer.report.words import interval, percent, plural, significant

MAX_PICTURES = 24
"""More overlays than this stay in their folder: a report of hundreds of MB opens nowhere."""
MAX_ROWS = 100
"""Longer tables of images and files end with a pointer to the files that have all."""


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


def render_report(ensemble: Ensemble, provenance: Provenance, previews: Sequence[bytes]) -> str:
    """Write the report of an analysis.

    Parameters
    ----------
    ensemble : Ensemble
    provenance : Provenance
    previews : sequence of bytes
        JPEG overlays of the first images, at most `MAX_PICTURES`.

    Returns
    -------
    str
        A whole HTML page that loads nothing.
    """
    verdict, verdict_basis = sentences.verdict(ensemble)
    return _template().render(
        title="Particle size and shape",
        subtitle=tables.names_of(ensemble.images),
        created=provenance.created,
        abstract=sentences.abstract(ensemble),
        notes=sentences.notes(ensemble),
        key_figures=_key_figures(ensemble),
        verdict=verdict,
        verdict_basis=verdict_basis,
        advice=sentences.advice(ensemble),
        histogram_svg=figures.svg_text(figures.histogram_figure(ensemble), "set"),
        curves_svg=figures.svg_text(figures.curves_figure(ensemble), "curves"),
        fit_sentence=sentences.fit(ensemble),
        shows_interval=ensemble.counted > 1,
        counted=ensemble.counted,
        statistics=tables.by_quantity(ensemble),
        percentiles=tables.percentiles(ensemble),
        means=tables.means(ensemble),
        fits=tables.fits(ensemble),
        modes=sentences.modes(ensemble),
        agglomeration=sentences.agglomeration(ensemble),
        budget=tables.budget(ensemble),
        needed=tables.needed(ensemble),
        images=tables.images(ensemble, MAX_ROWS),
        image_count=len(ensemble.images),
        pictures=[_picture(ensemble, place, jpeg) for place, jpeg in enumerate(previews)],
        left_out=len(ensemble.images) - len(previews),
        rule=ensemble.settings.rule,
        level=percent(ensemble.settings.confidence_level),
        target=percent(ensemble.settings.target_precision),
        scheme=ensemble.findings.scheme,
        unit=ensemble.unit,
        unit_sentence=sentences.units(ensemble),
        min_modes=stats.MIN_COUNT_FOR_MODES,
        settings=_settings(ensemble.settings),
        lineage=provenance.lineage[:MAX_ROWS],
        lineage_left_out=max(0, len(provenance.lineage) - MAX_ROWS),
        resource=provenance.resource,
        producer=provenance.producer,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("granulo_analyzer", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("report.html.j2")


def _key_figures(ensemble: Ensemble) -> list[dict[str, str]]:
    ecd, unit = ensemble.distributions["ecd"], ensemble.unit
    ratio, root = ensemble.distributions["aspect_ratio"], ensemble.distributions["sqrt_area"]
    return [
        {
            "label": "Particles, Np",
            "value": str(ensemble.counted),
            "detail": f"counted of {ensemble.listed}",
        },
        {
            "label": "Median ECD",
            "value": f"{significant(ecd.median)} {unit}",
            "detail": interval(ecd.figures["median"]),
        },
        {
            "label": "Median √area",
            "value": f"{significant(root.median)} {unit}",
            "detail": interval(root.figures["median"]),
        },
        {
            "label": "GSD of ECD",
            "value": significant(ecd.gsd, 3),
            "detail": interval(ecd.figures["gsd"], 3),
        },
        {
            "label": "Median aspect ratio",
            "value": significant(ratio.median, 3),
            "detail": interval(ratio.figures["median"], 3),
        },
    ]


def _picture(ensemble: Ensemble, place: int, jpeg: bytes) -> dict[str, str]:
    image = ensemble.images[place]
    left_out = image.listed - image.counted
    grey = f" {plural(left_out, 'particle')} in grey, not counted." if left_out else ""
    return {
        "name": image.name,
        "jpeg": base64.b64encode(jpeg).decode(),
        "svg": figures.svg_text(figures.image_figure(ensemble, place), f"image-{place}"),
        "caption": f"{plural(image.counted, 'counted particle')}, with the numbers of the table's "
        f"column label.{grey} Right: √area, in the bins of Figure 1.",
    }


def _settings(settings: AnalysisSettings) -> list[tuple[str, str]]:
    least = settings.min_confidence
    return [
        ("counting rule", settings.rule.name),
        ("confidence level", percent(settings.confidence_level)),
        ("bootstrap", f"{settings.replicates} replicates, seed {settings.seed}"),
        ("wanted precision of the median", f"±{percent(settings.target_precision)}"),
        ("least confidence of a counted particle", f"{least:g}" if least else "none"),
    ]
