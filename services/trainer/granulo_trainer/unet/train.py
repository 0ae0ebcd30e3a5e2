# SPDX-License-Identifier: GPL-3.0-or-later
"""The training loop: epochs, checkpoints, resuming, figures and predictions per epoch."""

import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from granulo_core.errors import GranuloError, Reason
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.run import Checkpoint, Checkpoints, StepReport, ValidationImage
from granulo_trainer.unet import network as networks
from granulo_trainer.unet.data import PatchStream, SceneSource
from granulo_trainer.unet.predict import predictor
from granulo_trainer.unet.validation import validate

_WARM_UP_STEPS = 30
_FINAL_RATE = 0.01
_GRADIENT_NORM = 2.0


def train(
    config: TrainingConfig,
    scenes: SceneSource,
    validation: Sequence[ValidationImage],
    checkpoints: Checkpoints,
    *,
    on_step: Callable[[StepReport], None] | None = None,
    precision: str | None = None,
) -> Any:
    """Train to the configured number of epochs, from the last checkpoint if there is one.

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
        Keras precision policy; by default the fastest that the hardware computes in.

    Returns
    -------
    keras.Model
        The network after the last epoch.

    Raises
    ------
    GranuloError
        TRAINING_DIVERGED when the loss is no longer a number; the last checkpoint is kept.
    """
    if not len(scenes):
        raise ValueError("the datasets hold no scene to train on")
    keras.utils.set_random_seed(config.seed)
    model = networks.build_network(config, precision or networks.fastest_precision())
    optimizer = keras.optimizers.Adam(config.learning_rate, global_clipnorm=_clip_norm(config))
    optimizer.build(model.trainable_variables)
    last = checkpoints.latest()
    first_epoch = 0
    if last is not None:
        first_epoch = last.epoch
        load_weights(model, last.weights)
        if last.optimizer:
            _load_arrays(optimizer.variables, last.optimizer)

    take_step = _make_step(config, model, optimizer)
    predict = predictor(model, config.stride)
    stream = PatchStream(scenes, config, first_epoch * config.steps_per_epoch)
    try:
        batches = iter(stream)
        for epoch in range(first_epoch, config.epochs):
            figures = _run_epoch(config, epoch, take_step, optimizer, batches, on_step)
            scored, predictions = validate(config, predict, validation)
            checkpoints.save(
                Checkpoint(
                    epoch=epoch + 1,
                    weights=weights_bytes(model),
                    optimizer=_arrays_bytes([v.numpy() for v in optimizer.variables]),
                    figures={**figures, **scored},
                    predictions=predictions,
                )
            )
    finally:
        stream.close()
    return model


def weights_bytes(model: Any) -> bytes:
    """The network's weights as npz bytes."""
    return _arrays_bytes(model.get_weights())


def load_weights(model: Any, data: bytes) -> None:
    """Put weights from :func:`weights_bytes` into a network of the same configuration."""
    _load_arrays(model.weights, data)


def learning_rate_at(config: TrainingConfig, step: int) -> float:
    """Rate of Adam for mini-batch ``step`` (from 0): warm-up, then a cosine down to 1 %."""
    if not config.cosine_schedule:
        return config.learning_rate
    warm_up = min(1.0, (step + 1) / _WARM_UP_STEPS)
    cosine = 0.5 * (1.0 + np.cos(np.pi * step / config.total_steps))
    return float(config.learning_rate * warm_up * (_FINAL_RATE + (1.0 - _FINAL_RATE) * cosine))


def _clip_norm(config: TrainingConfig) -> float | None:
    return _GRADIENT_NORM if config.predicts_instances else None


def _make_step(config: TrainingConfig, model: Any, optimizer: Any) -> Callable[..., Any]:
    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def take_step(images: Any, target: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(tf.cast(images, tf.float32), training=True)
            loss = networks.loss_of(config, logits, tf.cast(target, tf.float32) / 255.0)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    result: Callable[..., Any] = take_step
    return result


def _run_epoch(
    config: TrainingConfig,
    epoch: int,
    take_step: Callable[..., Any],
    optimizer: Any,
    batches: Any,
    on_step: Callable[[StepReport], None] | None,
) -> dict[str, float]:
    losses = []
    started = time.monotonic()
    for i in range(config.steps_per_epoch):
        step = epoch * config.steps_per_epoch + i
        optimizer.learning_rate.assign(learning_rate_at(config, step))
        images, target = next(batches)
        loss = float(take_step(images, target))
        if not np.isfinite(loss):
            raise GranuloError(
                Reason.TRAINING_DIVERGED,
                f"the loss became {loss} in epoch {epoch + 1}, mini-batch {i + 1}; the checkpoint "
                f"of epoch {epoch} is kept. Train again with a lower learning_rate than "
                f"{config.learning_rate:g}.",
                metadata={"epoch": str(epoch + 1), "step": str(step)},
            )
        losses.append(loss)
        rate = (i + 1) / (time.monotonic() - started)
        if on_step is not None:
            on_step(StepReport(step=step + 1, loss=loss, steps_per_second=rate))
    return {"loss": float(np.mean(losses)), "steps_per_second": rate}


def _arrays_bytes(arrays: Sequence[NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{f"{i:04d}": array for i, array in enumerate(arrays)})
    return buffer.getvalue()


def _load_arrays(variables: Sequence[Any], data: bytes) -> None:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        names = sorted(archive.files)
        if len(names) != len(variables):
            raise ValueError(
                f"the checkpoint holds {len(names)} arrays and the network has {len(variables)}: "
                "it belongs to another configuration"
            )
        for name, variable in zip(names, variables, strict=True):
            variable.assign(archive[name])
