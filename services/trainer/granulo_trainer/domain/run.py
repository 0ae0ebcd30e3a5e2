# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into and comes out of a training run, without the framework that runs it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


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
