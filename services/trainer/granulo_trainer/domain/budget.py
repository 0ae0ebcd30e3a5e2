# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a training goes on, and its learning rate: functions of what its checkpoints say.

A run's state is the figures of its epochs and nothing else, so that an interrupted run ends where
an undisturbed one does.
"""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum

from granulo_trainer.domain.config import Preset, TrainingConfig
from granulo_trainer.domain.selection import AUTOMATIC, FIGURES

History = Sequence[Mapping[str, float]]
"""Figures of epochs 1, 2, … in order."""

STEPS, ELAPSED = "steps", "elapsed_s"
"""Figures of a checkpoint: mini-batches and seconds of training so far, all parts together."""
_WARM_UP_STEPS = 30
_FINAL_RATE = 0.01


class End(StrEnum):
    """Why a training ended."""

    EPOCHS = "epochs"
    STEPS = "steps"
    MINUTES = "minutes"
    EARLY_STOPPING = "early_stopping"


def steps_done(config: TrainingConfig, history: History) -> int:
    """Completed mini-batches after the last of the epochs."""
    if not history:
        return 0
    return int(history[-1].get(STEPS, len(history) * config.steps_per_epoch))


def elapsed_s(history: History) -> float:
    """Seconds of training up to the last of the epochs; what an interruption lost not counted."""
    return float(history[-1].get(ELAPSED, 0.0)) if history else 0.0


def share_spent(config: TrainingConfig, step: int, seconds: float) -> float:
    """Part of the budget that is spent, 0 to 1: of mini-batches or of time, whichever is more."""
    share = step / config.total_steps
    if config.max_minutes:
        share = max(share, seconds / (60.0 * config.max_minutes))
    return min(1.0, share)


def expected_steps(config: TrainingConfig, step: int, seconds: float) -> int:
    """Mini-batches that the whole run will have at its pace so far, without early stopping."""
    if not config.max_minutes or seconds <= 0.0 or not step:
        return config.total_steps
    at_this_pace = math.ceil(step * 60.0 * config.max_minutes / seconds)
    return min(config.total_steps, max(step, at_this_pace))


def time_left_s(config: TrainingConfig, step: int, seconds: float, per_step_s: float) -> float:
    """Seconds until the budget is spent, without early stopping.

    Parameters
    ----------
    config : TrainingConfig
    step : int
        Completed mini-batches.
    seconds : float
        Of training so far.
    per_step_s : float
        Recent pace.
    """
    left = (config.total_steps - step) * per_step_s
    if config.max_minutes:
        left = min(left, 60.0 * config.max_minutes - seconds)
    return max(0.0, left)


def learning_rate_at(config: TrainingConfig, step: int, share: float | None = None) -> float:
    """Rate of Adam for mini-batch ``step`` (from 0): warm-up, then a cosine down to 1 %.

    Parameters
    ----------
    config : TrainingConfig
    step : int
    share : float, optional
        Part of the budget that is spent, as :func:`share_spent` says; of the mini-batches by
        default.
    """
    if not config.cosine_schedule:
        return config.learning_rate
    if share is None:
        share = step / config.total_steps
    warm_up = min(1.0, (step + 1) / _WARM_UP_STEPS)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))
    return config.learning_rate * warm_up * (_FINAL_RATE + (1.0 - _FINAL_RATE) * cosine)


def stopping_figure(preset: Preset, history: History) -> str:
    """The best figure that every epoch has, by which early stopping judges.

    The preset's own on the annotated validation images, else the same on kept-back renders, else
    the training loss.
    """
    validated, _ = FIGURES[AUTOMATIC[preset][0]]
    for name in (validated, validated.replace("validation_", "heldout_")):
        if history and all(name in figures for figures in history):
            return name
    return "loss"


def epochs_without_gain(preset: Preset, history: History) -> int:
    """Latest epochs in a row of which none was better than the best before them.

    0 as long as a score is 0 in every epoch: it says nothing yet about the training.
    """
    name = stopping_figure(preset, history)
    sign = -1.0 if name == "loss" else 1.0
    values = [sign * figures[name] for figures in history]
    if not values or max(values) == 0.0:
        return 0
    return len(values) - 1 - values.index(max(values))


def end_of(config: TrainingConfig, history: History, seconds: float | None = None) -> End | None:
    """Why the training is over after these epochs; None while it goes on.

    Parameters
    ----------
    config : TrainingConfig
    history : sequence of mappings
    seconds : float, optional
        Of training so far; by default what the last epoch says.
    """
    seconds = elapsed_s(history) if seconds is None else seconds
    patience = config.early_stopping_epochs
    if steps_done(config, history) >= config.total_steps:
        is_shorter = config.total_steps < config.epochs * config.steps_per_epoch
        return End.STEPS if is_shorter else End.EPOCHS
    if history and config.max_minutes and seconds >= 60.0 * config.max_minutes:
        return End.MINUTES
    if patience and epochs_without_gain(config.preset, history) >= patience:
        return End.EARLY_STOPPING
    return None


def run_figures(config: TrainingConfig, history: History, end: End) -> dict[str, float]:
    """Figures of a whole training, beside those of the epoch that was exported."""
    return {
        "epochs_trained": float(len(history)),
        "steps_trained": float(steps_done(config, history)),
        "minutes_trained": elapsed_s(history) / 60.0,
        "stopped_early": float(end is End.EARLY_STOPPING),
    }


def explain(config: TrainingConfig, history: History, end: End) -> str:
    """One sentence on why the training ended, for a person."""
    epochs, steps = len(history), steps_done(config, history)
    done = f"ended after {_count(epochs, 'epoch')} and {_count(steps, 'step')}"
    if end is End.EARLY_STOPPING:
        name = stopping_figure(config.preset, history)
        waited = _count(config.early_stopping_epochs, "epoch")
        return f"{done}: no better {name} for {waited} (early stopping)"
    reached = {
        End.EPOCHS: "all epochs are done",
        End.STEPS: f"max_steps {config.max_steps} is reached",
        End.MINUTES: f"max_minutes {config.max_minutes:g} is reached",
    }
    return f"{done}: {reached[end]}"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
