# SPDX-License-Identifier: GPL-3.0-or-later
"""A SavedModel as one ONNX file; needs the extra ``onnx``."""

from pathlib import Path
from typing import Any

import tensorflow as tf

OPSET = 17


def convert_saved_model(folder: Path, target: Path) -> None:
    """Write the signature ``serving_default`` of a SavedModel as ONNX.

    Parameters
    ----------
    folder : Path
        A version's folder.
    target : Path
        The ``.onnx`` file.

    Notes
    -----
    The input ``image`` is uint8 (N, H, W, 1) and the outputs are float16 (N, H, W), all sizes free;
    H and W must be multiples of the network's stride. Weights are part of the file.

    Raises
    ------
    ImportError
        Where the extra is not installed.
    """
    import tf2onnx

    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures["serving_default"]
    inputs = [tf.TensorSpec((None, None, None, 1), tf.uint8, name="image")]

    @tf.function(input_signature=inputs)  # type: ignore[untyped-decorator]
    def serve(image: Any) -> Any:
        return signature(image=image)

    tf2onnx.convert.from_function(
        serve, input_signature=inputs, opset=OPSET, output_path=str(target)
    )
