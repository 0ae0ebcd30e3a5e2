# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a trained network as a SavedModel for TensorFlow Serving (docs/models.md)."""

import json
from pathlib import Path
from typing import Any

import tensorflow as tf

from granulo_core.imaging.instances import InstanceParams
from granulo_core.imaging.scale import ScaleParams
from granulo_trainer.domain.config import METADATA_NAME, TrainingConfig
from granulo_trainer.unet import network as networks
from granulo_trainer.unet.predict import Predict, predictor
from granulo_trainer.unet.warm_up import SMALL_PX, write_warm_up

_FORMAT = 1
_TILE_PX = 1024
_SCALE = ScaleParams()
_PAPER_THRESHOLD = 0.51


def scale_params(config: TrainingConfig) -> ScaleParams | None:
    """How the segmenter chooses the input scale; the paper's network keeps the image's own."""
    return _SCALE if config.predicts_instances else None


def default_instances(config: TrainingConfig) -> InstanceParams:
    """Thresholds before any tuning; the paper's network has the paper's (M20)."""
    if config.predicts_instances:
        return InstanceParams()
    return InstanceParams(foreground_threshold=_PAPER_THRESHOLD)


def exported_predictor(weights: Any, config: TrainingConfig) -> Predict:
    """Predict as the exported version will: in float32, whatever the training computed in.

    Parameters
    ----------
    weights : sequence of arrays
        As ``keras.Model.get_weights`` gives them.
    config : TrainingConfig

    Returns
    -------
    callable
        (H, W) uint8 to (H, W, C) float32 probabilities.
    """
    network = networks.build_network(config, "float32")
    network.set_weights(weights)
    return predictor(network, config.stride)


def export_saved_model(
    weights: Any,
    config: TrainingConfig,
    folder: Path,
    params: InstanceParams | None = None,
) -> dict[str, Any]:
    """Write one version's folder.

    Parameters
    ----------
    weights : sequence of arrays
        As ``keras.Model.get_weights`` gives them.
    config : TrainingConfig
    folder : Path
        ``<model>/<version>``; made when missing.
    params : InstanceParams, optional
        Thresholds to ship with the model.

    Returns
    -------
    dict
        What was written to ``assets.extra/granulo.json``.

    Notes
    -----
    Signature ``serving_default``: ``image`` uint8 (N, H, W, 1) with H and W multiples of the
    stride, to float16 (N, H, W) probabilities, one output per name in ``outputs``.
    """
    # Always float32, whatever the training computed in: a serving machine may have no bfloat16.
    network = networks.build_network(config, "float32")
    network.set_weights(weights)
    names = networks.outputs_of(config)

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec((None, None, None, 1), tf.uint8, name="image")]
    )
    def serve(image: Any) -> dict[str, Any]:
        logits = network(tf.cast(image, tf.float32), training=False)
        outputs = tf.cast(tf.sigmoid(logits), tf.float16)
        return {name: outputs[..., i] for i, name in enumerate(names)}

    module = tf.Module()
    # Only the variables are kept with the function: a whole Keras model would be larger.
    module.variables_in_use = [variable.value for variable in network.variables]
    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    tile_px = _TILE_PX - _TILE_PX % config.stride
    metadata: dict[str, Any] = {
        "format": _FORMAT,
        "preset": config.preset,
        "filters": list(config.filters),
        "stride": config.stride,
        "tile_px": tile_px,
        "outputs": list(names),
        "parameter_count": int(sum(array.size for array in weights)),
        "input": config.convention.to_json(),
        "instances": (params or default_instances(config)).to_json(),
    }
    scale = scale_params(config)
    if scale is not None:
        metadata["scale"] = scale.to_json()
    target = folder / METADATA_NAME
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(metadata, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_warm_up(folder, (SMALL_PX, tile_px))
    return metadata
