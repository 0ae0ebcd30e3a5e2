# SPDX-License-Identifier: GPL-3.0-or-later
"""TensorFlow Serving's services over loaded models, with its error codes. Imports TensorFlow."""

from collections.abc import Hashable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from math import prod
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from granulo_core.telemetry.live import LIVE
from granulo_core.telemetry.metrics import record
from granulo_segmenter.predictor.batching import (
    Batcher,
    BatcherClosedError,
    BatchingParameters,
    QueueFullError,
)
from granulo_segmenter.predictor.loaded import DEFAULT_SIGNATURE, Arrays, LoadedModel, first_line
from granulo_segmenter.predictor.shelf import ModelShelf

_MAX_ELEMENTS = 64 << 20
"""A tensor may say its one value for any shape: no more numbers than the largest message has."""
_Code = grpc.StatusCode


@dataclass(frozen=True)
class _Work:
    """One request, ready to be computed; it keeps its version until it has its answer."""

    model: LoadedModel
    signature: str
    inputs: Arrays

    @property
    def key(self) -> Hashable:
        """Equal for requests that can be stacked."""
        shapes = tuple(
            (alias, str(array.dtype), array.shape[1:] if array.ndim else None)
            for alias, array in sorted(self.inputs.items())
        )
        return id(self.model), self.signature, shapes


class PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
    """Predict and GetModelMetadata; the other calls of the service stay UNIMPLEMENTED.

    Parameters
    ----------
    shelf : ModelShelf
    parameters : BatchingParameters
    """

    def __init__(self, shelf: ModelShelf, parameters: BatchingParameters) -> None:
        self._shelf = shelf
        self._batcher: Batcher[_Work, dict[str, NDArray[Any]]] = Batcher(_compute, parameters)
        self._forget = LIVE.watch_queue(lambda: self._batcher.depth)

    def close(self) -> None:
        """Refuse new requests, cancel those that wait."""
        self._forget()
        self._batcher.close()

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Run one signature of one model version."""
        model = find_model(self._shelf, request, context)
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        definition = model.signatures.get(signature)
        if definition is None:
            context.abort(
                _Code.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.'
            )
        inputs = _inputs(request, definition, context)
        wanted = _outputs(request, definition, context)
        found = self._computed(_Work(model, signature, inputs), context)
        response = predict_pb2.PredictResponse()
        _describe(response.model_spec, model, signature)
        for alias in wanted:
            response.outputs[alias].CopyFrom(_to_proto(found[alias]))
        return response

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Give the signatures of a model version."""
        _require_spec(request, context)
        if not request.metadata_field:
            context.abort(
                _Code.INVALID_ARGUMENT,
                "GetModelMetadataRequest must specify at least one metadata_field",
            )
        for field in request.metadata_field:
            if field != "signature_def":
                context.abort(_Code.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
        model = find_model(self._shelf, request, context)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, definition in model.signatures.items():
            signatures.signature_def[name].CopyFrom(definition)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        _describe(response.model_spec, model)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def _computed(self, work: _Work, context: grpc.ServicerContext) -> Arrays:
        try:
            future = self._batcher.submit(work.key, work)
        except QueueFullError as error:
            record("granulo_model_refused_total")
            # TensorFlow Serving's code for it, too.
            context.abort(
                _Code.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full; "
                f"{error} (max_enqueued_batches)",
            )
        except BatcherClosedError:
            context.abort(_Code.UNAVAILABLE, "The server is stopping")

        def forget() -> None:
            future.cancel()

        # Also when the deadline passes: what nobody waits for is not computed.
        if not context.add_callback(forget):
            forget()
        try:
            return future.result()
        except CancelledError:
            context.abort(_Code.CANCELLED, "Cancelled before it was computed")
        except (tf.errors.InvalidArgumentError, ValueError, TypeError) as error:
            context.abort(_Code.INVALID_ARGUMENT, first_line(error))
        except (tf.errors.ResourceExhaustedError, MemoryError) as error:
            context.abort(_Code.RESOURCE_EXHAUSTED, first_line(error))


def find_model(shelf: ModelShelf, request: Any, context: grpc.ServicerContext) -> LoadedModel:
    """The version that a request means, or its call is ended with TensorFlow Serving's code."""
    _require_spec(request, context)
    spec = request.model_spec
    version = wanted_version(shelf, spec, context)
    model = shelf.get(spec.name, version)
    if model is None:
        wanted = f"Specific({spec.name}, {version})" if version is not None else (
            f"Latest({spec.name})"
        )  # fmt: skip
        context.abort(_Code.NOT_FOUND, f"Servable not found for request: {wanted}")
    return model


def wanted_version(shelf: ModelShelf, spec: Any, context: grpc.ServicerContext) -> int | None:
    """The version's number, or None for the newest one."""
    if not spec.name:
        context.abort(_Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    choice = spec.WhichOneof("version_choice")
    if choice == "version":
        return int(spec.version.value)
    if choice == "version_label":
        version = shelf.labelled(spec.name, spec.version_label)
        if version is None:
            context.abort(
                _Code.INVALID_ARGUMENT,
                f"Unrecognized servable version label: {spec.version_label}",
            )
        return version
    return None


def _require_spec(request: Any, context: grpc.ServicerContext) -> None:
    if not request.HasField("model_spec"):
        context.abort(_Code.INVALID_ARGUMENT, "Missing ModelSpec")


def _compute(works: Sequence[_Work]) -> list[dict[str, NDArray[Any]]]:
    first = works[0]
    record("granulo_model_batch_size", len(works))
    return first.model.run_together(first.signature, [work.inputs for work in works])


def _inputs(
    request: Any, definition: Any, context: grpc.ServicerContext
) -> dict[str, NDArray[Any]]:
    given, expected = set(request.inputs), set(definition.inputs)
    if given != expected:
        context.abort(
            _Code.INVALID_ARGUMENT,
            f"input size does not match signature: got {sorted(given)}, expected "
            f"{sorted(expected)}",
        )
    arrays = {}
    for alias, tensor in request.inputs.items():
        wanted = definition.inputs[alias]
        if tensor.dtype != wanted.dtype:
            context.abort(
                _Code.INVALID_ARGUMENT,
                f"input {alias} must be of type {tf.as_dtype(wanted.dtype).name}, got type "
                f"{tensor.dtype}",
            )
        shape = [dim.size for dim in tensor.tensor_shape.dim]
        if min(shape, default=0) < 0 or prod(shape) > _MAX_ELEMENTS:
            context.abort(_Code.INVALID_ARGUMENT, f"input {alias} has the unusable shape {shape}")
        try:
            array = tf.make_ndarray(tensor)
        except (ValueError, TypeError) as error:
            context.abort(_Code.INVALID_ARGUMENT, f"input {alias}: {first_line(error)}")
        if not tf.TensorShape(wanted.tensor_shape).is_compatible_with(array.shape):
            context.abort(
                _Code.INVALID_ARGUMENT,
                f"input {alias} must have the shape {tf.TensorShape(wanted.tensor_shape)}, got "
                f"{array.shape}",
            )
        arrays[alias] = array
    return arrays


def _outputs(request: Any, definition: Any, context: grpc.ServicerContext) -> list[str]:
    wanted = list(request.output_filter)
    for alias in wanted:
        if alias not in definition.outputs:
            context.abort(
                _Code.INVALID_ARGUMENT, f"output tensor alias not found in signature: {alias}"
            )
        if wanted.count(alias) > 1:
            context.abort(_Code.INVALID_ARGUMENT, f"duplicate output tensor alias: {alias}")
    return wanted or list(definition.outputs)


def _describe(spec: Any, model: LoadedModel, signature: str = "") -> None:
    spec.name = model.name
    spec.version.value = model.version
    spec.signature_name = signature


def _to_proto(array: NDArray[Any]) -> Any:
    """Content as bytes: TensorFlow's helper would send float16 as one number after the other."""
    if array.dtype.kind not in "fiub":
        return tf.make_tensor_proto(array)
    shape = tensor_shape_pb2.TensorShapeProto(
        dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in array.shape]
    )
    return tensor_pb2.TensorProto(
        dtype=tf.as_dtype(array.dtype).as_datatype_enum,
        tensor_shape=shape,
        tensor_content=np.ascontiguousarray(array).tobytes(),
    )
