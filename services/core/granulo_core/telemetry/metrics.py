# SPDX-License-Identifier: GPL-3.0-or-later
"""The metrics that programs count themselves; `granulo_core.telemetry.live` has the others.

Worker processes come and go and have no port to be scraped at. What a task counts is gathered and
travels back with its result, and the process that asked for it counts it (decision 0024).
"""

import threading
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
)

REGISTRY = CollectorRegistry()
"""What `granulo_core.telemetry.exposition` answers with."""

_SHORT_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_LONG_S = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)

RPC_REQUESTS = Counter(
    "granulo_rpc_requests_total",
    "Calls that have ended, by the code that the caller got.",
    ["service", "method", "code"],
    registry=REGISTRY,
)
RPC_SECONDS = Histogram(
    "granulo_rpc_seconds",
    "Time from a call's arrival to its end; of a stream its whole life.",
    ["method"],
    buckets=_LONG_S,
    registry=REGISTRY,
)
RPC_IN_FLIGHT = Gauge(
    "granulo_rpc_in_flight", "Calls that are being answered, streams included.", registry=REGISTRY
)
STAGE_SECONDS = Histogram(
    "granulo_stage_seconds",
    "Time that one unit of work spends in a stage, without the stages inside it.",
    ["stage"],
    buckets=_LONG_S,
    registry=REGISTRY,
)
SCENES = Counter("granulo_scenes_total", "Scenes that were rendered and stored.", registry=REGISTRY)
IMAGES = Counter(
    "granulo_images_total", "Images that a service finished.", ["service"], registry=REGISTRY
)
STORE_SECONDS = Histogram(
    "granulo_store_seconds",
    "Time of an operation of the object store, failed ones included.",
    ["op"],
    buckets=_SHORT_S,
    registry=REGISTRY,
)
STORE_ERRORS = Counter(
    "granulo_store_errors_total",
    "Operations that the object store failed; a missing object is an answer and none of them.",
    ["op", "code"],
    registry=REGISTRY,
)
# A series that begins with its first error shows no increase to alert on.
STORE_ERRORS.labels(op="get", code="DATA_LOSS")
MODEL_BATCH_SIZE = Histogram(
    "granulo_model_batch_size",
    "Requests that the embedded model server computed together.",
    buckets=(1, 2, 4, 8, 16, 32, 64),
    registry=REGISTRY,
)
MODEL_REFUSED = Counter(
    "granulo_model_refused_total",
    "Requests that the embedded model server refused because its queue was full.",
    registry=REGISTRY,
)
ProcessCollector(registry=REGISTRY)

COUNTED: Mapping[str, Counter | Gauge | Histogram] = {
    "granulo_rpc_requests_total": RPC_REQUESTS,
    "granulo_rpc_seconds": RPC_SECONDS,
    "granulo_rpc_in_flight": RPC_IN_FLIGHT,
    "granulo_stage_seconds": STAGE_SECONDS,
    "granulo_scenes_total": SCENES,
    "granulo_images_total": IMAGES,
    "granulo_store_seconds": STORE_SECONDS,
    "granulo_store_errors_total": STORE_ERRORS,
    "granulo_model_batch_size": MODEL_BATCH_SIZE,
    "granulo_model_refused_total": MODEL_REFUSED,
}
"""By full name."""

_Entry = tuple[str, tuple[tuple[str, str], ...], float]
Measurements = tuple[tuple[_Entry, int], ...]
"""What a task counted: metric, labels and value, and how often."""


class _Gathering:
    """Takes what this process counts instead of its registry, while a task runs."""

    def __init__(self) -> None:
        # Entered again where the collector of cycles ends an iterator that counts.
        self.lock = threading.RLock()
        self.tally: Tally[_Entry] | None = None


_gathering = _Gathering()


def record(name: str, value: float = 1.0, **labels: str) -> None:
    """Count something, in whichever process this is.

    Parameters
    ----------
    name : str
        Of a counter or histogram of `COUNTED`.
    value : float
        What the counter grows by, or what the histogram takes in.
    **labels : str
    """
    with _gathering.lock:
        if _gathering.tally is not None:
            # Rounded, so that the steps of a long training are a few hundred different values.
            entry = (name, tuple(sorted(labels.items())), float(f"{value:.2e}"))
            _gathering.tally[entry] += 1
            return
    _count(name, labels, value)


@contextmanager
def gathering() -> Iterator[Tally[_Entry]]:
    """Gather what this process records inside the block; for workers, one task at a time."""
    with _gathering.lock:
        tally = _gathering.tally = Tally()
    try:
        yield tally
    finally:
        with _gathering.lock:
            _gathering.tally = None


def count_all(measurements: Measurements) -> None:
    """Count what was gathered in another process, or gather it for yet another one."""
    with _gathering.lock:
        if _gathering.tally is not None:
            _gathering.tally.update(dict(measurements))
            return
    for (name, labels, value), times in measurements:
        for _ in range(times):
            _count(name, dict(labels), value)


def _count(name: str, labels: Mapping[str, str], value: float) -> None:
    metric = COUNTED[name]
    child = metric.labels(**labels) if labels else metric
    if isinstance(child, Histogram):
        child.observe(value)
    else:
        child.inc(value)
