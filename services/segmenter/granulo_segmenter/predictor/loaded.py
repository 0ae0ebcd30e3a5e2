# SPDX-License-Identifier: GPL-3.0-or-later
"""One SavedModel: loaded, warmed up, and computing. Imports TensorFlow."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

DEFAULT_SIGNATURE = "serving_default"
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
"""Where TensorFlow Serving looks for the first requests of a version: TFRecord of PredictionLog."""
_MAX_WARMUP_REQUESTS = 1000
_INIT_SIGNATURE = "__saved_model_init_op"
_log = structlog.get_logger(__name__)

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class LoadedModel:
    """One version that answers."""

    name: str
    version: int
    signatures: Mapping[str, Any]
    """``SignatureDef`` by key."""
    functions: Mapping[str, Any]
    """What computes, by signature key."""

    def run(self, signature: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Compute a signature; TensorFlow's own errors pass through.

        Raises
        ------
        ValueError
            Where there is no such signature, or an input is unknown or of another type.
        """
        if signature not in self.signatures:
            raise ValueError(f'Serving signature key "{signature}" not found.')
        wanted = self.signatures[signature].inputs
        for alias, array in inputs.items():
            # TensorFlow would convert it without a word.
            if alias not in wanted or tf.as_dtype(array.dtype) != wanted[alias].dtype:
                raise ValueError(f"input {alias} of type {array.dtype} does not match signature")
        tensors = {alias: tf.constant(array) for alias, array in inputs.items()}
        outputs = self.functions[signature](**tensors)
        return {alias: np.asarray(tensor) for alias, tensor in outputs.items()}

    def run_together(
        self, signature: str, requests: Sequence[Arrays]
    ) -> list[dict[str, NDArray[Any]]]:
        """Compute several requests of equal shapes at once: they are stacked along the first axis.

        Parameters
        ----------
        signature : str
        requests : sequence of mappings
            Inputs by alias; equal in type and in all but the first axis.

        Returns
        -------
        list of dict
            Outputs of each request.
        """
        if len(requests) == 1:
            return [self.run(signature, requests[0])]
        rows = [len(next(iter(inputs.values()))) for inputs in requests]
        stacked = {
            alias: np.concatenate([inputs[alias] for inputs in requests]) for alias in requests[0]
        }
        found = self.run(signature, stacked)
        if any(array.ndim == 0 or len(array) != sum(rows) for array in found.values()):
            # An output that is no row an image cannot be divided.
            return [self.run(signature, inputs) for inputs in requests]
        ends = np.cumsum(rows)[:-1]
        parts = {alias: np.split(array, ends) for alias, array in found.items()}
        return [
            {alias: of_alias[index] for alias, of_alias in parts.items()}
            for index in range(len(requests))
        ]


def load_model(name: str, version: int, folder: Path) -> LoadedModel:
    """Load a SavedModel and run its warm-up requests, so that the first caller need not wait.

    Whatever TensorFlow raises passes through: the version is not usable then.
    """
    definition = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    loaded = tf.saved_model.load(str(folder))
    signatures = {
        key: signature
        for key, signature in definition.meta_graphs[0].signature_def.items()
        if key != _INIT_SIGNATURE
    }
    model = LoadedModel(
        name, version, signatures, {key: loaded.signatures[key] for key in signatures}
    )
    count = 0
    for signature, inputs in _warmup_requests(folder / WARMUP_FILE):
        model.run(signature, inputs)
        count += 1
    _log.info("model loaded", model=name, version=version, warmup_requests=count)
    return model


def first_line(error: BaseException) -> str:
    """What an error of TensorFlow says, without its trace."""
    text = str(error).strip().splitlines()
    return text[0][:500] if text else type(error).__name__


def _warmup_requests(path: Path) -> Iterator[tuple[str, Arrays]]:
    """Signature and inputs of every recorded Predict."""
    if not path.is_file():
        return
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    for record in islice(records, _MAX_WARMUP_REQUESTS):
        log = prediction_log_pb2.PredictionLog.FromString(record)
        if log.WhichOneof("log_type") != "predict_log":
            continue
        request = log.predict_log.request
        yield (
            request.model_spec.signature_name or DEFAULT_SIGNATURE,
            {alias: tf.make_ndarray(tensor) for alias, tensor in request.inputs.items()},
        )
