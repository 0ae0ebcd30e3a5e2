# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks: the paper's U-Net (M15), and that of ``small`` (default) and ``base``.

Both take (N, H, W, 1) values in [0, 255] and give float32 logits; H and W must be multiples of the
configuration's stride.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from granulo_trainer.domain import precision
from granulo_trainer.domain.config import TrainingConfig

_INSTANCE_OUTPUTS = ("foreground", "distance")
_MASK_OUTPUTS = ("foreground",)


def outputs_of(config: TrainingConfig) -> tuple[str, ...]:
    """Names of the network's output channels, in order."""
    return _INSTANCE_OUTPUTS if config.predicts_instances else _MASK_OUTPUTS


_CONTACT_WEIGHT = 4.0


def build_network(
    config: TrainingConfig, policy_name: str = "float32", *, synchronized: bool = False
) -> Any:
    """Make the preset's network with fresh weights.

    Parameters
    ----------
    config : TrainingConfig
    policy_name : str
        Name of a Keras precision policy, see :func:`fastest_precision`.
    synchronized : bool
        Take the statistics of batch normalisation over all devices that train together.

    Returns
    -------
    keras.Model
        (N, H, W, 1) to (N, H, W, number of outputs) logits, float32 whatever the policy.
    """
    policy = keras.DTypePolicy(policy_name)
    inputs = layers.Input((None, None, 1), name="image")
    scaled = layers.Rescaling(1.0 / 255.0, dtype=policy, name="to_unit_range")(inputs)
    if config.predicts_instances:
        outputs = len(outputs_of(config))
        logits = _small(scaled, config.filters, outputs, policy, synchronized)
    else:
        logits = _paper(scaled, config.filters, policy, synchronized)
    return keras.Model(inputs, logits, name=config.preset)


def precision_of(network: Any) -> str:
    """Name of the precision policy that a network of :func:`build_network` computes in."""
    return str(network.get_layer("to_unit_range").dtype_policy.name)


def fastest_precision() -> str:
    """The precision that this machine's devices are fastest at, see ``domain.precision``."""
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        flags = []
    return precision.fastest(gpus, flags)


def _paper(x: Any, filters: tuple[int, ...], policy: Any, synchronized: bool) -> Any:
    """Ronneberger's U-Net without cropping, batch normalisation after every convolution (M15)."""

    def double(x: Any, count: int) -> Any:
        for _ in range(2):
            x = layers.Conv2D(
                count, 3, padding="same", kernel_initializer="he_normal", dtype=policy
            )(x)
            x = FusedBatchNormalization(dtype=policy, synchronized=synchronized)(x)
            x = layers.ReLU(dtype=policy)(x)
        return x

    skips = []
    for count in filters[:-1]:
        x = double(x, count)
        skips.append(x)
        x = layers.MaxPooling2D(dtype=policy)(x)
    x = double(x, filters[-1])
    for count, skip in zip(filters[-2::-1], skips[::-1], strict=True):
        x = layers.Conv2DTranspose(
            count, 2, strides=2, kernel_initializer="he_normal", dtype=policy
        )(x)
        x = layers.Concatenate(dtype=policy)([skip, x])
        x = double(x, count)
    return layers.Conv2D(1, 1, kernel_initializer="he_normal", dtype="float32", name="logits")(x)


def _small(x: Any, filters: tuple[int, ...], outputs: int, policy: Any, synchronized: bool) -> Any:
    """A U-Net that works from half the resolution down, and adds instead of concatenating.

    Convolutions at full resolution are most of a U-Net's cost. Here a wide stem takes the image to
    half its size, and the last layer gives four sub-pixels per pixel: per second this learns
    several times as much on a CPU.
    """

    def convolve(x: Any, count: int, size: int = 3, stride: int = 1) -> Any:
        x = layers.Conv2D(
            count,
            size,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            dtype=policy,
        )(x)
        # Runs are short: the statistics must follow within some tens of steps.
        x = FusedBatchNormalization(momentum=0.97, dtype=policy, synchronized=synchronized)(x)
        return layers.ReLU(dtype=policy)(x)

    x = convolve(x, filters[0], size=6, stride=2)
    x = convolve(x, filters[0])
    skips = [x]
    for count in filters[1:]:
        x = layers.MaxPooling2D(dtype=policy)(x)
        x = convolve(convolve(x, count), count)
        skips.append(x)
    for count, skip in zip(filters[-2::-1], skips[-2::-1], strict=True):
        x = layers.Conv2D(count, 1, use_bias=False, kernel_initializer="he_normal", dtype=policy)(x)
        x = layers.UpSampling2D(dtype=policy)(x)
        x = layers.Add(dtype=policy)([x, skip])
        x = convolve(convolve(x, count), count)
    x = layers.Conv2D(4 * outputs, 3, padding="same", dtype="float32", name="logits")(x)
    return PixelShuffle(dtype="float32", name="sub_pixels")(x)


