# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that TensorFlow Serving answers before a version counts as available.

A network's first predictions are many times as slow as later ones. TensorFlow Serving runs the
``PredictionLog`` records of ``assets.extra/tf_serving_warmup_requests`` while it loads a version,
so that no user waits for them.
"""

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

NAME = "assets.extra/tf_serving_warmup_requests"
"""Where and under which name TensorFlow Serving looks for them."""
SMALL_PX = 256
_GREY = 128


def write_warm_up(folder: Path, sides_px: Sequence[int]) -> None:
    """Write one request a size: a single grey tile, as the segmenter sends them.

    Parameters
    ----------
    folder : Path
        A version's folder, which has its ``assets.extra`` already.
    sides_px : sequence of int
        Multiples of the network's stride.
    """
    with tf.io.TFRecordWriter(str(folder / NAME)) as writer:
        for side in sides_px:
            writer.write(_record(side).SerializeToString(deterministic=True))


def _record(side_px: int) -> prediction_log_pb2.PredictionLog:
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = "serving_default"
    # One value stands for all pixels: the record has a hundred bytes and not a megabyte.
    tensor = request.inputs["image"]
    tensor.dtype = tf.uint8.as_datatype_enum
    for length in (1, side_px, side_px, 1):
        tensor.tensor_shape.dim.add(size=length)
    tensor.int_val.append(_GREY)
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    return log
