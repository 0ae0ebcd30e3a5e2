# SPDX-License-Identifier: GPL-3.0-or-later
"""Around an analyzer: its store, its calls, small labels and micrographs."""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from google.longrunning import operations_pb2, operations_pb2_grpc
from PIL import Image

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo.analyzer.v1 import analyzer_service_pb2_grpc as rpc
from granulo.type.v1 import artifact_pb2
from granulo_core.store import LocalStore

HEIGHT, WIDTH = 120, 160


@dataclass(frozen=True)
class Running:
    """A running analyzer and its store."""

    store: LocalStore
    stub: rpc.AnalyzerServiceStub
    operations: operations_pb2_grpc.OperationsStub

    def upload(self, data: bytes, name: str) -> artifact_pb2.Artifact:
        digest = hashlib.sha256(data).hexdigest()
        stored = self.store.put(f"uploads/{digest}", data)
        return artifact_pb2.Artifact(uri=stored.key, digest=stored.digest, display_name=name)

    def analyse(self, request: pb.CreateAnalysisRequest) -> pb.Analysis:
        operation = self.finish(self.stub.CreateAnalysis(request, timeout=30))
        assert not operation.HasField("error"), operation.error
        result = pb.Analysis()
        assert operation.response.Unpack(result)
        return result

    def finish(self, operation: operations_pb2.Operation) -> operations_pb2.Operation:
        request = operations_pb2.WaitOperationRequest(name=operation.name)
        request.timeout.seconds = 60
        done = self.operations.WaitOperation(request, timeout=90)
        assert done.done
        return done


def squares(*, shift: int = 0) -> np.ndarray:
    """Four squares of 20 px, one of them at the frame; labels with a gap."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    for label, x in ((1, 10), (2, 50), (7, 90), (9, 140)):
        labels[40 + shift : 60 + shift, x : x + 20] = label
    return labels


def micrograph(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 8, labels.shape)
    return np.clip(60 + 110 * (labels > 0) + noise, 0, 255).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def label_set(
    *items: pb.LabelledImage, pixel_size_nm: float | None = None
) -> pb.CreateAnalysisRequest:
    request = pb.CreateAnalysisRequest(analysis=pb.Analysis(label_set=pb.LabelSet(items=items)))
    if pixel_size_nm is not None:
        size = artifact_pb2.PixelSize(x_nm=pixel_size_nm, y_nm=pixel_size_nm)
        request.analysis.label_set.pixel_size.CopyFrom(size)
    return request
