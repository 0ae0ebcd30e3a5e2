# SPDX-License-Identifier: GPL-3.0-or-later
"""A model server for the conformance suites: the embedded one, or TensorFlow Serving.

For the real server start ``tensorflow_model_server --port=8500 --model_name=tiny
--model_base_path=FOLDER/tiny --file_system_poll_wait_seconds=1 --max_num_load_retries=0
--allow_version_labels=true`` and set ``GRANULO_TFSERVING_ADDRESS=127.0.0.1:8500`` and
``GRANULO_TFSERVING_BASE=FOLDER``; FOLDER/tiny is made anew.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SaveModel = Callable[..., None]


def _save_model(folder: Path, factor: float, *, half: bool = True) -> None:
    """A network of one multiplication: foreground = image / 255 × factor, distance half of it.

    A second signature, ``only_foreground``, has one output.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    spec = tf.TensorSpec((None, None, None, 1), tf.uint8, "image")
    kind = tf.float16 if half else tf.float32

    class Tiny(tf.Module):
        @tf.function(input_signature=[spec])
        def serve(self, image: Any) -> dict[str, Any]:
            value = tf.cast(image, tf.float32)[..., 0] / 255.0 * factor
            return {"foreground": tf.cast(value, kind), "distance": tf.cast(value / 2, kind)}

        @tf.function(input_signature=[spec])
        def only(self, image: Any) -> dict[str, Any]:
            return {"foreground": self.serve(image)["foreground"]}

    module = Tiny()
    signatures = {"serving_default": module.serve, "only_foreground": module.only}
    incoming = folder.parent.parent / f".incoming-{folder.parent.name}-{folder.name}"
    tf.saved_model.save(module, str(incoming), signatures=signatures)
    folder.parent.mkdir(parents=True, exist_ok=True)
    incoming.rename(folder)


@pytest.fixture(scope="session")
def save_model() -> SaveModel:
    """Writes a tiny SavedModel: ``save_model(folder, factor, half=True)``."""
    return _save_model


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address and base folder of a model server that serves ``tiny`` version 1."""
    address = os.environ.get("GRANULO_TFSERVING_ADDRESS")
    if address:
        base = Path(os.environ["GRANULO_TFSERVING_BASE"])
        shutil.rmtree(base / "tiny", ignore_errors=True)
        _save_model(base / "tiny" / "1", 1.0)
        yield address, base
        return
    base = tmp_path_factory.mktemp("models")
    _save_model(base / "tiny" / "1", 1.0)
    process = subprocess.Popen(
        [sys.executable, "-m", "granulo_segmenter.predictor.embedded", "--base", str(base),
         "--poll-s", "0.2", "--threads", "1"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the model server ended without an address"
    yield json.loads(line)["address"], base
    process.terminate()
    assert process.wait(20) == 0
