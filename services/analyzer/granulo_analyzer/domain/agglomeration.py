# SPDX-License-Identifier: GPL-3.0-or-later
"""How far the particles of an ensemble hang together."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from granulo_analyzer.domain.bootstrap import interval, resample
from granulo_analyzer.domain.classes import Classes, Floats
from granulo_analyzer.domain.figures import Figure
from granulo_analyzer.domain.settings import AnalysisSettings


@dataclass(frozen=True)
class Agglomeration:
    """Of particles with the number of constituents of the agglomerate that each belongs to."""

    figures: Mapping[str, Figure]
    """``agglomeration_index``: share of the particles, by number, that are constituents of an
    agglomerate of two and more; ``mean_constituents``: mean number of constituents of what hangs
    together, single particles included."""


def agglomeration(classes: Classes, settings: AnalysisSettings) -> Agglomeration | None:
    """Describe how far particles hang together.

    Parameters
    ----------
    classes : Classes
        The values are the numbers of constituents.
    settings : AnalysisSettings

    Returns
    -------
    Agglomeration or None
        None where there is no particle.
    """
    if not classes.count:
        return None
    drawn = resample(classes, settings.replicates, settings.seed)
    samples = _figures(classes.values, drawn.masses)
    lower, upper = interval(samples, settings.confidence_level, drawn)
    values = _figures(classes.values, classes.mass[None])[0]
    names = ("agglomeration_index", "mean_constituents")
    return Agglomeration(
        {
            name: Figure(float(value), float(low), float(high))
            for name, value, low, high in zip(names, values, lower, upper, strict=True)
        }
    )


def _figures(constituents: Floats, masses: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        total = masses.sum(axis=1)
        index = masses @ (constituents > 1).astype(np.float64) / total
        # Every constituent is so large a part of what it belongs to.
        objects = masses @ (1 / constituents)
        return np.stack((index, total / objects), axis=1)
