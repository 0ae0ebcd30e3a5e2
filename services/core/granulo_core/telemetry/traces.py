# SPDX-License-Identifier: GPL-3.0-or-later
"""Traces by OpenTelemetry: W3C ``traceparent`` from the client down to a worker's stages.

Everything here uses OpenTelemetry's interface only. Without `configure_traces` no span is kept, and
the traceparent of a caller is still handed on.
"""

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

# Worker processes know no settings; they take it from the environment that they inherit.
_ENDPOINT_VARIABLE = "GRANULO_OTLP_ENDPOINT"
# A worker may be stopped as soon as its task is done: its spans leave soon.
_WORKER_DELAY_MS = 500
_SERVICE_DELAY_MS = 2000

_PROPAGATOR = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("granulo")


def configure_traces(endpoint: str, service: str) -> None:
    """Send the spans of this process and of its later worker processes to a collector.

    Parameters
    ----------
    endpoint : str
        ``http://HOST:PORT`` or ``https://HOST:PORT`` of an OTLP collector (gRPC); nothing is done
        where empty.
    service : str
        Name of this process in traces.

    Notes
    -----
    ``OTEL_TRACES_SAMPLER`` and OpenTelemetry's other variables hold.
    """
    if endpoint:
        os.environ[_ENDPOINT_VARIABLE] = endpoint
        _export(endpoint, service, _SERVICE_DELAY_MS)


def configure_worker_traces(service: str = "granulo-worker") -> None:
    """Send spans where `configure_traces` sent those of the parent.

    Parameters
    ----------
    service : str
        Name of this process in traces.
    """
    if endpoint := os.environ.get(_ENDPOINT_VARIABLE):
        _export(endpoint, service, _WORKER_DELAY_MS)


def _export(endpoint: str, service: str, delay_ms: int) -> None:
    # Only who sends traces pays for importing what sends them.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint), schedule_delay_millis=delay_ms)
    )
    trace.set_tracer_provider(provider)


def flush() -> None:
    """Send the spans that wait; at the end of a process."""
    shutdown = getattr(trace.get_tracer_provider(), "shutdown", None)
    if shutdown is not None:
        shutdown()


@contextmanager
def span(
    name: str, kind: SpanKind = SpanKind.INTERNAL, attributes: Mapping[str, str] | None = None
) -> Iterator[Span]:
    """A span around the block, below the present one; what the block raises is noted on it."""
    with _tracer.start_as_current_span(name, kind=kind, attributes=dict(attributes or {})) as made:
        yield made


@contextmanager
def below(carrier: Mapping[str, str]) -> Iterator[None]:
    """Take up the trace of ``traceparent`` in a carrier; nothing where there is none."""
    token = attach(_PROPAGATOR.extract(carrier))
    try:
        yield
    finally:
        detach(token)


def begin(name: str, kind: SpanKind) -> Span:
    """Start a span that somebody else ends, below the present one."""
    return _tracer.start_span(name, kind=kind)


def inject(carrier: MutableMapping[str, str], of: Span | None = None) -> None:
    """Write ``traceparent`` of a span, by default of the present one, where it is in a trace."""
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(of) if of is not None else None)


def trace_id() -> str:
    """32 hex digits of the present trace; empty outside of any."""
    found = trace.get_current_span().get_span_context()
    return format(found.trace_id, "032x") if found.is_valid else ""


def failed(on: Span, description: str) -> None:
    """Mark a span as failed."""
    on.set_status(Status(StatusCode.ERROR, description))
