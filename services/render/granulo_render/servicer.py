# SPDX-License-Identifier: GPL-3.0-or-later
"""The renderer's RPC edge."""

from collections.abc import Iterator
from dataclasses import replace

import grpc
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from granulo.render.v1 import render_service_pb2 as pb
from granulo.render.v1 import render_service_pb2_grpc as rpc
from granulo_core.engine.port import Engine
from granulo_core.operations.runner import OperationRunner
from granulo_core.rpc.paging import paginate
from granulo_core.rpc.serve import BuiltService, ServiceParts
from granulo_core.rpc.server import ServiceRegistration
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore
from granulo_render import convert, workflow
from granulo_render.presets import presets
from granulo_render.settings import RenderSettings

FULL_NAME = "granulo.render.v1.RenderService"


class RenderServicer(rpc.RenderServiceServicer):
    """Serves presets, previews and datasets."""

    def __init__(
        self,
        store: ObjectStore,
        engine: Engine,
        runner: OperationRunner,
        settings: RenderSettings,
    ) -> None:
        self._store = store
        self._engine = engine
        self._runner = runner
        self._settings = settings

    def PreviewRecipe(
        self, request: pb.PreviewRecipeRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.PreviewRecipeResponse]:
        plan = convert.preview_plan(request)
        workflow.check_recipe(self._store, plan.recipe, "recipe.")
        device = self._settings.render_device
        frames = workflow.preview(self._engine, self._store, plan, device, sheet=request.sheet)
        for frame in frames:
            if not context.is_active():  # nobody looks any more
                return
            if frame is not None:
                yield frame

    def CheckRecipe(
        self, request: pb.CheckRecipeRequest, _context: grpc.ServicerContext
    ) -> pb.CheckRecipeResponse:
        recipe = convert.checked_recipe(request)
        workflow.check_recipe(self._store, recipe, "recipe.")
        return pb.CheckRecipeResponse(recipe=convert.recipe_message(recipe))

    def CompareRecipe(
        self, request: pb.CompareRecipeRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.CompareRecipeResponse]:
        workflow.check_recipe(self._store, convert.comparison_plan(request).recipe, "recipe.")
        device = self._settings.render_device
        for response in workflow.compare(self._engine, self._store, request, device):
            if not context.is_active():
                return
            yield response

    def CreateDataset(
        self, request: pb.CreateDatasetRequest, _context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        plan = convert.dataset_plan(request, self._settings.max_images)
        workflow.check_recipe(self._store, plan.recipe, "dataset.recipe.")
        target = workflow.target_of(self._store, request, plan, self._settings.render_device)
        if request.validate_only:
            return operations_pb2.Operation(done=True)
        return self._runner.start(
            workflow.KIND, request, target=target, request_id=request.request_id
        )

    def GetDataset(
        self, request: pb.GetDatasetRequest, _context: grpc.ServicerContext
    ) -> pb.Dataset:
        return workflow.get_dataset(self._store, convert.dataset_name(request.name))

    def ListDatasets(
        self, request: pb.ListDatasetsRequest, _context: grpc.ServicerContext
    ) -> pb.ListDatasetsResponse:
        names = list(manifests.list_resources(self._store, "datasets"))
        page, token = paginate(names, request.page_size, request.page_token)
        found = [workflow.get_dataset(self._store, name, listed=True) for name in page]
        return pb.ListDatasetsResponse(datasets=found, next_page_token=token)

    def DeleteDataset(
        self, request: pb.DeleteDatasetRequest, _context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        manifests.delete_resource(self._store, convert.dataset_name(request.name))
        return empty_pb2.Empty()

    def ListPresets(
        self, request: pb.ListPresetsRequest, _context: grpc.ServicerContext
    ) -> pb.ListPresetsResponse:
        page, token = paginate(list(presets().values()), request.page_size, request.page_token)
        return pb.ListPresetsResponse(
            presets=[convert.preset(found) for found in page], next_page_token=token
        )


def build(parts: ServiceParts) -> BuiltService:
    """Put the renderer together for a server."""
    settings = (
        parts.settings if isinstance(parts.settings, RenderSettings) else RenderSettings.load()
    )
    runner = OperationRunner(
        "render",
        parts.store,
        parts.engine,
        [workflow.create_dataset(settings)],
        settings.max_running,
    )
    servicer = RenderServicer(parts.store, parts.engine, runner, settings)
    registration = ServiceRegistration(
        FULL_NAME, lambda server: rpc.add_RenderServiceServicer_to_server(servicer, server)
    )
    return BuiltService(
        registration=registration,
        runner=runner,
        for_tenant=lambda store: build(replace(parts, store=store)),
    )
