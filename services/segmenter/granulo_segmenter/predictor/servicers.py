# SPDX-License-Identifier: GPL-3.0-or-later
"""TensorFlow Serving's services over loaded models, with its error codes. Imports TensorFlow."""

import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from granulo_segmenter.predictor.loaded import LoadedModel, ModelFolder

_DEFAULT_SIGNATURE = "serving_default"
_Code = grpc.StatusCode
_State = get_model_status_pb2.ModelVersionStatus


class PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
    """Predict and GetModelMetadata; the other calls of the service stay UNIMPLEMENTED."""

    def __init__(self, models: ModelFolder, computing: threading.Semaphore) -> None:
        self._models = models
        self._computing = computing

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Run one signature of one model version."""
        model = _find(self._models, request.model_spec, context)
        signature = request.model_spec.signature_name or _DEFAULT_SIGNATURE
        definition = model.signatures.get(signature)
        if definition is None:
            context.abort(
                _Code.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.'
            )
        inputs = _inputs(request, definition, context)
        wanted = list(request.output_filter) or list(definition.outputs)
        for alias in wanted:
            if alias not in definition.outputs:
                context.abort(
                    _Code.INVALID_ARGUMENT, f"output tensor alias not found in signature: {alias}"
                )
        try:
            with self._computing:
                found = model.run(signature, inputs)
        except (tf.errors.InvalidArgumentError, ValueError, TypeError) as error:
            context.abort(_Code.INVALID_ARGUMENT, _first_line(error))
        except tf.errors.ResourceExhaustedError as error:
            context.abort(_Code.RESOURCE_EXHAUSTED, _first_line(error))
        response = predict_pb2.PredictResponse()
        _describe(response.model_spec, model, signature)
        for alias in wanted:
            response.outputs[alias].CopyFrom(_to_proto(found[alias]))
        return response

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Give the signatures of a model version."""
        if "signature_def" not in request.metadata_field:
            context.abort(
                _Code.INVALID_ARGUMENT,
                f"Metadata field {', '.join(request.metadata_field) or '(none)'} is not supported",
            )
        model = _find(self._models, request.model_spec, context)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, definition in model.signatures.items():
            signatures.signature_def[name].CopyFrom(definition)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        _describe(response.model_spec, model)
        response.metadata["signature_def"].Pack(signatures)
        return response


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]
    """States of versions, and what to serve."""

    def __init__(self, models: ModelFolder) -> None:
        self._models = models

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        """List the versions of a model, loaded or broken, the newest first."""
        spec = request.model_spec
        only = _wanted_version(self._models, spec, context)
        response = get_model_status_pb2.GetModelStatusResponse()
        states = [(v, _State.AVAILABLE, 0, "") for v in self._models.versions(spec.name)] + [
            (broken.version, _State.END, _Code.INVALID_ARGUMENT.value[0], broken.message)
            for broken in self._models.broken(spec.name)
        ]
        for version, state, code, message in sorted(states, reverse=True):
            if only is None or version == only:
                status = response.model_version_status.add(version=version, state=state)
                status.status.error_code = code
                status.status.error_message = message
        if not response.model_version_status:
            which = f"version {only} of " if only is not None else "any versions of "
            context.abort(_Code.NOT_FOUND, f"Could not find {which}model {spec.name}")
        return response

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Serve exactly the models of the request, with their version labels."""
        if request.config.WhichOneof("config") != "model_config_list":
            context.abort(_Code.INVALID_ARGUMENT, "Only model_config_list is supported")
        paths: dict[str, Path] = {}
        labels: dict[str, dict[str, int]] = {}
        for config in request.config.model_config_list.config:
            path = Path(config.base_path).resolve()
            if not config.name or config.name in paths:
                context.abort(_Code.INVALID_ARGUMENT, f"Missing or repeated name {config.name!r}")
            if not path.is_relative_to(self._models.base):
                context.abort(
                    _Code.INVALID_ARGUMENT,
                    f"base_path of {config.name} must lie below {self._models.base}",
                )
            paths[config.name] = path
            labels[config.name] = dict(config.version_labels)
            for label, version in labels[config.name].items():
                if version not in self._models.versions(config.name):
                    context.abort(
                        _Code.FAILED_PRECONDITION,
                        f'Request to assign label "{label}" to version {version} of model '
                        f"{config.name}, which is not currently available",
                    )
        self._models.configure(paths, labels)
        return model_management_pb2.ReloadConfigResponse()


def _find(models: ModelFolder, spec: Any, context: grpc.ServicerContext) -> LoadedModel:
    version = _wanted_version(models, spec, context)
    model = models.get(spec.name, version)
    if model is None:
        wanted = f"Specific({spec.name}, {version})" if version is not None else (
            f"Latest({spec.name})"
        )  # fmt: skip
        context.abort(_Code.NOT_FOUND, f"Servable not found for request: {wanted}")
    return model


def _wanted_version(models: ModelFolder, spec: Any, context: grpc.ServicerContext) -> int | None:
    if not spec.name:
        context.abort(_Code.INVALID_ARGUMENT, "Missing ModelSpec")
    choice = spec.WhichOneof("version_choice")
    if choice == "version":
        return int(spec.version.value)
    if choice == "version_label":
        version = models.labelled(spec.name, spec.version_label)
        if version is None:
            context.abort(
                _Code.INVALID_ARGUMENT,
                f"Unrecognized servable version label: {spec.version_label}",
            )
        return version
    return None


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
                f"input {alias} must be of type {tf.as_dtype(wanted.dtype).name}, got "
                f"{tf.as_dtype(tensor.dtype).name if tensor.dtype else 'nothing'}",
            )
        try:
            array = tf.make_ndarray(tensor)
        except (ValueError, TypeError) as error:
            context.abort(_Code.INVALID_ARGUMENT, f"input {alias}: {_first_line(error)}")
        if not tf.TensorShape(wanted.tensor_shape).is_compatible_with(array.shape):
            context.abort(
                _Code.INVALID_ARGUMENT,
                f"input {alias} must have the shape {tf.TensorShape(wanted.tensor_shape)}, got "
                f"{array.shape}",
            )
        arrays[alias] = array
    return arrays


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


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:500] if text else type(error).__name__
