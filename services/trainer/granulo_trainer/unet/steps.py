# SPDX-License-Identifier: GPL-3.0-or-later
"""A network that learns: one mini-batch at a time, on one device or on several."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.unet import arrays
from granulo_trainer.unet import network as networks
from granulo_trainer.unet.devices import strategy_over

_GRADIENT_NORM = 2.0


class Learner:
    """A network with fresh weights, its optimizer, and the step that improves it.

    Parameters
    ----------
    config : TrainingConfig
    policy_name : str, optional
        Keras precision policy; by default the configuration's, and what the devices are fastest
        at where that is "auto".
    devices : sequence of str, optional
        Devices that share each mini-batch; by default all GPUs, else the CPU.

    Notes
    -----
    Several devices compute what one would: the statistics of batch normalisation and the sums of
    the loss are those of the whole mini-batch.
    """

    def __init__(
        self,
        config: TrainingConfig,
        policy_name: str | None = None,
        devices: Sequence[str] | None = None,
    ) -> None:
        wanted = None if config.precision == "auto" else config.precision
        self.policy_name = policy_name or wanted or networks.fastest_precision()
        self._config = config
        self._strategy = strategy_over(config.batch_size, devices)
        self.devices = self._strategy.num_replicas_in_sync if self._strategy else 1
        with self._strategy.scope() if self._strategy else nullcontext():
            self.network = networks.build_network(
                config, self.policy_name, synchronized=self.devices > 1
            )
            adam = keras.optimizers.Adam(config.learning_rate, global_clipnorm=self._clip_norm())
            self._rate = adam.learning_rate
            self._optimizer = (
                keras.optimizers.LossScaleOptimizer(adam)
                if self.policy_name == "mixed_float16"
                else adam
            )
            self._optimizer.build(self.network.trainable_variables)
        self._step = tf.function(self._on_all if self._strategy else self._on_one)

    def step(
        self, images: NDArray[np.uint8], target: NDArray[np.uint8], rate: float
    ) -> dict[str, float]:
        """Learn from one mini-batch.

        Parameters
        ----------
        images : (B, P, P, 1) uint8
        target : (B, P, P, C) uint8
            255 = 1.
        rate : float
            Learning rate.

        Returns
        -------
        dict
            Parts of the loss before this step, each with its weight.
        """
        self._rate.assign(rate)
        if self._strategy is None:
            parts = self._step(images, target)
        else:
            parts = self._step(self._split(images), self._split(target))
        return {name: float(value) for name, value in parts.items()}

    def weights(self) -> list[NDArray[Any]]:
        """Weights and batch-normalisation statistics, float32."""
        found: list[NDArray[Any]] = self.network.get_weights()
        return found

    def optimizer_state(self) -> list[NDArray[Any]]:
        """Everything that the optimizer remembers."""
        return [np.asarray(variable) for variable in self._optimizer.variables]

    def restore(self, weights: bytes, optimizer: bytes = b"") -> None:
        """Go on from a checkpoint's weights and, unless empty, its optimizer state."""
        arrays.load_weights(self.network, weights)
        if optimizer:
            arrays.load_arrays(self._optimizer.variables, optimizer)

    def _clip_norm(self) -> float | None:
        # Every device clips its share of the gradient.
        return _GRADIENT_NORM / self.devices if self._config.predicts_instances else None

    def _on_one(self, images: Any, target: Any) -> dict[str, Any]:
        gradients, parts = self._gradients(images, target, tf.reduce_sum)
        self._optimizer.apply(gradients, self.network.trainable_variables)
        return parts

    def _on_all(self, images: Any, target: Any) -> dict[str, Any]:
        def on_each(images: Any, target: Any) -> dict[str, Any]:
            context = tf.distribute.get_replica_context()
            add_up = tf.distribute.ReduceOp.SUM
            gradients, parts = self._gradients(
                images, target, lambda x: context.all_reduce(add_up, tf.reduce_sum(x))
            )
            # Equal everywhere before they are clipped; Keras then adds them up once more.
            gradients = context.all_reduce(add_up, gradients)
            self._optimizer.apply(
                [gradient / self.devices for gradient in gradients],
                self.network.trainable_variables,
            )
            return parts

        assert self._strategy is not None  # only then is it called
        parts = self._strategy.run(on_each, args=(images, target))
        return {
            name: self._strategy.experimental_local_results(value)[0]
            for name, value in parts.items()
        }

    def _gradients(self, images: Any, target: Any, total: Any) -> tuple[list[Any], dict[str, Any]]:
        with tf.GradientTape() as tape:
            logits = self.network(tf.cast(images, tf.float32), training=True)
            target = tf.cast(target, tf.float32) / 255.0
            parts = networks.loss_parts(self._config, logits, target, total)
            # Each device's gradient of the common loss counts the sums of all devices.
            loss = self._optimizer.scale_loss(tf.add_n(list(parts.values())) / self.devices)
        return tape.gradient(loss, self.network.trainable_variables), parts

    def _split(self, batch: NDArray[np.uint8]) -> Any:
        assert self._strategy is not None  # only then is it called
        shares = np.split(batch, self.devices)
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(shares[context.replica_id_in_sync_group])
        )
