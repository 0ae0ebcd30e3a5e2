# SPDX-License-Identifier: GPL-3.0-or-later
"""The one interceptor of every server: request id and log, deadline, REQUIRED fields, errors."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message
from grpc_status import rpc_status

from granulo_core.errors import GranuloError, Reason, invalid_fields
from granulo_core.rpc.required import missing_fields
from granulo_core.rpc.status import to_status

_log = structlog.get_logger(__name__)
_REQUEST_ID = "x-request-id"
_RETRY_S = 1.0
_WAIT = "/google.longrunning.Operations/WaitOperation"


class EdgeInterceptor(grpc.ServerInterceptor):
    """Wraps every method of a server.

    Parameters
    ----------
    max_streams : int
        Streams and long calls at once; beyond it RESOURCE_EXHAUSTED, so that short calls always
        find a thread.
    long_calls : frozenset of str
        Full names of unary methods that last, ``/package.Service/Method``.
    """

    def __init__(self, max_streams: int, long_calls: frozenset[str] = frozenset()) -> None:
        self._streams = threading.BoundedSemaphore(max_streams)
        self._long_calls = {*long_calls, _WAIT}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of a call."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        metadata = dict(handler_call_details.invocation_metadata or ())
        request_id = str(metadata.get(_REQUEST_ID) or uuid.uuid4())
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            behaviour = getattr(handler, kind)
            if behaviour is None:
                continue
            wrap = self._streaming if kind.endswith("stream") else self._single
            make = getattr(grpc, f"{kind}_rpc_method_handler")
            is_stream = "stream" in kind or method in self._long_calls
            return make(
                wrap(behaviour, method, request_id, is_stream=is_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return handler

    def _single(
        self, behaviour: Callable[..., Any], method: str, request_id: str, *, is_stream: bool
    ) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            with self._edge(context, method, request_id, is_stream):
                _check(request, context)
                return behaviour(request, context)

        return call

    def _streaming(
        self, behaviour: Callable[..., Any], method: str, request_id: str, *, is_stream: bool
    ) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self._edge(context, method, request_id, is_stream):
                _check(request, context)
                yield from behaviour(request, context)

        return call

    @contextmanager
    def _edge(
        self, context: grpc.ServicerContext, method: str, request_id: str, is_stream: bool
    ) -> Iterator[None]:
        started = time.monotonic()
        log = _log.bind(method=method, request_id=request_id)
        context.set_trailing_metadata(((_REQUEST_ID, request_id),))
        error: GranuloError | None = None
        taken = is_stream and self._streams.acquire(blocking=False)
        try:
            if is_stream and not taken:
                raise GranuloError(
                    Reason.TOO_MANY_STREAMS,
                    "All places for streams and long calls are taken; try again in a second.",
                    retry_after_s=_RETRY_S,
                )
            yield
        except GranuloError as raised:
            error = raised
        except Exception as raised:
            if _was_aborted(context) or not context.is_active():
                raise  # an answer was given, or nobody is left who wants one
            log.exception("defect")
            error = GranuloError(
                Reason.INTERNAL_ERROR,
                f"{method} failed by a defect of Granulo ({type(raised).__name__}); the server's "
                f"log has the trace under request id {request_id}.",
                metadata={"request_id": request_id},
            )
        finally:
            if taken:
                self._streams.release()
        seconds = round(time.monotonic() - started, 4)
        if error is None:
            log.debug("call", seconds=seconds)
            return
        log.info("call refused", seconds=seconds, reason=error.reason.value, message=error.message)
        status = rpc_status.to_status(to_status(error))
        # Not abort_with_status: it drops the request id, which matters most in errors.
        context.set_trailing_metadata((*status.trailing_metadata, (_REQUEST_ID, request_id)))
        context.abort(status.code, status.details)


def _check(request: Any, context: grpc.ServicerContext) -> None:
    # None without a deadline, whatever the stubs say.
    left: float | None = context.time_remaining()
    if left is not None and left <= 0:
        raise GranuloError(
            Reason.DEADLINE_PASSED, "The call's deadline passed before the work began."
        )
    if isinstance(request, Message):  # otherwise it is a stream of them
        violations = missing_fields(request)
        if violations:
            raise invalid_fields(violations)


def _was_aborted(context: grpc.ServicerContext) -> bool:
    """Whether a servicer of grpc's own (health, reflection) ended the call with a code."""
    code = context.code()  # type: ignore[attr-defined]  # missing in the stubs
    return code not in (None, grpc.StatusCode.OK)
