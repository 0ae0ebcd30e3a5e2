# SPDX-License-Identifier: GPL-3.0-or-later
"""``summary.json``: the statistics for machines."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from granulo_analyzer.domain.ensemble import Ensemble, ImageSummary
from granulo_analyzer.domain.statistics import Distribution
from granulo_analyzer.report.html import Provenance

FORMAT = 2


def summary_json(ensemble: Ensemble, provenance: Provenance) -> bytes:
    """Write the statistics of an analysis.

    Parameters
    ----------
    ensemble : Ensemble
    provenance : Provenance

    Returns
    -------
    bytes
        UTF-8 JSON; what a sample cannot tell is null.
    """
    settings = ensemble.settings
    content = {
        "format": FORMAT,
        "analysis": provenance.resource,
        "created": provenance.created,
        "unit": ensemble.unit,
        "counting_rule": asdict(settings.rule),
        "confidence_level": settings.confidence_level,
        "bootstrap": {
            "resamples": settings.replicates,
            "seed": settings.seed,
            "drawn": ensemble.findings.scheme,
        },
        "min_confidence": settings.min_confidence,
        "warnings": ensemble.warnings(),
        "particles": _counts(ensemble),
        "quantities": _quantities(ensemble.distributions),
        "findings": ensemble.findings.to_json(),
        "images": [_image(image) for image in ensemble.images],
        "lineage": [asdict(item) for item in provenance.lineage],
        "producer": dict(provenance.producer),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _image(image: ImageSummary) -> dict[str, Any]:
    return {
        "image": image.name,
        "width_px": image.width_px,
        "height_px": image.height_px,
        "pixel_size_nm": image.pixel_size_nm,
        "coverage": image.coverage,
        "particles": _counts(image),
        "quantities": _quantities(image.distributions),
    }


def _counts(of: Ensemble | ImageSummary) -> dict[str, int]:
    names = ("listed", "counted", "at_frame", "unsure", "near_frame")
    return {name: getattr(of, name) for name in names}


def _quantities(distributions: Mapping[str, Distribution]) -> dict[str, Any]:
    return {name: item.to_json() for name, item in distributions.items()}
