# SPDX-License-Identifier: GPL-3.0-or-later
"""TensorFlow Serving's ModelService: states of versions, and what to serve. Imports TensorFlow."""

from pathlib import Path
from typing import Any

import grpc
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
)

from granulo_segmenter.predictor.servicers import wanted_version
from granulo_segmenter.predictor.shelf import (
    ModelConfig,
    ModelShelf,
    Policy,
    State,
    serve_all,
    serve_latest,
    serve_specific,
)

_Code = grpc.StatusCode


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]
    """GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, shelf: ModelShelf) -> None:
        self._shelf = shelf

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        """List the versions of a model, the newest first."""
        if not request.HasField("model_spec"):
            context.abort(_Code.INVALID_ARGUMENT, "Missing ModelSpec")
        name = request.model_spec.name
        only = wanted_version(self._shelf, request.model_spec, context)
        response = get_model_status_pb2.GetModelStatusResponse()
        for known in self._shelf.status(name):
            if only is not None and known.version != only:
                continue
            status = response.model_version_status.add(version=known.version, state=known.state)
            if known.state is State.END:
                status.status.error_code = _Code.INVALID_ARGUMENT.value[0]
                status.status.error_message = known.message
        if not response.model_version_status:
            which = f"version {only} of " if only is not None else "any versions of "
            context.abort(_Code.NOT_FOUND, f"Could not find {which}model {name}")
        return response

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Serve exactly the models of the request, with their policies and version labels."""
        if request.config.WhichOneof("config") != "model_config_list":
            context.abort(
                _Code.INVALID_ARGUMENT,
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
                "ModelConfigList is currently supported",
            )
        configs: dict[str, ModelConfig] = {}
        for config in request.config.model_config_list.config:
            if config.name in configs:
                context.abort(
                    _Code.INVALID_ARGUMENT,
                    f"Illegal to list model {config.name} multiple times in config list",
                )
            configs[config.name] = self._checked(config, context)
        if missing := self._shelf.configure(configs):
            names = ", ".join(missing)
            context.abort(_Code.UNKNOWN, f"Some models did not become available: {{{names}}}")
        return model_management_pb2.ReloadConfigResponse()

    def _checked(self, config: Any, context: grpc.ServicerContext) -> ModelConfig:
        path = Path(config.base_path)
        if not config.name or not (config.model_platform or config.model_type):
            context.abort(
                _Code.INVALID_ARGUMENT,
                f"Model {config.name!r} needs a name and the model_platform tensorflow",
            )
        if not path.is_absolute():
            context.abort(
                _Code.INVALID_ARGUMENT,
                f"Expected model {config.name} to have an absolute path or URI; got "
                f"base_path()={config.base_path}",
            )
        if not path.resolve().is_relative_to(self._shelf.base):
            # Ours alone: a caller must not have folders of this machine read.
            context.abort(
                _Code.INVALID_ARGUMENT,
                f"base_path of {config.name} must lie below {self._shelf.base}",
            )
        available = {
            known.version
            for known in self._shelf.status(config.name)
            if known.state is State.AVAILABLE
        }
        for label, version in config.version_labels.items():
            if version not in available:
                context.abort(
                    _Code.FAILED_PRECONDITION,
                    f'Request to assign label "{label}" to version {version} of model '
                    f"{config.name}, which is not currently available for inference",
                )
        return ModelConfig(path.resolve(), _policy(config), dict(config.version_labels))


def _policy(config: Any) -> Policy:
    choice = config.model_version_policy.WhichOneof("policy_choice")
    if choice == "all":
        return serve_all
    if choice == "specific":
        return serve_specific(set(config.model_version_policy.specific.versions))
    # TensorFlow Serving's default is the newest version alone.
    return serve_latest(config.model_version_policy.latest.num_versions or 1)
