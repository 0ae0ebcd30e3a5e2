# SPDX-License-Identifier: GPL-3.0-or-later
"""The segmenter's RPC edge."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import grpc
from google.longrunning import operations_pb2

from granulo.segmenter.v1 import segmenter_service_pb2 as pb
from granulo.segmenter.v1 import segmenter_service_pb2_grpc as rpc
from granulo_core.imaging.reading.isolated import IsolatedReader
from granulo_core.operations.runner import OperationRunner
from granulo_core.rpc.lifetime import CallLifetime
from granulo_core.rpc.paging import paginate
from granulo_core.rpc.readiness import Check, check_answers
from granulo_core.rpc.serve import BuiltService, ServiceParts
from granulo_core.rpc.server import ServiceRegistration
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore
from granulo_segmenter import convert, workflow
from granulo_segmenter.calls import CallSegmenter
from granulo_segmenter.settings import SegmenterSettings
from granulo_segmenter.slots import Slots

FULL_NAME = "granulo.segmenter.v1.SegmenterService"


class SegmenterServicer(rpc.SegmenterServiceServicer):
    """Serves segmentations and segments images within calls."""

    def __init__(
        self,
        store: ObjectStore,
        runner: OperationRunner,
        settings: SegmenterSettings,
        slots: Slots,
        reader: IsolatedReader,
    ) -> None:
        self._store = store
        self._runner = runner
        self._settings = settings
        self._reader = reader
        self._calls = CallSegmenter(store, settings, slots, reader)

    def SegmentImage(
        self, request: pb.SegmentImageRequest, context: grpc.ServicerContext
    ) -> pb.SegmentImageResponse:
        return self._calls.segment(request, CallLifetime.of(context))

    def SegmentImages(
        self, request_iterator: Iterator[pb.SegmentImagesRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.SegmentImagesResponse]:
        yield from self._calls.stream(request_iterator, CallLifetime.of(context))

    def CreateSegmentation(
        self, request: pb.CreateSegmentationRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        read = partial(self._reader.run, check=CallLifetime.of(context).check)
        plan = workflow.plan(self._store, request, self._settings, read)
        if request.validate_only:
            return operations_pb2.Operation(done=True)
        target = workflow.keep_plan(self._store, plan)
        return self._runner.start(
            workflow.KIND, request, target=target, request_id=request.request_id
        )

    def GetSegmentation(
        self, request: pb.GetSegmentationRequest, _context: grpc.ServicerContext
    ) -> pb.Segmentation:
        return workflow.get_segmentation(self._store, convert.segmentation_name(request.name))

    def ListSegmentations(
        self, request: pb.ListSegmentationsRequest, _context: grpc.ServicerContext
    ) -> pb.ListSegmentationsResponse:
        names = list(manifests.list_resources(self._store, workflow.COLLECTION))
        page, token = paginate(names, request.page_size, request.page_token)
        # The images of one segmentation may fill a message alone: Get has them.
        found = [workflow.get_segmentation(self._store, name, results=False) for name in page]
        return pb.ListSegmentationsResponse(segmentations=found, next_page_token=token)


def build(parts: ServiceParts) -> BuiltService:
    """Put the segmenter together for a server."""
    settings = (
        parts.settings
        if isinstance(parts.settings, SegmenterSettings)
        else SegmenterSettings.load()
    )
    slots = Slots(settings.calls_at_once, settings.calls_waiting)
    reader = IsolatedReader(max_px=settings.max_image_px, processes=settings.calls_at_once)
    return replace(_build(parts, settings, slots, reader), close=reader.close)


def _build(
    parts: ServiceParts, settings: SegmenterSettings, slots: Slots, reader: IsolatedReader
) -> BuiltService:
    runner = OperationRunner(
        "segmenter",
        parts.store,
        parts.engine,
        [workflow.create_segmentation(settings)],
        settings.max_running,
        answers_only=not settings.runs_operations,
    )
    servicer = SegmenterServicer(parts.store, runner, settings, slots, reader)
    registration = ServiceRegistration(
        FULL_NAME,
        lambda server: rpc.add_SegmenterServiceServicer_to_server(servicer, server),
        long_calls=frozenset({"SegmentImage"}),
    )
    needed: dict[str, Check] = {}
    if settings.model_server:
        needed["model server"] = lambda: check_answers(settings.model_server, settings)
    return BuiltService(
        registration=registration,
        runner=runner,
        dependencies=needed,
        for_tenant=lambda store: _build(replace(parts, store=store), settings, slots, reader),
    )
