# SPDX-License-Identifier: GPL-3.0-or-later
"""The training loop: epochs, checkpoints, resuming, figures and predictions per epoch."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from granulo_core.errors import GranuloError, Reason
from granulo_core.telemetry.stages import Stage, stage
from granulo_trainer.domain import budget
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.memory import smaller
from granulo_trainer.domain.run import (
    BASE_PREFIX,
    Checkpoint,
    Checkpoints,
    StepReport,
    ValidationImage,
)
from granulo_trainer.unet.arrays import all_finite, arrays_bytes, load_weights, weights_bytes
from granulo_trainer.unet.data import PatchStream, SceneSource
from granulo_trainer.unet.devices import make_deterministic
from granulo_trainer.unet.events import EpochEvents
from granulo_trainer.unet.predict import predictor
from granulo_trainer.unet.steps import Learner
from granulo_trainer.unet.validation import validate

__all__ = ["load_weights", "train", "weights_bytes"]

Batches = Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
OnStep = Callable[[StepReport], None]


def train(
    config: TrainingConfig,
    scenes: SceneSource,
    validation: Sequence[ValidationImage],
    checkpoints: Checkpoints,
    *,
    on_step: OnStep | None = None,
    precision: str | None = None,
    first_weights: bytes = b"",
    devices: Sequence[str] | None = None,
) -> Any:
    """Train until the budget is spent, from the last checkpoint if there is one.

    Parameters
    ----------
    config : TrainingConfig
    scenes : SceneSource
        Training scenes; an empty source is a ValueError.
    validation : sequence of ValidationImage
    checkpoints : Checkpoints
    on_step : callable, optional
        Called after every mini-batch.
    precision : str, optional
        Keras precision policy; by default the configuration's.
    first_weights : bytes, optional
        Weights of a network of the same shape to begin with, from :func:`weights_bytes`; the
        optimizer and the learning rate begin anew. The first epoch's figures also say how these
        weights validate, as ``base_…``.
    devices : sequence of str, optional
        Devices that share each mini-batch; by default all GPUs, else the CPU.

    Returns
    -------
    keras.Model
        The network after the last epoch.

    Raises
    ------
    GranuloError
        TRAINING_DIVERGED when the loss or a weight is no finite number any more, and
        TRAINING_OUT_OF_MEMORY; the last checkpoint is kept.
    """
    if not len(scenes):
        raise ValueError("the datasets hold no scene to train on")
    if config.deterministic:
        make_deterministic()
    keras.utils.set_random_seed(config.seed)
    try:
        learner = Learner(config, precision, devices)
        last = checkpoints.latest()
        history = list(checkpoints.history())[: last.epoch] if last is not None else []
        before: dict[str, float] = {}
        if last is not None:
            learner.restore(last.weights, last.optimizer)
        elif first_weights:
            learner.restore(first_weights)
            scored, _ = validate(config, predictor(learner.network, config.stride), validation)
            before = {f"{BASE_PREFIX}{name}": value for name, value in scored.items()}
        _Run(config, learner, checkpoints, history, on_step, before).finish(scenes, validation)
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise GranuloError(
            Reason.TRAINING_OUT_OF_MEMORY,
            f"the memory does not suffice to train {config.preset!r} with batch_size "
            f"{config.batch_size} and patch_px {config.patch_px}; {smaller(config)}.",
            metadata={"batch_size": str(config.batch_size), "patch_px": str(config.patch_px)},
        ) from error
    return learner.network


class _Run:
    """What is left of a training, from some epoch on."""

    def __init__(
        self,
        config: TrainingConfig,
        learner: Learner,
        checkpoints: Checkpoints,
        history: list[Mapping[str, float]],
        on_step: OnStep | None,
        before: Mapping[str, float],
    ) -> None:
        self._before = before
        self._config = config
        self._learner = learner
        self._checkpoints = checkpoints
        self._history = history
        self._on_step = on_step
        self._step = budget.steps_done(config, history)
        # Time goes on where the last checkpoint stopped it.
        self._zero_s = time.monotonic() - budget.elapsed_s(history)

    def finish(self, scenes: SceneSource, validation: Sequence[ValidationImage]) -> None:
        """Train, validate and keep one epoch after the other."""
        predict = predictor(self._learner.network, self._config.stride)
        stream = PatchStream(scenes, self._config, self._step)
        try:
            batches = iter(stream)
            while budget.end_of(self._config, self._history, self._elapsed_s()) is None:
                with EpochEvents() as events:
                    figures = self._train_epoch(batches, events)
                    scored, predictions = validate(self._config, predict, validation)
                    self._keep({**figures, **scored}, predictions, events)
        finally:
            stream.close()

    def _train_epoch(self, batches: Batches, events: EpochEvents) -> dict[str, float]:
        pace = _Pace(self._config.batch_size)
        sums: dict[str, float] = {}
        end = min(self._step + self._config.steps_per_epoch, self._config.total_steps)
        while self._step < end:
            rate = self._learning_rate()
            with pace.waiting(), stage(Stage.TRAIN_DATA, is_traced=False):
                images, target = next(batches)
            with stage(Stage.TRAIN_NETWORK, is_traced=False):
                parts = self._learner.step(images, target, rate)
            values = {"loss": float(sum(parts.values())), **parts}
            self._step += 1
            pace.steps += 1
            if not np.isfinite(values["loss"]):
                self._diverged(f"the loss became {values['loss']}")
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
            events.add("step", {**values, "learning_rate": rate}, self._step)
            self._report(values, parts, rate, pace)
            if budget.share_spent(self._config, self._step, self._elapsed_s()) >= 1.0:
                break
        means = {name: value / pace.steps for name, value in sums.items()}
        loss = means.pop("loss")
        return {
            "loss": loss,
            **{f"loss_{name}": value for name, value in means.items() if len(means) > 1},
            "learning_rate": rate,
            **pace.figures(),
        }

    def _keep(
        self,
        figures: dict[str, float],
        predictions: Sequence[tuple[str, bytes]],
        events: EpochEvents,
    ) -> None:
        weights, optimizer = self._learner.weights(), self._learner.optimizer_state()
        # The loss may still be finite when the last step has spoilt the weights.
        if not all_finite(weights) or not all_finite(optimizer):
            self._diverged("a weight became NaN or infinite")
        events.add("epoch", figures, self._step)
        figures[budget.STEPS] = float(self._step)
        figures[budget.ELAPSED] = self._elapsed_s()
        if not self._history:
            figures.update(self._before)
        self._checkpoints.save(
            Checkpoint(
                epoch=len(self._history) + 1,
                weights=arrays_bytes(weights),
                optimizer=arrays_bytes(optimizer),
                figures=figures,
                predictions=predictions,
                events=events.to_bytes(),
            )
        )
        self._history.append(figures)

    def _learning_rate(self) -> float:
        share = budget.share_spent(self._config, self._step, self._elapsed_s())
        return budget.learning_rate_at(self._config, self._step, share)

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._zero_s

    def _report(
        self, values: Mapping[str, float], parts: Mapping[str, float], rate: float, pace: "_Pace"
    ) -> None:
        if self._on_step is None:
            return
        elapsed_s = self._elapsed_s()
        figures = pace.figures()
        per_step_s = 1.0 / figures["steps_per_second"]
        self._on_step(
            StepReport(
                step=self._step,
                epoch=len(self._history) + 1,
                loss=values["loss"],
                parts=parts,
                learning_rate=rate,
                time_left_s=budget.time_left_s(self._config, self._step, elapsed_s, per_step_s),
                expected_steps=budget.expected_steps(self._config, self._step, elapsed_s),
                **figures,
            )
        )

    def _diverged(self, what: str) -> NoReturn:
        kept = len(self._history)
        raise GranuloError(
            Reason.TRAINING_DIVERGED,
            f"{what} in epoch {kept + 1}, step {self._step}; "
            f"{f'the checkpoint of epoch {kept} is kept' if kept else 'there is no checkpoint yet'}"
            f". Train again with a lower learning_rate than {self._config.learning_rate:g}.",
            metadata={"epoch": str(kept + 1), "step": str(self._step)},
        )


class _Pace:
    """How fast an epoch goes, and how much of it is spent waiting for patches."""

    def __init__(self, batch_size: int) -> None:
        self.steps = 0
        self._batch_size = batch_size
        self._started_s = time.monotonic()
        self._waited_s = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time a ``with`` block as waiting."""
        started_s = time.monotonic()
        yield
        self._waited_s += time.monotonic() - started_s

    def figures(self) -> dict[str, float]:
        """Figures of the epoch so far."""
        passed_s = max(1e-9, time.monotonic() - self._started_s)
        return {
            "steps_per_second": self.steps / passed_s,
            "images_per_second": self.steps * self._batch_size / passed_s,
            "waiting_share": self._waited_s / passed_s,
        }
