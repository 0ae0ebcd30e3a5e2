# SPDX-License-Identifier: GPL-3.0-or-later
"""Around a segmenter: its store, its model server, its calls."""

import hashlib
import io
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from granulo.segmenter.v1 import segmenter_service_pb2 as pb
from granulo.segmenter.v1 import segmenter_service_pb2_grpc as rpc
from granulo.type.v1 import artifact_pb2
from granulo_core.imaging.labels import decode_labels
from granulo_core.store import LocalStore


def start_model_server(base: Path, listen: str = "127.0.0.1:0") -> tuple[Any, str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "granulo_segmenter.predictor.embedded", "--base", str(base),
         "--listen", listen, "--threads", "1", "--poll-s", "0.2"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["address"]


@dataclass
class Running:
    """Everything that runs."""

    store: LocalStore
    stub: rpc.SegmenterServiceStub
    operations: operations_pb2_grpc.OperationsStub
    models: Path
    model_server: Any
    model_address: str
    folder: Path

    def upload(self, data: bytes, name: str) -> artifact_pb2.Artifact:
        digest = hashlib.sha256(data).hexdigest()
        self.store.put(f"uploads/{digest}", data, "image/tiff")
        return artifact_pb2.Artifact(uri=f"uploads/{digest}", display_name=name)

    def create(self, *images: artifact_pb2.Artifact, **more: Any) -> operations_pb2.Operation:
        request = pb.CreateSegmentationRequest()
        request.segmentation.images.images.extend(images)
        if "pixel_size" in more:
            size = more.pop("pixel_size")
            request.segmentation.images.pixel_size.CopyFrom(
                artifact_pb2.PixelSize(x_nm=size, y_nm=size)
            )
        request.segmentation.MergeFrom(pb.Segmentation(**more))
        return self.stub.CreateSegmentation(request, timeout=30)

    def finish(self, operation: operations_pb2.Operation) -> pb.Segmentation:
        deadline = time.monotonic() + 240
        while not operation.done:
            assert time.monotonic() < deadline, operation
            time.sleep(0.1)
            operation = self.operations.GetOperation(
                operations_pb2.GetOperationRequest(name=operation.name), timeout=10
            )
        assert not operation.error.message, operation.error
        found = pb.Segmentation()
        assert operation.response.Unpack(found)
        return found

    def labels(self, result: pb.SegmentedImage) -> np.ndarray:
        data = self.store.get(result.labels.uri, result.labels.digest)
        return (
            decode_labels(data, "instances") if result.particle_count > 1 else decode_labels(data)
        )


def png(array: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


def with_bar(array: np.ndarray) -> np.ndarray:
    bar = np.zeros((30, array.shape[1]), np.uint8)
    cv2.putText(bar, "200 nm EHT", (4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1)
    return np.vstack([array, bar])


def refusal(caught: Any) -> tuple[grpc.StatusCode, str, str, list[str]]:
    error = caught.value
    reason, fields = "", []
    status = rpc_status.from_call(error)
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason
        if detail.Unpack(bad):
            fields = [violation.field for violation in bad.field_violations]
    return error.code(), reason, error.details(), fields
