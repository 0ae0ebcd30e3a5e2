# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in network as a SavedModel, and what it finds: discs."""

import json
import os
from pathlib import Path
from typing import Any

FACTS = {
    "format": 1, "preset": "tiny", "stride": 16, "tile_px": 96,
    "outputs": ["foreground", "distance"], "input": {}, "instances": {"min_area_px": 20},
}  # fmt: skip


DISCS = [(30, 30), (30, 80), (80, 40), (85, 95), (110, 60)]


def save_network(
    folder: Path, *, threshold: float = 128.0, spin: int = 0, warmup: Any = None, outputs: int = 2
) -> None:
    """A stand-in network: a soft threshold, and a box filter of it as the distance.

    ``spin``: products of matrices that it computes besides; ``warmup``: the image of a recorded
    request; ``outputs``: how many of its outputs it has.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    class Tiny(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1), tf.uint8, "image")])
        def serve(self, image: Any) -> dict[str, Any]:
            level = tf.cast(image, tf.float32)
            unit = tf.eye(256) + 0 * tf.reduce_mean(level)
            worked = unit
            for _ in tf.range(spin):
                worked = tf.matmul(worked, unit)
            foreground = tf.sigmoid((level - threshold) / 10) * worked[0, 0]
            mask = tf.cast(foreground > 0.5, tf.float32)
            density = tf.nn.avg_pool2d(mask, 15, 1, "SAME")
            maps = [foreground, tf.clip_by_value(2 * density - 1, 0, 1) * mask]
            names = FACTS["outputs"][:outputs]
            return {n: tf.cast(m[..., 0], tf.float16) for n, m in zip(names, maps)}  # noqa: B905

    module = Tiny()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "granulo.json").write_text(json.dumps(FACTS))
    if warmup is not None:
        log = prediction_log_pb2.PredictionLog()
        log.predict_log.request.inputs["image"].CopyFrom(tf.make_tensor_proto(warmup))
        record = str(folder / "assets.extra" / "tf_serving_warmup_requests")
        with tf.io.TFRecordWriter(record) as writer:
            writer.write(log.SerializeToString())
