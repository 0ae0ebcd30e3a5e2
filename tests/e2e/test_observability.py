# SPDX-License-Identifier: GPL-3.0-or-later
"""One request is one trace through all processes, and each of them can be asked for numbers."""

import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
import tifffile
from opentelemetry.context import attach, detach
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as collector_rpc
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client.parser import text_string_to_metric_families

from granulo_client import Client
from granulo_client.standalone import Standalone

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
_SOON_S = 30.0
pytestmark = pytest.mark.timeout(300)


class Collector(collector_rpc.TraceServiceServicer):
    """What an OpenTelemetry collector takes in: names of spans by service, of one trace."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[tuple[str, str, str]] = []

    def Export(  # noqa: N802
        self, request: collector_pb.ExportTraceServiceRequest, _context: grpc.ServicerContext
    ) -> collector_pb.ExportTraceServiceResponse:
        with self._lock:
            for resource in request.resource_spans:
                service = next(
                    item.value.string_value
                    for item in resource.resource.attributes
                    if item.key == "service.name"
                )
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self._spans.append((span.trace_id.hex(), service, span.name))
        return collector_pb.ExportTraceServiceResponse()

    def spans(self, trace_id: str) -> set[tuple[str, str]]:
        with self._lock:
            return {(service, name) for of, service, name in self._spans if of == trace_id}


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, str]]:
    """A collector, and its address."""
    taken = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    collector_rpc.add_TraceServiceServicer_to_server(taken, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield taken, f"http://127.0.0.1:{port}"
    server.stop(0)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, collector: tuple[Collector, str]
) -> Iterator[tuple[Path, str, list[str]]]:
    """Folder with a micrograph, a standalone's address, and those of its two metrics' ports."""
    folder = tmp_path_factory.mktemp("observed")
    y, x = np.mgrid[:128, :128]
    image = np.full((128, 128), 50, np.uint8)
    for centre in (35, 90):
        image[(x - centre) ** 2 + (y - 64) ** 2 < 18**2] = 180
    tifffile.imwrite(folder / "discs.tif", image)
    ports = free_ports(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRANULO_OTLP_ENDPOINT", collector[1])
        patch.setenv("GRANULO_METRICS_LISTEN", ports[0])
        patch.setenv("GRANULO_MODEL_SERVER_METRICS_LISTEN", ports[1])
        standalone = Standalone.join(folder / "data")
    try:
        yield folder, standalone.address, ports
    finally:
        standalone.leave()


def free_ports(count: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def scraped(address: str) -> dict[str, float]:
    """Samples by name and labels."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        " ".join([sample.name, *sorted(sample.labels.values())]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def soon(check: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + _SOON_S
    while time.monotonic() < end_s:
        if check():
            return True
        time.sleep(0.1)
    return check()


def test_one_request_is_one_trace_and_moves_the_counters(
    running: tuple[Path, str, list[str]], collector: tuple[Collector, str]
) -> None:
    folder, address, (metrics, model_metrics) = running
    before = scraped(metrics)
    with Client(address) as client:
        token = attach(TraceContextTextMapPropagator().extract({"traceparent": PARENT}))
        try:
            job = client.segment([folder / "discs.tif"])
            found = job.result()
        finally:
            detach(token)
    assert found.results[0].particle_count == 2
    wanted = {
        ("granulo-standalone", "granulo.segmenter.v1.SegmenterService/CreateSegmentation"),
        ("granulo-standalone", "CreateSegmentation"),
        ("granulo-worker", "granulo_segmenter.tasks:segment_shard"),
        ("granulo-worker", "segment.instances"),
        ("granulo-worker", "tensorflow.serving.PredictionService/Predict"),
        ("granulo-model-server", "tensorflow.serving.PredictionService/Predict"),
    }
    taken = collector[0]
    assert soon(lambda: wanted <= taken.spans(TRACE_ID)), wanted - taken.spans(TRACE_ID)

    after = scraped(metrics)
    images = "granulo_images_total segmenter"
    assert after[images] == before.get(images, 0) + 1
    for stage in ("segment.read", "segment.network", "segment.instances", "segment.write"):
        assert after[f"granulo_stage_seconds_count {stage}"] >= 1, stage
    assert after["granulo_operations SUCCEEDED segmenter"] >= 1
    assert after["granulo_operations FAILED segmenter"] == 0
    assert 0 in [after[name] for name in after if name.startswith("granulo_queue_depth ")]
    calls = "granulo_rpc_requests_total CreateSegmentation OK granulo.segmenter.v1.SegmenterService"
    assert after[calls] == 1
    puts = "granulo_store_seconds_count put"
    assert after[puts] > before.get(puts, 0)
    errors = {n: v for n, v in after.items() if n.startswith("granulo_store_errors_total")}
    # There before it counts anything, or the alert would miss the first damaged object.
    assert errors == {"granulo_store_errors_total DATA_LOSS get": 0}
    of_models = scraped(model_metrics)
    assert of_models["granulo_model_batch_size_count"] >= 1
    assert of_models["granulo_model_queue_depth"] == 0
    calls = "granulo_rpc_requests_total OK Predict tensorflow.serving.PredictionService"
    assert of_models[calls] >= 1