@keras.saving.register_keras_serializable(package="granulo")
class FusedBatchNormalization(layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalisation by one operation instead of a dozen that each go over every value.

    In float32, as Keras does it: on CPUs the same operation in bfloat16 is slower than all of
    Keras' (docs/performance.md). Weights, statistics and predictions are those of Keras.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise; statistics over several devices are left to Keras."""
        if not training or self.synchronized:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, tf.float32),
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=tf.constant([], tf.float32),
            variance=tf.constant([], tf.float32),
            epsilon=self.epsilon,
            is_training=True,
        )
        # The operation gives the sample's variance, Keras keeps the population's.
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        self._follow(self.moving_mean, mean)
        self._follow(self.moving_variance, variance * (count - 1.0) / count)
        return tf.cast(outputs, self.compute_dtype)

    def _follow(self, statistic: Any, value: Any) -> None:
        statistic.assign(statistic * self.momentum + value * (1.0 - self.momentum))


@keras.saving.register_keras_serializable(package="granulo")
class PixelShuffle(layers.Layer):  # type: ignore[misc]
    """Four channels become the four sub-pixels of twice the resolution."""

    def call(self, inputs: Any) -> Any:
        """Rearrange (N, H, W, 4 C) to (N, 2 H, 2 W, C)."""
        return tf.nn.depth_to_space(inputs, 2)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the result, for Keras."""
        batch, height, width, channels = input_shape
        return (
            batch,
            None if height is None else 2 * height,
            None if width is None else 2 * width,
            None if channels is None else channels // 4,
        )


def loss_of(config: TrainingConfig, logits: Any, targets: Any) -> Any:
    """The preset's loss: the sum of its :func:`loss_parts`."""
    return sum(loss_parts(config, logits, targets).values())


def loss_parts(
    config: TrainingConfig, logits: Any, targets: Any, total: Callable[[Any], Any] = tf.reduce_sum
) -> dict[str, Any]:
    """What the preset's loss is the sum of, each part with its weight.

    Parameters
    ----------
    config : TrainingConfig
    logits : (N, H, W, C) float32
    targets : (N, H, W, C) float32 in [0, 1]
        Channels as ``targets.instance_targets`` or ``targets.mask_target`` give them.
    total : callable
        Sum over all values of a tensor and over all devices that share the mini-batch.

    Returns
    -------
    dict of str to scalar float32
        Paper: cross-entropy (M16). Small: cross-entropy and Dice on the foreground, and the
        absolute error of the distance, weighted to the particles and most to their contacts.
    """
    foreground = targets[..., 0]
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=foreground, logits=logits[..., 0])
    if not config.predicts_instances:
        return {"cross_entropy": total(entropy) / total(tf.ones_like(entropy))}
    known = targets[..., 3]
    parts = {"cross_entropy": total(known * entropy) / (total(known) + 1.0)}
    foreground *= known
    probability = known * tf.sigmoid(logits[..., 0])
    overlap = 2.0 * total(foreground * probability) + 1.0
    dice = 1.0 - overlap / (total(foreground) + total(probability) + 1.0)
    weight = foreground * (1.0 + _CONTACT_WEIGHT * targets[..., 2]) + 0.05 * known
    error = tf.abs(tf.sigmoid(logits[..., 1]) - targets[..., 1])
    distance = total(error * weight) / (total(weight) + 1.0)
    return {**parts, "dice": 0.5 * dice, "distance": 2.0 * distance}
