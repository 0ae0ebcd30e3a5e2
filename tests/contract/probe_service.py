# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that fails on demand."""

import threading
from collections.abc import Callable, Iterator

import grpc
import operation_jobs as jobs
import pytest
from google.longrunning import operations_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from granulo.render.v1 import render_service_pb2 as pb
from granulo.render.v1 import render_service_pb2_grpc as rpc
from granulo_core.errors import FieldViolation, GranuloError, Reason, invalid_fields
from granulo_core.operations.runner import OperationRunner


class Probe(rpc.RenderServiceServicer):
    """A servicer that fails on demand."""

    def __init__(self, runner: OperationRunner) -> None:
        self.runner = runner
        self.go_on = threading.Event()

    def CreateDataset(  # noqa: N802
        self, request: pb.CreateDatasetRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        target = jobs.target(request.dataset.image_count)
        return self.runner.start(jobs.KIND, request, target=target, request_id=request.request_id)

    def GetDataset(  # noqa: N802
        self, request: pb.GetDatasetRequest, context: grpc.ServicerContext
    ) -> pb.Dataset:
        errors = {
            "busy": GranuloError(Reason.SERVER_BUSY, "Later.", retry_after_s=2.5),
            "referenced": GranuloError(
                Reason.RESOURCE_REFERENCED, "In use.", metadata={"name": "datasets/a"}
            ),
            "defect": ZeroDivisionError("the secret"),
            "verbose": invalid_fields(
                [FieldViolation(f"files[{i}]", "粒子を測定できません。" * 40) for i in range(500)]
            ),
        }
        if request.name in errors:
            raise errors[request.name]
        return pb.Dataset(name=request.name)

    def PreviewRecipe(  # noqa: N802
        self, request: pb.PreviewRecipeRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.PreviewRecipeResponse]:
        yield pb.PreviewRecipeResponse(image_png=b"first")
        while not self.go_on.wait(0.05) and context.is_active():
            pass
        if request.preset == "fails":
            raise GranuloError(Reason.WORKER_DIED, "The frame was lost.")


def failure(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def details(error: grpc.RpcError) -> dict[str, object]:
    """Error details by the name of their message."""
    status = rpc_status.from_call(error)
    assert status is not None
    found: dict[str, object] = {}
    for packed in status.details:
        kind = packed.type_url.rpartition(".")[2]
        found[kind] = getattr(error_details_pb2, kind).FromString(packed.value)
    return found
