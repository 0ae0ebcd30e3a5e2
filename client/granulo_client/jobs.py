# SPDX-License-Identifier: Apache-2.0
"""Jobs: operations on a server, followed to their end through broken streams."""

import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from granulo.operations.v1 import operation_watch_service_pb2, operation_watch_service_pb2_grpc
from granulo.render.v1.render_service_pb2 import CreateDatasetMetadata
from granulo.type.v1 import progress_pb2
from granulo_client.channels import SERVICES, Channels
from granulo_client.errors import GranuloClientError, UsageError, from_status

T = TypeVar("T", bound=Message)

OnProgress = Callable[[progress_pb2.Progress], None]

_SILENCE_S = 30.0
"""For so long a server may be away before following its job is given up."""
_POLL_S = 0.5
# Streams end with these, and without details, when a server or a proxy in between stops.
_BROKEN = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED}
)


class Operations:
    """All operations behind the known addresses.

    Parameters
    ----------
    channels : Channels
    alive : callable, optional
        Says whether waiting for a silent server makes sense; by default always.
    timeout_s : float
        Deadline of short calls.
    """

    def __init__(
        self,
        channels: Channels,
        alive: Callable[[], bool] = lambda: True,
        timeout_s: float = 30.0,
    ) -> None:
        self._channels = channels
        self._alive = alive
        self._timeout_s = timeout_s

    def get(self, name: str) -> operations_pb2.Operation:
        """Present state of an operation."""
        service = service_of(name)
        try:
            return self._stub(service).GetOperation(
                operations_pb2.GetOperationRequest(name=name), timeout=self._timeout_s
            )
        except grpc.RpcError as error:
            raise self._channels.failed(error, service) from error

    def list(self, page_size: int = 200) -> Iterator[operations_pb2.Operation]:
        """Every operation of every known server."""
        for service in self._channels.one_per_address():
            token = ""
            while True:
                request = operations_pb2.ListOperationsRequest(
                    name="operations", page_size=page_size, page_token=token
                )
                try:
                    answer = self._stub(service).ListOperations(request, timeout=self._timeout_s)
                except grpc.RpcError as error:
                    raise self._channels.failed(error, service) from error
                yield from answer.operations
                token = answer.next_page_token
                if not token:
                    break

    def cancel(self, name: str) -> None:
        """Ask a running operation to stop; one that has ended is left as it is."""
        service = service_of(name)
        try:
            self._stub(service).CancelOperation(
                operations_pb2.CancelOperationRequest(name=name), timeout=self._timeout_s
            )
        except grpc.RpcError as error:
            raise self._channels.failed(error, service) from error

    def watch(self, name: str) -> Iterator[operations_pb2.Operation]:
        """Present state, then every change until the operation is done.

        A broken stream is taken up again after the last event that arrived. A server without free
        streams is asked twice a second instead.

        Raises
        ------
        GranuloClientError
            The operation is unknown, or the server stayed away for half a minute.
        """
        service = service_of(name)
        stub = operation_watch_service_pb2_grpc.OperationWatchServiceStub(
            self._channels.to(service)
        )
        sequence, last_contact_s = 0, time.monotonic()
        while True:
            request = operation_watch_service_pb2.WatchOperationRequest(
                name=name, after_sequence=sequence
            )
            try:
                for event in stub.WatchOperation(request):
                    sequence, last_contact_s = event.sequence, time.monotonic()
                    yield event.operation
                    if event.operation.done:
                        return
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                    yield from self._poll(name)
                    return
                broken = (
                    error.code() in _BROKEN
                    and rpc_status.from_call(cast("grpc.Call", error)) is None
                )
                silent_s = time.monotonic() - last_contact_s
                if not broken or silent_s > _SILENCE_S or not self._alive():
                    raise self._channels.failed(error, service) from error
            time.sleep(_POLL_S)

    def _poll(self, name: str) -> Iterator[operations_pb2.Operation]:
        while True:
            operation = self.get(name)
            yield operation
            if operation.done:
                return
            time.sleep(_POLL_S)

    def _stub(self, service: str) -> operations_pb2_grpc.OperationsStub:
        return operations_pb2_grpc.OperationsStub(self._channels.to(service))


class Job(Generic[T]):
    """An operation whose result is a message of a known type.

    Parameters
    ----------
    operation : google.longrunning.Operation
        As the creating call returned it.
    response_type : type of Message
    operations : Operations
    """

    def __init__(
        self,
        operation: operations_pb2.Operation,
        response_type: type[T],
        operations: Operations,
    ) -> None:
        self.operation = operation
        self._response_type = response_type
        self._operations = operations

    @property
    def name(self) -> str:
        """``operations/<service>/<id>``; the job can be found again by it."""
        name: str = self.operation.name
        return name

    @property
    def progress(self) -> progress_pb2.Progress:
        """Progress as last seen."""
        return progress_of(self.operation)

    def result(self, on_progress: OnProgress | None = None) -> T:
        """Wait for the end and return what was made.

        Parameters
        ----------
        on_progress : callable, optional
            Called with every change.

        Raises
        ------
        GranuloClientError
            The error with which the operation failed; `CancelledError` when it was cancelled.
        """
        if self.operation.done:
            return self._outcome()
        for operation in self._operations.watch(self.name):
            self.operation = operation
            if on_progress:
                on_progress(self.progress)
        return self._outcome()

    def cancel(self) -> None:
        """Ask the server to stop it."""
        self._operations.cancel(self.name)

    def _outcome(self) -> T:
        if self.operation.HasField("error"):
            raise from_status(self.operation.error)
        response = self._response_type()
        if not self.operation.response.Unpack(response):
            raise GranuloClientError(
                f"{self.name} ended with a {self.operation.response.TypeName()}, where "
                f"a {response.DESCRIPTOR.full_name} was expected: client and server differ."
            )
        return response


def service_of(name: str) -> str:
    """Service that owns an operation, from ``operations/<service>/<id>``.

    Raises
    ------
    UsageError
        The name has another form.
    """
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != "operations" or parts[1] not in SERVICES or not parts[2]:
        raise UsageError(
            f"{name!r} is no operation's name; it looks like operations/render/3f9a1c02b7e4-1. "
            "`granulo operations list` shows those that exist."
        )
    return parts[1]


def progress_of(operation: operations_pb2.Operation) -> progress_pb2.Progress:
    """Progress of any operation, whatever the rest of its metadata is."""
    # Progress is field 1 of every metadata message, so any of them reads it from any other.
    return CreateDatasetMetadata.FromString(operation.metadata.value).progress
