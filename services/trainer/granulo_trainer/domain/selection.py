# SPDX-License-Identifier: GPL-3.0-or-later
"""Which checkpoint becomes the model (M18, the analytical way)."""

from collections.abc import Mapping, Sequence

from granulo_trainer.domain.config import Preset

CRITERIA: Mapping[str, str] = {
    "small": "validation_ap50",
    "base": "validation_ap50",
    "paper": "validation_dsc",
}
"""Figure by which the preset's checkpoints are ranked: on annotated validation images only."""


def select_epoch(preset: Preset, history: Sequence[Mapping[str, float]]) -> int:
    """Choose the epoch to export.

    Parameters
    ----------
    preset : {"small", "base", "paper"}
    history : sequence of mappings
        Figures of epochs 1, 2, … in order.

    Returns
    -------
    int
        Number of the epoch, from 1. With annotated validation images the one with the highest F1
        (``paper``, as in M18) or AP50 (``small``); among equals the later, because experts found
        that late epochs separate particles better. Without them the last one.

    Raises
    ------
    ValueError
        When there is no epoch to choose from.
    """
    if not history:
        raise ValueError("no epoch to choose from: the training ended before its first checkpoint")
    criterion = CRITERIA[preset]
    ranked = [
        (figures[criterion], epoch)
        for epoch, figures in enumerate(history, start=1)
        if criterion in figures
    ]
    return max(ranked)[1] if ranked else len(history)


def describe_choice(preset: Preset, history: Sequence[Mapping[str, float]]) -> str:
    """One sentence on how :func:`select_epoch` chose."""
    epoch, criterion = select_epoch(preset, history), CRITERIA[preset]
    value = history[epoch - 1].get(criterion)
    if value is None:
        return f"Epoch {epoch} is the last: there was no annotated validation image to choose by."
    name = {"validation_ap50": "AP50", "validation_dsc": "DSC"}[criterion]
    return (
        f"Epoch {epoch} of {len(history)} has the highest {name} on the annotated validation "
        f"images ({value:.3f})."
    )
