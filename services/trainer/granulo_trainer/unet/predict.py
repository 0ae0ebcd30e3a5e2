# SPDX-License-Identifier: GPL-3.0-or-later
"""Predictions of a network while it is trained: whole images, without a model server."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def predictor(network: Any, stride: int) -> Predict:
    """Make the function that predicts one image of any size.

    Parameters
    ----------
    network : keras.Model
        From values in [0, 255] to logits.
    stride : int
        Sides of the network's input are multiples of it.

    Returns
    -------
    callable
        (H, W) uint8 to (H, W, C) float32 probabilities.
    """
    # Validation images come in a few sizes: one trace a size would cost seconds each.
    signature = [tf.TensorSpec((1, None, None, 1), tf.float32)]
    forward = tf.function(
        lambda x: tf.sigmoid(network(x, training=False)), input_signature=signature
    )

    def predict(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        height, width = image.shape
        extra = [(0, -height % stride), (0, -width % stride)]
        mode: Any = "reflect" if min(image.shape) > stride else "edge"
        padded = np.pad(image, extra, mode=mode).astype(np.float32)
        output: NDArray[np.float32] = forward(padded[None, ..., None]).numpy()[0]
        return output[:height, :width]

    return predict
