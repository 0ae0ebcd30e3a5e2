# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights of an exported network, to train it further where no checkpoint is left."""

from pathlib import Path

import tensorflow as tf

from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.unet import network as networks
from granulo_trainer.unet.arrays import arrays_bytes

# `export.export_saved_model` keeps the network's variables under this name, in their order.
_KEY = "variables_in_use/{}/.ATTRIBUTES/VARIABLE_VALUE"


def read_saved_weights(folder: Path, config: TrainingConfig) -> bytes:
    """Read the weights out of a SavedModel of :func:`export.export_saved_model`.

    Parameters
    ----------
    folder : Path
        Of the SavedModel; only its ``variables/`` are read.
    config : TrainingConfig
        Whose network they are to fit.

    Returns
    -------
    bytes
        As :func:`arrays.weights_bytes` gives them, float32.

    Raises
    ------
    ValueError
        They are those of another network, or no weights of Granulo; says the first difference.
    """
    network = networks.build_network(config)
    try:
        saved = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    except (ValueError, tf.errors.OpError) as error:
        raise ValueError(f"its SavedModel holds no readable variables: {error}") from error
    shapes = saved.get_variable_to_shape_map()
    keys = [_KEY.format(index) for index in range(len(network.variables))]
    for key, variable in zip(keys, network.variables, strict=True):
        if shapes.get(key) != list(variable.shape):
            raise ValueError(
                f"its {variable.path} has the shape {shapes.get(key)}, where this training's "
                f"network has {list(variable.shape)}"
            )
    if _KEY.format(len(keys)) in shapes:
        raise ValueError(f"it has more weights than the {len(keys)} of this training's network")
    return arrays_bytes([saved.get_tensor(key) for key in keys])
