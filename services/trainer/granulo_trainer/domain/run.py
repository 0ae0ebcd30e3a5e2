# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into and comes out of a training run, without the framework that runs it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BASE_PREFIX = "base_"
"""Of figures of the weights that a training began with; the first epoch has them."""


@dataclass(frozen=True)
class ValidationImage:
    """A micrograph that is predicted after every epoch and never trained on (M17)."""

    name: str
    pixels: NDArray[np.uint8]
    """(H, W), prepared by the configuration's input convention."""
    labels: NDArray[Any] | None
    """(H, W) instances, or None: then the prediction is kept and not scored."""
    held_out_render: bool = False
    """A scene that was kept back, rather than an image of the user."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after one epoch."""

    epoch: int
    """Completed epochs, from 1."""
    weights: bytes
    """npz of the network's weights in order."""
    optimizer: bytes
    """npz of the optimizer's variables in order; empty when it is no longer kept."""
    figures: Mapping[str, float]
    predictions: Sequence[tuple[str, bytes]]
    """Name and 16-bit label PNG of each of the user's validation images."""
    events: bytes = b""
    """The epoch's scalars as a TensorBoard event file."""


class Checkpoints(Protocol):
    """Where checkpoints are kept."""

    def latest(self) -> Checkpoint | None:
        """The last complete checkpoint, or None before the first."""

    def history(self) -> Sequence[Mapping[str, float]]:
        """Figures of all complete epochs in order."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint; after a crash it is either complete or absent."""


@dataclass(frozen=True)
class StepReport:
    """Progress within an epoch."""

    step: int
    """Completed mini-batches of the whole run."""
    loss: float
    steps_per_second: float
    epoch: int = 1
    """The one that is running, from 1."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """What the loss is the sum of."""
    learning_rate: float = 0.0
    images_per_second: float = 0.0
    waiting_share: float = 0.0
    """Part of the epoch's time so far that was spent waiting for patches."""
    time_left_s: float = 0.0
    """Until the budget is spent, at the present pace."""
    expected_steps: int = 0
    """Mini-batches that the whole run will have, at the present pace."""


def base_figures(figures: Mapping[str, float]) -> dict[str, float]:
    """Those of an epoch's figures that are of the weights before it."""
    return {name: value for name, value in figures.items() if name.startswith(BASE_PREFIX)}
