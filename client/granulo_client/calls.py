# SPDX-License-Identifier: Apache-2.0
"""Calls of services: deadlines, pages and streams, and errors as exceptions."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc
from google.longrunning import operations_pb2
from google.protobuf.message import Message

from granulo_client.channels import Channels
from granulo_client.jobs import Job, Operations
from granulo_client.retries import Patience, with_retries

T = TypeVar("T", bound=Message)

# Creating a job validates the whole input first, which for many large images takes a while.
CREATE_TIMEOUT_S = 600.0
_CALL_TIMEOUT_S = 60.0
_STREAM_TIMEOUT_S = 3600.0


class Calls:
    """Makes calls; what they raise is a `GranuloClientError`.

    Parameters
    ----------
    channels : Channels
    operations : Operations
        Follows the jobs that calls create.
    """

    def __init__(self, channels: Channels, operations: Operations) -> None:
        self._channels = channels
        self._operations = operations

    def call(
        self,
        method: Callable[..., T],
        request: Message,
        service: str,
        timeout_s: float = _CALL_TIMEOUT_S,
    ) -> T:
        """Answer of a call; a busy server is asked again when it says, within the time."""

        def attempt(left_s: float) -> T:
            try:
                return method(request, timeout=left_s)
            except grpc.RpcError as error:
                raise self._channels.failed(error, service) from error

        return with_retries(attempt, Patience(timeout_s))

    def stream(
        self, method: Callable[..., Iterator[T]], request: Message, service: str
    ) -> Iterator[T]:
        """Answers of a call, one by one as they come; a busy server is asked again."""
        patience = Patience(_STREAM_TIMEOUT_S)
        has_begun = False
        while True:
            try:
                for answer in method(request, timeout=patience.left_s):
                    has_begun = True
                    yield answer
            except grpc.RpcError as error:
                found = self._channels.failed(error, service)
                if has_begun:
                    raise found from error
                patience.pause(found)
            else:
                return

    def pages(self, method: Callable[..., Any], request: Any, service: str) -> Iterator[Any]:
        """All pages of a list."""
        while True:
            page = self.call(method, request, service)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def job(
        self,
        method: Callable[..., operations_pb2.Operation],
        request: Message,
        response_type: type[T],
        service: str,
    ) -> Job[T]:
        """Job that a call creates."""
        operation = self.call(method, request, service, timeout_s=CREATE_TIMEOUT_S)
        return Job(operation, response_type, self._operations)
