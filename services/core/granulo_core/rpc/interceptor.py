# SPDX-License-Identifier: GPL-3.0-or-later
"""The one interceptor of every server: request id, log, caller, deadline, input, errors."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message
from grpc_status import rpc_status
from structlog.contextvars import bind_contextvars, bound_contextvars

from granulo_core.errors import GranuloError, Reason, invalid_fields
from granulo_core.rpc.incoming import observed
from granulo_core.rpc.outgoing import REQUEST_ID
from granulo_core.rpc.required import missing_fields
from granulo_core.rpc.status import to_status
from granulo_core.rpc.tenants import Tenants
from granulo_core.security.authentication import Gate

_log = structlog.get_logger(__name__)
_LONGEST_REQUEST_ID = 128
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
    gate : Gate
        Knows callers and what they may call.
    tenants : Tenants
        The handlers of a caller with a store of its own.
    """

    def __init__(
        self, max_streams: int, long_calls: frozenset[str], gate: Gate, tenants: Tenants
    ) -> None:
        self._streams = threading.BoundedSemaphore(max_streams)
        self._long_calls = {*long_calls, _WAIT}
        self._gate = gate
        self._tenants = tenants

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
        request_id = _request_id_of(metadata)
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            if getattr(handler, kind) is None:
                continue
            call = _Call(method, metadata, request_id, kind,
                         is_stream="stream" in kind or method in self._long_calls)  # fmt: skip
            wrap = self._streaming if kind.endswith("stream") else self._single
            make = getattr(grpc, f"{kind}_rpc_method_handler")
            return make(
                wrap(handler, call),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return handler

    def _single(self, handler: Any, call: "_Call") -> Callable[..., Any]:
        def inside(request: Any, context: grpc.ServicerContext) -> Any:
            with self._edge(context, call) as edge:
                return self._behaviour(handler, call, edge, request, context)(request, context)

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            # A context of its own: what is bound for this call's log ends with it.
            return copy_context().run(inside, request, context)

        return answer

    def _streaming(self, handler: Any, call: "_Call") -> Callable[..., Any]:
        def inside(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self._edge(context, call) as edge:
                behaviour = self._behaviour(handler, call, edge, request, context)
                yield from behaviour(request, context)

        def answer(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            return _isolated(inside(request, context))

        return answer

    def _behaviour(
        self, handler: Any, call: "_Call", edge: "_Edge", request: Any, context: Any
    ) -> Callable[..., Any]:
        """What answers the caller; who that is comes before anything else about the call.

        Here rather than in `intercept_service`, which runs in the one thread that takes all calls.
        """
        identity = self._gate.admit(call.method, call.metadata)
        edge.caller = {"subject": identity.subject, "tenant": identity.tenant}
        bind_contextvars(**edge.caller)
        _check(request, context)
        if identity.tenant:
            handler = self._tenants.handler(identity.tenant, call.method, handler)
        behaviour: Callable[..., Any] = getattr(handler, call.kind)
        return behaviour

    @contextmanager
    def _edge(self, context: grpc.ServicerContext, call: "_Call") -> Iterator["_Edge"]:
        with (
            bound_contextvars(method=call.method, request_id=call.request_id),
            observed(call.method, call.metadata, context),
            self._answering(context, call) as edge,
        ):
            yield edge

    @contextmanager
    def _answering(self, context: grpc.ServicerContext, call: "_Call") -> Iterator["_Edge"]:
        started = time.monotonic()
        method, request_id, is_stream = call.method, call.request_id, call.is_stream
        edge = _Edge()
        log = _log.bind(method=method, request_id=request_id)
        context.set_trailing_metadata(((REQUEST_ID, request_id),))
        error: GranuloError | None = None
        taken = is_stream and self._streams.acquire(blocking=False)
        try:
            if is_stream and not taken:
                raise GranuloError(
                    Reason.TOO_MANY_STREAMS,
                    "All places for streams and long calls are taken; try again in a second.",
                    retry_after_s=_RETRY_S,
                )
            yield edge
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
            log.debug("call", seconds=seconds, **edge.caller)
            return
        log.info(
            "call refused",
            seconds=seconds,
            reason=error.reason.value,
            message=error.message,
            peer=context.peer(),
            **edge.caller,
        )
        status = rpc_status.to_status(to_status(error))
        # Not abort_with_status: it drops the request id, which matters most in errors.
        context.set_trailing_metadata((*status.trailing_metadata, (REQUEST_ID, request_id)))
        context.abort(status.code, status.details)


@dataclass(frozen=True)
class _Call:
    """What is known of a call before its handler runs."""

    method: str
    metadata: Mapping[str, str | bytes]
    request_id: str
    kind: str
    """``unary_unary`` and so on."""
    is_stream: bool
    """Takes one of the places for streams and long calls."""


@dataclass
class _Edge:
    """What is learnt of a call on its way, for the log."""

    caller: dict[str, str] = field(default_factory=dict)


def _request_id_of(metadata: Mapping[str, str | bytes]) -> str:
    """The caller's, where it is fit for logs and records."""
    given = metadata.get(REQUEST_ID)
    if isinstance(given, str) and given.isprintable() and 0 < len(given) <= _LONGEST_REQUEST_ID:
        return given
    return str(uuid.uuid4())


def _isolated(answers: Iterator[Any]) -> Iterator[Any]:
    """Make answers in a context of their own, whichever thread takes them."""
    own = copy_context()
    try:
        while True:
            try:
                answer = own.run(next, answers)
            except StopIteration:
                return
            yield answer
    finally:
        own.run(answers.close)  # type: ignore[attr-defined]


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
