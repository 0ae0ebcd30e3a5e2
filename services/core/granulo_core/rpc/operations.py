# SPDX-License-Identifier: GPL-3.0-or-later
"""`google.longrunning.Operations` and `OperationWatchService` over the runners of a server."""

from collections.abc import Iterator, Sequence

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import empty_pb2

from granulo.operations.v1 import operation_watch_service_pb2 as watch_pb
from granulo.operations.v1 import operation_watch_service_pb2_grpc as watch_rpc
from granulo_core.errors import FieldViolation, invalid_fields, not_found
from granulo_core.operations.runner import OperationRunner
from granulo_core.rpc.paging import paginate

_LONGEST_WAIT_S = 300.0


class OperationRouter:
    """Finds the runner of an operation by its name, ``operations/<service>/<id>``."""

    def __init__(self, runners: Sequence[OperationRunner]) -> None:
        self._runners = {runner.service: runner for runner in runners}

    def of(self, name: str) -> OperationRunner:
        """The runner that owns an operation."""
        parts = name.split("/")
        if len(parts) != 3 or parts[0] != "operations":
            raise invalid_fields(
                [FieldViolation("name", f"{name!r} is not operations/<service>/<id>.")]
            )
        if parts[1] not in self._runners:
            known = ", ".join(sorted(self._runners))
            raise not_found(name, f"This server has the operations of: {known}.")
        return self._runners[parts[1]]

    def below(self, name: str) -> list[OperationRunner]:
        """The runners of ``operations`` (or nothing: all) or ``operations/<service>``."""
        service = name.removeprefix("operations").strip("/")
        if not service:
            return list(self._runners.values())
        return [self.of(f"operations/{service}/-")]


class OperationsServicer(operations_pb2_grpc.OperationsServicer):  # type: ignore[misc]
    """The whole of `google.longrunning.Operations`."""

    def __init__(self, router: OperationRouter) -> None:
        self._router = router

    def GetOperation(
        self, request: operations_pb2.GetOperationRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Current state."""
        return self._router.of(request.name).get(request.name)

    def ListOperations(
        self, request: operations_pb2.ListOperationsRequest, context: grpc.ServicerContext
    ) -> operations_pb2.ListOperationsResponse:
        """Newest first within a service."""
        runners = self._router.below(request.name)
        found = [item for runner in runners for item in runner.list(request.filter)]
        page, token = paginate(found, request.page_size, request.page_token)
        return operations_pb2.ListOperationsResponse(operations=page, next_page_token=token)

    def WaitOperation(
        self, request: operations_pb2.WaitOperationRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Wait until done, at most the asked time or the call's deadline."""
        asked = request.timeout.ToMilliseconds() / 1e3
        seconds = min(asked, _LONGEST_WAIT_S) if request.HasField("timeout") else _LONGEST_WAIT_S
        left: float | None = context.time_remaining()
        if left is not None:
            # Answer shortly before the deadline: the state is worth more than an error.
            seconds = min(seconds, max(0.0, left - 0.2))
        runner = self._router.of(request.name)
        return runner.wait(request.name, seconds, context.is_active)

    def CancelOperation(
        self, request: operations_pb2.CancelOperationRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        """Ask for its end."""
        self._router.of(request.name).cancel(request.name)
        return empty_pb2.Empty()

    def DeleteOperation(
        self, request: operations_pb2.DeleteOperationRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        """Forget an ended operation."""
        self._router.of(request.name).delete(request.name)
        return empty_pb2.Empty()


class OperationWatchServicer(watch_rpc.OperationWatchServiceServicer):
    """Streams an operation's changes."""

    def __init__(self, router: OperationRouter) -> None:
        self._router = router

    def WatchOperation(
        self, request: watch_pb.WatchOperationRequest, context: grpc.ServicerContext
    ) -> Iterator[watch_pb.WatchOperationResponse]:
        """Current state at once, then every change until it is done."""
        runner = self._router.of(request.name)
        for sequence, operation in runner.watch(
            request.name, request.after_sequence, context.is_active
        ):
            yield watch_pb.WatchOperationResponse(sequence=sequence, operation=operation)
