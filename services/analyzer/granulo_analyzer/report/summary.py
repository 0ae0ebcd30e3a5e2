# SPDX-License-Identifier: GPL-3.0-or-later
"""``summary.json``: the statistics for machines."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from granulo_analyzer.domain.counting import EXCLUDE_BORDER, CountingRule
from granulo_analyzer.domain.ensemble import Ensemble, ImageSummary
from granulo_analyzer.domain.statistics import (
    BOOTSTRAP_RESAMPLES,
    BOOTSTRAP_SEED,
    Distribution,
)
from granulo_analyzer.report.html import Provenance

FORMAT = 1


def summary_json(
    ensemble: Ensemble, provenance: Provenance, rule: CountingRule = EXCLUDE_BORDER
) -> bytes:
    """Write the statistics of an analysis.

    Parameters
    ----------
    ensemble : Ensemble
    provenance : Provenance
    rule : CountingRule

    Returns
    -------
    bytes
        UTF-8 JSON; what a sample cannot tell is null.
    """
    content = {
        "format": FORMAT,
        "analysis": provenance.resource,
        "created": provenance.created,
        "unit": ensemble.unit,
        "counting_rule": asdict(rule),
        "bootstrap": {"resamples": BOOTSTRAP_RESAMPLES, "seed": BOOTSTRAP_SEED},
        "particles": _counts(ensemble.listed, ensemble.counted),
        "quantities": _quantities(ensemble.distributions),
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
        "particles": _counts(image.listed, image.counted),
        "quantities": _quantities(image.distributions),
    }


def _counts(listed: int, counted: int) -> dict[str, int]:
    return {"listed": listed, "counted": counted, "at_frame": listed - counted}


def _quantities(distributions: Mapping[str, Distribution]) -> dict[str, Any]:
    return {name: item.to_json() for name, item in distributions.items()}
