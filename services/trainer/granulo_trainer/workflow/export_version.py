# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a version in another format, for use outside of Granulo."""

from importlib.util import find_spec

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo_core.engine.port import Resources, Task
from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.runner import OperationContext, Workflow
from granulo_core.rpc import artifacts
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore, StoredObject
from granulo_trainer import registry
from granulo_trainer.card import NAME as CARD_NAME
from granulo_trainer.card import PICTURE_NAME
from granulo_trainer.domain.config import METADATA_NAME
from granulo_trainer.tasks.export import ONNX_NAME, missing_extra

KIND = "ExportModelVersion"
_ENTRY_POINT = "granulo_trainer.tasks.export:to_onnx"
_CONVERTER = "tf2onnx"
_TIMEOUT_S = 1800.0
Request = pb.ExportModelVersionRequest


def export_model_version() -> Workflow:
    """The durable operation that makes the files of an export."""

    def run(context: OperationContext) -> pb.ExportModelVersionResponse:
        request = context.request
        assert isinstance(request, Request)  # the runner checks the type
        version = registry.VersionName.parse(request.name)
        manifest = manifests.load(context.store, str(version))
        if request.format == Request.FORMAT_ONNX:
            files = [(ONNX_NAME, _convert(context, version)), *_metadata(manifest)]
        else:
            files = registry.saved_model_objects(manifest)
        return pb.ExportModelVersionResponse(
            files=[artifacts.to_proto(stored, name) for name, stored in [*files, *_card(manifest)]]
        )

    return Workflow(
        kind=KIND, request_type=Request, metadata_type=pb.ExportModelVersionMetadata, run=run
    )


def check_request(store: ObjectStore, request: Request) -> registry.VersionName:
    """Refuse what cannot be exported, before any work.

    Raises
    ------
    GranuloError
        FIELD_INVALID without a format, RESOURCE_NOT_FOUND, RESOURCE_NOT_READY for an unfinished
        version, EXTRA_NOT_INSTALLED where nothing converts to ONNX.
    """
    if request.format not in (Request.FORMAT_SAVED_MODEL, Request.FORMAT_ONNX):
        problem = "must be FORMAT_SAVED_MODEL or FORMAT_ONNX"
        raise invalid_fields([FieldViolation("format", problem)])
    version = registry.VersionName.parse(request.name)
    registry.require_active(store, version, "exported")
    if request.format == Request.FORMAT_ONNX and find_spec(_CONVERTER) is None:
        raise missing_extra()
    return version


def target_of(version: registry.VersionName, request: Request) -> str:
    """What the operation makes; two formats of a version may be made at once."""
    return f"{version}#{Request.Format.Name(request.format)}"


def _convert(context: OperationContext, version: registry.VersionName) -> StoredObject:
    task = Task(
        id="onnx",
        entry_point=_ENTRY_POINT,
        payload=str(version).encode(),
        resources=Resources(cpu=1, pool="train"),
        timeout_s=_TIMEOUT_S,
    )
    receipts = context.run_tasks([task], unit="file")
    return Receipt.from_bytes(receipts[task.id]).objects[0]


def _metadata(manifest: manifests.Manifest) -> list[tuple[str, StoredObject]]:
    """How to prepare the input and to read the outputs."""
    stored = dict(registry.saved_model_objects(manifest))[METADATA_NAME]
    return [(METADATA_NAME.rsplit("/", 1)[-1], stored)]


def _card(manifest: manifests.Manifest) -> list[tuple[str, StoredObject]]:
    names = (CARD_NAME, PICTURE_NAME)
    keys = {f"{manifest.resource}/{name}": name for name in names}
    return [(keys[item.key], item) for item in manifest.objects if item.key in keys]
