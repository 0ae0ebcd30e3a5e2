# SPDX-License-Identifier: GPL-3.0-or-later
"""What every call of a service brings along: its token, and the request that it is made for."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc
from opentelemetry.trace import SpanKind
from structlog.contextvars import get_contextvars

from granulo_core.security.authentication import AUTHORIZATION
from granulo_core.telemetry import traces

REQUEST_ID = "x-request-id"

_Metadata = Sequence[tuple[str, str | bytes]]


class _CallDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: _Metadata | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: Any


class _Outgoing(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Does the same to calls of every kind."""

    @abstractmethod
    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any: ...

    def _any_kind(self, continuation: Any, details: Any, request: Any) -> Any:
        return self._intercept(continuation, details, request)

    intercept_unary_unary = _any_kind  # type: ignore[assignment]
    intercept_unary_stream = _any_kind  # type: ignore[assignment]
    intercept_stream_unary = _any_kind  # type: ignore[assignment]
    intercept_stream_stream = _any_kind  # type: ignore[assignment]


class SendsToken(_Outgoing):
    """Adds the token to calls that bring none; not call credentials, which loopback cannot have.

    Parameters
    ----------
    token : callable
        Gives the token to send now.
    """

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = list(details.metadata or ())
        if all(key != AUTHORIZATION for key, _ in metadata):
            metadata.append((AUTHORIZATION, f"Bearer {self._token()}"))
        return continuation(_with(details, metadata), request)


class HandsContextOn(_Outgoing):
    """Adds request id and trace of the work that a call is made for, and a span around it."""

    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = list(details.metadata or ())
        if request_id := get_contextvars().get("request_id"):
            metadata.append((REQUEST_ID, str(request_id)))
        span = traces.begin(details.method.lstrip("/"), SpanKind.CLIENT)
        carrier: dict[str, str] = {}
        traces.inject(carrier, span)
        try:
            call = continuation(_with(details, [*metadata, *carrier.items()]), request)
        except Exception as error:
            traces.failed(span, type(error).__name__)
            span.end()
            raise
        call.add_done_callback(lambda ended: _end(span, ended))
        return call


def _end(span: Any, call: Any) -> None:
    code = call.code()
    if code is not grpc.StatusCode.OK:
        traces.failed(span, code.name)
    span.end()


def _with(details: Any, metadata: _Metadata) -> _CallDetails:
    return _CallDetails(
        details.method,
        details.timeout,
        metadata,
        details.credentials,
        getattr(details, "wait_for_ready", None),
        getattr(details, "compression", None),
    )
