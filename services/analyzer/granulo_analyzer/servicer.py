# SPDX-License-Identifier: GPL-3.0-or-later
"""The analyzer's RPC edge."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import grpc
from google.longrunning import operations_pb2

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo.analyzer.v1 import analyzer_service_pb2_grpc as rpc
from granulo_analyzer import convert, convert_realism, workflow, workflow_realism
from granulo_analyzer.evaluation import evaluate_pairs
from granulo_analyzer.particles import list_particles
from granulo_analyzer.screening import Screener
from granulo_analyzer.settings import AnalyzerSettings
from granulo_core.imaging.reading.isolated import IsolatedReader, Read
from granulo_core.operations.runner import OperationRunner
from granulo_core.rpc.channel import on_behalf_of
from granulo_core.rpc.lifetime import CallLifetime
from granulo_core.rpc.paging import paginate
from granulo_core.rpc.serve import BuiltService, ServiceParts
from granulo_core.rpc.server import ServiceRegistration
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore

FULL_NAME = "granulo.analyzer.v1.AnalyzerService"
_FILES_AT_ONCE = 2
"""Files of users that are read, each in a process of its own."""


class AnalyzerServicer(rpc.AnalyzerServiceServicer):
    """Serves analyses, their particles, evaluations, comparisons of image sets and screenings."""

    def __init__(
        self,
        store: ObjectStore,
        runner: OperationRunner,
        settings: AnalyzerSettings,
        reader: IsolatedReader,
    ) -> None:
        self._store = store
        self._runner = runner
        self._settings = settings
        self._screener = Screener(store, settings, reader)
        self._reader = reader

    def CreateAnalysis(
        self, request: pb.CreateAnalysisRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        plan = workflow.plan(self._store, request, self._settings)
        workflow.check_files(self._store, request, plan, self._read(context))
        if request.validate_only:
            return operations_pb2.Operation(done=True)
        return self._runner.start(
            workflow.KIND, request, target=plan.target, request_id=request.request_id
        )

    def GetAnalysis(
        self, request: pb.GetAnalysisRequest, _context: grpc.ServicerContext
    ) -> pb.Analysis:
        return workflow.get_analysis(self._store, convert.analysis_name(request.name, "name"))

    def ListAnalyses(
        self, request: pb.ListAnalysesRequest, _context: grpc.ServicerContext
    ) -> pb.ListAnalysesResponse:
        names = list(manifests.list_resources(self._store, workflow.COLLECTION))
        page, token = paginate(names, request.page_size, request.page_token)
        found = [workflow.get_analysis(self._store, name) for name in page]
        return pb.ListAnalysesResponse(analyses=found, next_page_token=token)

    def ListParticles(
        self, request: pb.ListParticlesRequest, _context: grpc.ServicerContext
    ) -> pb.ListParticlesResponse:
        return list_particles(self._store, request)

    def EvaluateSegmentation(
        self, request: pb.EvaluateSegmentationRequest, context: grpc.ServicerContext
    ) -> pb.EvaluateSegmentationResponse:
        return evaluate_pairs(self._store, request, self._settings, self._read(context))

    def CompareImageSets(
        self, request: pb.CompareImageSetsRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        plan = workflow_realism.plan(self._store, request, self._settings)
        workflow_realism.check_files(self._store, plan, self._settings, self._read(context))
        if request.validate_only:
            return operations_pb2.Operation(done=True)
        return self._runner.start(
            workflow_realism.KIND, request, target=plan.target, request_id=request.request_id
        )

    def GetImageSetComparison(
        self, request: pb.GetImageSetComparisonRequest, _context: grpc.ServicerContext
    ) -> pb.ImageSetComparison:
        name = convert_realism.comparison_name(request.name)
        return workflow_realism.get_comparison(self._store, name)

    def ScreenMicrographs(
        self,
        request_iterator: Iterator[pb.ScreenMicrographsRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[pb.ScreenMicrographsResponse]:
        yield from self._screener.stream(
            request_iterator, CallLifetime.of(context), on_behalf_of(context)
        )

    def _read(self, context: grpc.ServicerContext) -> Read:
        return partial(self._reader.run, check=CallLifetime.of(context).check)


def build(parts: ServiceParts) -> BuiltService:
    """Put the analyzer together for a server."""
    settings = (
        parts.settings if isinstance(parts.settings, AnalyzerSettings) else AnalyzerSettings.load()
    )
    reader = IsolatedReader(max_px=settings.max_image_px, processes=_FILES_AT_ONCE)
    return replace(_build(parts, settings, reader), close=reader.close)


def _build(parts: ServiceParts, settings: AnalyzerSettings, reader: IsolatedReader) -> BuiltService:
    runner = OperationRunner(
        "analyzer",
        parts.store,
        parts.engine,
        [workflow.create_analysis(settings), workflow_realism.compare_image_sets(settings)],
        settings.max_running,
    )
    servicer = AnalyzerServicer(parts.store, runner, settings, reader)
    registration = ServiceRegistration(
        FULL_NAME,
        lambda server: rpc.add_AnalyzerServiceServicer_to_server(servicer, server),
        long_calls=frozenset({"EvaluateSegmentation"}),
    )
    return BuiltService(
        registration=registration,
        runner=runner,
        for_tenant=lambda store: _build(replace(parts, store=store), settings, reader),
    )
