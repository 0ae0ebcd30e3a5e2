# SPDX-License-Identifier: Apache-2.0
"""Traces of the command, sent where ``GRANULO_OTLP_ENDPOINT`` says; off without it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace

from granulo_client.errors import UsageError

ENDPOINT_VARIABLE = "GRANULO_OTLP_ENDPOINT"
_tracer = trace.get_tracer("granulo")


@contextmanager
def traced(command: str) -> Iterator[None]:
    """One trace for everything that is called inside the block.

    Parameters
    ----------
    command : str
        Name of the whole, e.g. ``granulo run``.

    Raises
    ------
    UsageError
        Traces are wanted, and the extra ``granulo-client[traces]`` is not installed.
    """
    endpoint = os.environ.get(ENDPOINT_VARIABLE)
    if not endpoint:
        yield
        return
    provider = _provider(endpoint)
    try:
        with _tracer.start_as_current_span(command):
            yield
    finally:
        provider.shutdown()


def _provider(endpoint: str):  # type: ignore[no-untyped-def] # its type is the extra's
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise UsageError(
            f"{ENDPOINT_VARIABLE} is set, and what sends traces is not installed; install "
            "granulo-client[traces], or unset it."
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "granulo"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)
    return provider
