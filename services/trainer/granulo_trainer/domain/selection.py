# SPDX-License-Identifier: GPL-3.0-or-later
"""Which checkpoint is best, by which figure, and why (M18): the one definition.

The ranking that a user asks for and the training's own choice are the same code.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from granulo_trainer.domain.config import Preset


class Criterion(StrEnum):
    """What checkpoints are ranked by; the names are those of the contract."""

    F1 = "F1"
    AP50 = "AP50"
    LABEL_FREE = "LABEL_FREE"
    HELD_OUT_AP50 = "HELD_OUT_AP50"
    LAST = "LAST"
    VISUAL = "VISUAL"
    """A person looked and chose; nothing is ranked by it."""


FIGURES: Mapping[Criterion, tuple[str, str]] = {
    Criterion.F1: ("validation_dsc", "F1 on the annotated validation images"),
    Criterion.AP50: ("validation_ap50", "AP50 on the annotated validation images"),
    Criterion.LABEL_FREE: ("label_free", "label-free score"),
    Criterion.HELD_OUT_AP50: ("heldout_ap50", "AP50 on held-out renders"),
}
"""Figure of a checkpoint by criterion, and what people call it."""

DEFAULT_ORDER = (Criterion.AP50, Criterion.LABEL_FREE, Criterion.LAST)
"""The first for which there are figures is used where none is asked for."""

AUTOMATIC: Mapping[Preset, tuple[Criterion, ...]] = {
    "small": DEFAULT_ORDER,
    "base": DEFAULT_ORDER,
    # The paper's analytical way is the F1 of pixels.
    "paper": (Criterion.F1, *DEFAULT_ORDER[1:]),
}
"""By what a training chooses its own epoch: the first for which there are figures."""
_PART_PREFIX = "label_free_"
_PART_TITLES = {"held_out_ap50": "held-out AP50"}

History = Mapping[int, Mapping[str, float]]
"""Figures of complete epochs by number."""


@dataclass(frozen=True)
class Ranked:
    """A checkpoint in a ranking."""

    epoch: int
    score: float | None
    """Higher is better; None where the epoch has not the figure."""
    parts: Mapping[str, float]
    """What the score is made of."""
    explanation: str
    """One sentence for a person."""


@dataclass(frozen=True)
class Selection:
    """By which rule or by whom a checkpoint became a version."""

    criterion: Criterion
    checkpoint: str
    """``models/<model>/versions/<n>/checkpoints/<epoch>``"""
    selected_by: str
    """The person; empty where a rule chose."""
    reason: str
    averaged_epochs: int = 0
    """Epochs up to the checkpoint's that the weights are the mean of; 0: its own weights."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return asdict(self)


def default_criterion(history: History, order: Sequence[Criterion] = DEFAULT_ORDER) -> Criterion:
    """First criterion of ``order`` that some epoch has the figure of; LAST needs none."""
    for criterion in order:
        if any(_score(criterion, epoch, figures) is not None for epoch, figures in history.items()):
            return criterion
    return Criterion.LAST


def rank(history: History, criterion: Criterion) -> list[Ranked]:
    """Order epochs from best to worst.

    Parameters
    ----------
    history : History
    criterion : Criterion
        Not VISUAL: a person does not rank by a figure.

    Returns
    -------
    list of Ranked
        Among equals the later goes first, because experts found that late epochs separate
        particles better (M18). Epochs without the figure come last.

    Raises
    ------
    ValueError
        For VISUAL.
    """
    if criterion is Criterion.VISUAL:
        raise ValueError("no figure stands for what a person sees")
    scores = {epoch: _score(criterion, epoch, figures) for epoch, figures in history.items()}
    order = sorted(history, key=lambda epoch: (_key(scores[epoch]), epoch), reverse=True)
    return [
        Ranked(
            epoch=epoch,
            score=scores[epoch],
            parts=_parts(criterion, history[epoch]) if scores[epoch] is not None else {},
            explanation=_explanation(criterion, order, scores, place, history[epoch]),
        )
        for place, epoch in enumerate(order)
    ]


def choose(preset: Preset, history: History) -> tuple[Criterion, Ranked]:
    """Choose the epoch to export, as a training does by itself.

    Parameters
    ----------
    preset : {"small", "base", "paper"}
    history : History

    Returns
    -------
    criterion : Criterion
        With annotated validation images the highest F1 (``paper``, as in M18) or AP50; without
        them the next of `DEFAULT_ORDER`.
    best : Ranked

    Raises
    ------
    ValueError
        When there is no epoch to choose from.
    """
    if not history:
        raise ValueError("no epoch to choose from: the training ended before its first checkpoint")
    criterion = default_criterion(history, AUTOMATIC[preset])
    return criterion, rank(history, criterion)[0]


def _score(criterion: Criterion, epoch: int, figures: Mapping[str, float]) -> float | None:
    if criterion is Criterion.LAST:
        return float(epoch)
    value = figures.get(FIGURES[criterion][0], math.nan)
    return value if math.isfinite(value) else None


def _key(score: float | None) -> float:
    return -math.inf if score is None else score


def _parts(criterion: Criterion, figures: Mapping[str, float]) -> dict[str, float]:
    if criterion is not Criterion.LABEL_FREE:
        return {}
    return {
        name.removeprefix(_PART_PREFIX): value
        for name, value in sorted(figures.items())
        if name.startswith(_PART_PREFIX)
    }


def _explanation(
    criterion: Criterion,
    order: Sequence[int],
    scores: Mapping[int, float | None],
    place: int,
    figures: Mapping[str, float],
) -> str:
    epoch, best = order[place], order[0]
    score, top = scores[epoch], scores[best]
    if criterion is Criterion.LAST:
        behind = best - epoch
        return f"{behind} before the latest, epoch {best}." if behind else "The latest epoch."
    title = FIGURES[criterion][1]
    if score is None or top is None:
        return f"This epoch has no {title}."
    parts = _parts(criterion, figures)
    made_of = ", ".join(
        f"{_PART_TITLES.get(name, name)} {value:.3f}" for name, value in parts.items()
    )
    text = f"{title[0].upper()}{title[1:]} {score:.3f}" + (f" ({made_of})" if made_of else "")
    if place == 0:
        rivals = [other for other in order[1:] if scores[other] is not None]
        if not rivals:
            return f"{text}, the only one."
        second = scores[rivals[0]]
        if second == score:
            return f"{text}, as high as that of epoch {rivals[0]}, which is earlier."
        return f"{text}, the highest; next is epoch {rivals[0]} with {second:.3f}."
    if score == top:
        return f"{text}, as high as that of epoch {best}, which is later."
    return f"{text}, {top - score:.3f} below epoch {best}."
