# SPDX-License-Identifier: GPL-3.0-or-later
"""The loss on a whole annotated image: the validation error of M19."""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.unet import network as networks
from granulo_trainer.unet.targets import targets_of

# Probabilities come as float32: beyond this they are 0 or 1 to the last bit.
_SMALLEST = 1e-7


def image_loss(
    config: TrainingConfig, probabilities: NDArray[np.float32], labels: NDArray[Any]
) -> float:
    """Loss that the training would see on this image.

    Parameters
    ----------
    config : TrainingConfig
    probabilities : (H, W, C) float32
        Outputs of the network.
    labels : (H, W) integer
        True instances.

    Returns
    -------
    float
        The preset's own loss, over the whole image instead of patches.
    """
    # Ids may be any number of 32 bits, and targets count by id.
    _, numbered = np.unique(labels, return_inverse=True)
    numbered = numbered.reshape(labels.shape) + int(labels.min() > 0)
    target = targets_of(config, numbered).astype(np.float32) / np.float32(255.0)
    clipped = np.clip(probabilities, _SMALLEST, 1.0 - _SMALLEST)
    logits = np.log(clipped / (1.0 - clipped)).astype(np.float32)
    return float(networks.loss_of(config, tf.constant(logits[None]), tf.constant(target[None])))
