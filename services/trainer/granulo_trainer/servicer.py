# SPDX-License-Identifier: GPL-3.0-or-later
"""The trainer's RPC edge."""

from dataclasses import replace

import grpc
from google.longrunning import operations_pb2

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo.trainer.v1 import trainer_service_pb2_grpc as rpc
from granulo_core.errors import not_found
from granulo_core.operations.runner import OperationRunner
from granulo_core.rpc.paging import paginate
from granulo_core.rpc.serve import BuiltService, ServiceParts
from granulo_core.rpc.server import ServiceRegistration
from granulo_core.store.port import ObjectStore
from granulo_trainer import convert, packaged, promotion, registry
from granulo_trainer.settings import TrainerSettings
from granulo_trainer.workflow import (
    create_version,
    cross_validate,
    export_version,
    import_dataset,
    rank_checkpoints,
    select_checkpoint,
)

FULL_NAME = "granulo.trainer.v1.TrainerService"
_REMEDY = "List the models to see what exists, or train it first."


class TrainerServicer(rpc.TrainerServiceServicer):
    """Serves models, versions and their making."""

    def __init__(
        self, store: ObjectStore, runner: OperationRunner, settings: TrainerSettings
    ) -> None:
        self._store = store
        self._runner = runner
        self._settings = settings
        self._packaged = packaged.packaged_version(settings)

    def GetModel(self, request: pb.GetModelRequest, _context: grpc.ServicerContext) -> pb.Model:
        model = self._existing(request.name, "name")
        return self._model(model)

    def ListModels(
        self, request: pb.ListModelsRequest, _context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        names = packaged.model_names(self._store, self._packaged)
        page, token = paginate(names, request.page_size, request.page_token)
        return pb.ListModelsResponse(models=map(self._model, page), next_page_token=token)

    def CreateModelVersion(
        self, request: pb.CreateModelVersionRequest, _context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        request = create_version.with_base_version(self._store, request, self._packaged)
        model = create_version.check_request(self._store, request, self._settings)
        if request.validate_only:
            return operations_pb2.Operation(done=True)
        target = create_version.target_of(self._store, model, request)
        return self._runner.start(
            create_version.KIND, request, target=target, request_id=request.request_id
        )

    def GetModelVersion(
        self, request: pb.GetModelVersionRequest, _context: grpc.ServicerContext
    ) -> pb.ModelVersion:
        return create_version.get_version(self._store, registry.VersionName.parse(request.name))

    def ListModelVersions(
        self, request: pb.ListModelVersionsRequest, _context: grpc.ServicerContext
    ) -> pb.ListModelVersionsResponse:
        model = self._existing(request.parent, "parent")
        names = packaged.versions(self._store, model, self._packaged)
        page, token = paginate(names, request.page_size, request.page_token)
        versions = [create_version.get_version(self._store, name) for name in page]
        return pb.ListModelVersionsResponse(model_versions=versions, next_page_token=token)

    def ListCheckpoints(
        self, request: pb.ListCheckpointsRequest, _context: grpc.ServicerContext
    ) -> pb.ListCheckpointsResponse:
        version = registry.VersionName.parse(request.parent)
        records = registry.list_checkpoints(self._store, version)
        page, token = paginate(records, request.page_size, request.page_token)
        found = [convert.checkpoint(version, record) for record in page]
        return pb.ListCheckpointsResponse(checkpoints=found, next_page_token=token)

    def RankCheckpoints(
        self, request: pb.RankCheckpointsRequest, _context: grpc.ServicerContext
    ) -> pb.RankCheckpointsResponse:
        return rank_checkpoints.rank_checkpoints(self._store, request)

    def SelectCheckpoint(
        self, request: pb.SelectCheckpointRequest, _context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        checkpoint = select_checkpoint.check_request(self._store, request)
        if request.validate_only:
            return operations_pb2.Operation(done=True)
        target = select_checkpoint.target_of(self._store, checkpoint, request)
        return self._runner.start(
            select_checkpoint.KIND, request, target=target, request_id=request.request_id
        )

    def PromoteModelVersion(
        self, request: pb.PromoteModelVersionRequest, _context: grpc.ServicerContext
    ) -> pb.Model:
        version = registry.VersionName.parse(request.name)
        promotion.promote(self._store, version)
        return convert.model(version.model, version)

    def ImportDataset(
        self, request: pb.ImportDatasetRequest, _context: grpc.ServicerContext
    ) -> pb.AnnotatedDataset:
        return import_dataset.import_dataset(self._store, request, self._settings)

    def GetAnnotatedDataset(
        self, request: pb.GetAnnotatedDatasetRequest, _context: grpc.ServicerContext
    ) -> pb.AnnotatedDataset:
        return import_dataset.get_dataset(self._store, request.name)

    def ListAnnotatedDatasets(
        self, request: pb.ListAnnotatedDatasetsRequest, _context: grpc.ServicerContext
    ) -> pb.ListAnnotatedDatasetsResponse:
        return import_dataset.list_datasets(self._store, request)

    def CrossValidate(
        self, request: pb.CrossValidateRequest, _context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        target = cross_validate.check_request(self._store, request, self._settings)
        if request.validate_only:
            return operations_pb2.Operation(done=True)
        return self._runner.start(
            cross_validate.KIND, request, target=target, request_id=request.request_id
        )

    def GetCrossValidation(
        self, request: pb.GetCrossValidationRequest, _context: grpc.ServicerContext
    ) -> pb.CrossValidation:
        return cross_validate.get_cross_validation(self._store, request.name)

    def RollbackModel(
        self, request: pb.RollbackModelRequest, _context: grpc.ServicerContext
    ) -> pb.Model:
        model = self._existing(request.name, "name")
        return convert.model(model, promotion.roll_back(self._store, model))

    def ExportModelVersion(
        self, request: pb.ExportModelVersionRequest, _context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        version = export_version.check_request(self._store, request)
        if request.validate_only:
            return operations_pb2.Operation(done=True)
        target = export_version.target_of(version, request)
        return self._runner.start(
            export_version.KIND, request, target=target, request_id=request.request_id
        )

    def _existing(self, name: str, field: str) -> str:
        model = convert.model_id(name, field)
        if model not in packaged.model_names(self._store, self._packaged):
            raise not_found(name, _REMEDY)
        return model

    def _model(self, model: str) -> pb.Model:
        return convert.model(model, packaged.served(self._store, model, self._packaged))


def build(parts: ServiceParts) -> BuiltService:
    """Put the trainer together for a server."""
    settings = (
        parts.settings if isinstance(parts.settings, TrainerSettings) else TrainerSettings.load()
    )
    runner = OperationRunner(
        "trainer",
        parts.store,
        parts.engine,
        [
            create_version.create_model_version(settings),
            cross_validate.cross_validate(settings),
            select_checkpoint.select_checkpoint(settings),
            export_version.export_model_version(),
        ],
        # Trainings ask the engine for all cores, so that there is one at a time on a machine;
        # exports of files need not wait for it.
        settings.max_running,
    )
    packaged.enter(parts.store, settings)
    servicer = TrainerServicer(parts.store, runner, settings)
    registration = ServiceRegistration(
        FULL_NAME, lambda server: rpc.add_TrainerServiceServicer_to_server(servicer, server)
    )
    return BuiltService(
        registration=registration,
        runner=runner,
        for_tenant=lambda store: build(replace(parts, store=store)),
    )
