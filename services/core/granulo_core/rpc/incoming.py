# SPDX-License-Identifier: GPL-3.0-or-later
"""What is observed of every call that a server answers: a span, and how many, how long, with what.

Calls that gRPC itself refuses never come here: more than a server takes at once, unknown methods,
and what TLS turns away.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.trace import SpanKind

from granulo_core.telemetry import traces
from granulo_core.telemetry.metrics import RPC_IN_FLIGHT, RPC_REQUESTS, RPC_SECONDS

_SILENT = "/grpc.health.v1.Health/"
"""A probe every few seconds would be all that is seen of a quiet server's traces."""


@contextmanager
def observed(
    method: str, metadata: Mapping[str, str | bytes], context: grpc.ServicerContext
) -> Iterator[None]:
    """Count a call and show it in the trace of its caller.

    Parameters
    ----------
    method : str
        Full name.
    metadata : mapping of str to str or bytes
    context : grpc.ServicerContext
        Knows the code in the end.
    """
    started_s = time.monotonic()
    carrier = {key: value for key, value in metadata.items() if isinstance(value, str)}
    _, service, name = method.split("/")
    RPC_IN_FLIGHT.inc()
    is_raised = True
    try:
        if method.startswith(_SILENT):
            yield
        else:
            with traces.below(carrier), traces.span(method.lstrip("/"), SpanKind.SERVER):
                yield
        is_raised = False
    finally:
        RPC_IN_FLIGHT.dec()
        code = _code(context, is_raised=is_raised)
        RPC_REQUESTS.labels(service, name, code).inc()
        RPC_SECONDS.labels(name).observe(time.monotonic() - started_s)


def _code(context: grpc.ServicerContext, *, is_raised: bool) -> str:
    """Name of the code that the caller gets, as far as this side knows."""
    # None until somebody sets it; missing in the stubs.
    code: grpc.StatusCode | int | None = context.code()  # type: ignore[attr-defined]
    if isinstance(code, grpc.StatusCode):
        return code.name
    if not context.is_active():
        return grpc.StatusCode.CANCELLED.name
    return (grpc.StatusCode.UNKNOWN if is_raised else grpc.StatusCode.OK).name


class ObservingInterceptor(grpc.ServerInterceptor):
    """For servers without `EdgeInterceptor`: the model server, which has its protocol's errors."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of a unary call."""
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        method = handler_call_details.method
        metadata = dict(handler_call_details.invocation_metadata or ())

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            with observed(method, metadata, context):
                return handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
