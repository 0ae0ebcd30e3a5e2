# SPDX-License-Identifier: Apache-2.0
"""What every call of the client brings along: its token, and the trace that it belongs to."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_AUTHORIZATION = "authorization"
_PROPAGATOR = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("granulo")

_Metadata = Sequence[tuple[str, str | bytes]]


class _CallDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: _Metadata | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: Any


class _AnyKind(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Does the same to calls of every kind."""

    @abstractmethod
    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any: ...

    def _dispatch(self, continuation: Any, details: Any, request: Any) -> Any:
        return self._intercept(continuation, details, request)

    intercept_unary_unary = _dispatch  # type: ignore[assignment]
    intercept_unary_stream = _dispatch  # type: ignore[assignment]
    intercept_stream_unary = _dispatch  # type: ignore[assignment]
    intercept_stream_stream = _dispatch  # type: ignore[assignment]


class SendsToken(_AnyKind):
    """Adds the token to every call; not call credentials, which plaintext channels cannot have.

    Parameters
    ----------
    token : callable
        Gives the token to send now.
    """

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        more = [(_AUTHORIZATION, f"Bearer {self._token()}")]
        return continuation(_with(details, more), request)


class HandsTraceOn(_AnyKind):
    """Puts a span around every call, and tells the server of it (W3C ``traceparent``).

    Spans are kept where whoever uses the client has configured OpenTelemetry, see
    `granulo_client.traces`; otherwise nothing is sent.
    """

    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        span = _tracer.start_span(details.method.lstrip("/"), kind=SpanKind.CLIENT)
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
        try:
            call = continuation(_with(details, list(carrier.items())), request)
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            span.end()
            raise
        call.add_done_callback(lambda ended: _end(span, ended))
        return call


def _end(span: trace.Span, call: Any) -> None:
    code = call.code()
    if code is not grpc.StatusCode.OK:
        span.set_status(Status(StatusCode.ERROR, code.name))
    span.end()


def _with(details: Any, more: _Metadata) -> _CallDetails:
    return _CallDetails(
        details.method,
        details.timeout,
        [*(details.metadata or ()), *more],
        details.credentials,
        getattr(details, "wait_for_ready", None),
        getattr(details, "compression", None),
    )
