# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that crash or stop their decoder cost one refusal; the server answers the next request."""

import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

import granulo_analyzer.servicer
import granulo_segmenter.servicer
from granulo.analyzer.v1 import analyzer_service_pb2 as analyzer_pb
from granulo.analyzer.v1 import analyzer_service_pb2_grpc as analyzer_rpc
from granulo.segmenter.v1 import segmenter_service_pb2 as pb
from granulo.segmenter.v1 import segmenter_service_pb2_grpc as rpc
from granulo.type.v1 import artifact_pb2
from granulo_analyzer.settings import AnalyzerSettings
from granulo_core.engine.local import LocalEngine
from granulo_core.rpc.serve import ServiceParts
from granulo_core.rpc.server import build_server
from granulo_core.store import LocalStore
from granulo_segmenter.settings import SegmenterSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import faulty_reading
from faulty_reading import CRASH, HANG

LONG_S = 60.0
SHORT_S = 1.5
NO_SERVER = "127.0.0.1:9"


@dataclass
class Running:
    """Both services on one server, without a model server: it is asked after the file was read."""

    store: LocalStore
    segmenter: rpc.SegmenterServiceStub
    analyzer: analyzer_rpc.AnalyzerServiceStub

    def upload(self, data: bytes) -> artifact_pb2.Artifact:
        key = f"uploads/{hashlib.sha256(data).hexdigest()}"
        self.store.put(key, data, "image/png")
        return artifact_pb2.Artifact(uri=key, display_name="sample.png")

    def segment(self, data: bytes, timeout_s: float = LONG_S) -> None:
        """Inline where ``data`` is no picture, to see both ways in."""
        request = pb.SegmentImageRequest(inline=data)
        if data == picture():
            request = pb.SegmentImageRequest(artifact=self.upload(data))
        self.segmenter.SegmentImage(request, timeout=timeout_s)

    def plan(self, data: bytes, timeout_s: float = LONG_S) -> None:
        request = pb.CreateSegmentationRequest(validate_only=True)
        request.segmentation.images.images.append(self.upload(data))
        self.segmenter.CreateSegmentation(request, timeout=timeout_s)

    def analyse(self, data: bytes, timeout_s: float = LONG_S) -> None:
        request = analyzer_pb.CreateAnalysisRequest(validate_only=True)
        request.analysis.label_set.items.add(labels=self.upload(data))
        self.analyzer.CreateAnalysis(request, timeout=timeout_s)

    def evaluate(self, data: bytes, timeout_s: float = LONG_S) -> None:
        request = analyzer_pb.EvaluateSegmentationRequest()
        request.pairs.add(predicted=self.upload(picture()), truth=self.upload(data))
        self.analyzer.EvaluateSegmentation(request, timeout=timeout_s)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("hostile")
    store = LocalStore(folder / "store")
    segmenting = SegmenterSettings(
        store_url=store.url, model_server=NO_SERVER, call_patience_s=0.0, calls_at_once=1
    )
    engine = LocalEngine(cpus=1)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("granulo_segmenter.calls", "granulo_analyzer.inputs"):
            patch.setattr(f"{module}.read_micrograph", faulty_reading.read_micrograph)
        patch.setattr("granulo_analyzer.inputs.decode_labels", faulty_reading.decode_labels)
        patch.setattr("granulo_segmenter.images.check_pages", faulty_reading.check_pages)
        built = [
            granulo_segmenter.servicer.build(ServiceParts(store, engine, segmenting)),
            granulo_analyzer.servicer.build(ServiceParts(store, engine, AnalyzerSettings())),
        ]
        server = build_server(
            [service.registration for service in built],
            runners=[service.runner for service in built],
            store=store,
            settings=segmenting,
        )
        with grpc.insecure_channel(server.start("127.0.0.1:0")) as channel:
            yield Running(
                store,
                rpc.SegmenterServiceStub(channel),
                analyzer_rpc.AnalyzerServiceStub(channel),
            )
        server.stop(0)
        server.close()
        for service in built:
            service.close()
        engine.close()


def picture() -> bytes:
    """A label image that is a micrograph, too."""
    labels = np.zeros((60, 60), np.uint8)
    labels[10:30, 10:30], labels[10:30, 35:55] = 1, 2
    buffer = io.BytesIO()
    Image.fromarray(labels).save(buffer, "PNG")
    return buffer.getvalue()


def failure(call: Callable[[], None]) -> tuple[grpc.StatusCode, dict[str, str]]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    return caught.value.code(), {"reason": info.reason, **info.metadata}


def assert_answers(running: Running, way: str) -> None:
    """The next request is answered."""
    if way != "segment":
        getattr(running, way)(picture())
        return
    code, info = failure(lambda: running.segment(picture()))
    # It was read: what comes then is not there.
    assert (code, info["reason"]) == (grpc.StatusCode.UNAVAILABLE, "MODEL_SERVER_UNAVAILABLE")


@pytest.mark.parametrize("way", ["segment", "plan", "analyse", "evaluate"])
def test_a_file_that_crashes_its_decoder_is_refused(running: Running, way: str) -> None:
    code, info = failure(lambda: getattr(running, way)(CRASH))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert (info["reason"], info["cause"]) == ("IMAGE_UNREADABLE", "crash")
    assert_answers(running, way)


@pytest.mark.parametrize("way", ["segment", "plan", "evaluate"])
def test_a_deadline_ends_a_decoder_that_hangs(running: Running, way: str) -> None:
    # As many as there are places to read in: one that went on would keep the next file waiting.
    for _ in range(2):
        code, _ = failure(lambda: getattr(running, way)(HANG, SHORT_S))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert_answers(running, way)
