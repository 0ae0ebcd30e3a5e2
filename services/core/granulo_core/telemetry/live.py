# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics that are looked up when they are asked for: operations, queues, GPUs."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from granulo_core.engine.port import Load
from granulo_core.telemetry.metrics import COUNTED, REGISTRY

S = TypeVar("S")

Operations = Callable[[], Mapping[tuple[str, str], int]]
"""How many operations there are, by service and state."""
Loads = Callable[[], Mapping[tuple[str, str], Load]]
"""How many tasks wait and run, by service and pool."""


class LiveCollector(Collector):
    """Adds up what the servers, engines and queues of this process say at the moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._operations: list[Operations] = []
        self._loads: list[Loads] = []
        self._queues: list[Callable[[], int]] = []

    def watch_operations(self, source: Operations) -> Callable[[], None]:
        """Show a server's operations until the returned function is called."""
        return self._watch(self._operations, source)

    def watch_load(self, source: Loads) -> Callable[[], None]:
        """Show an engine's tasks until the returned function is called."""
        return self._watch(self._loads, source)

    def watch_queue(self, source: Callable[[], int]) -> Callable[[], None]:
        """Show a model server's queue until the returned function is called."""
        return self._watch(self._queues, source)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The metrics, empty."""
        return [
            GaugeMetricFamily(
                "granulo_operations",
                "Operations in the store, by their state.",
                labels=["service", "state"],
            ),
            GaugeMetricFamily(
                "granulo_queue_depth",
                "Tasks that wait for a worker.",
                labels=["service", "pool"],
            ),
            GaugeMetricFamily(
                "granulo_tasks_in_flight", "Tasks that a worker has in hand.", labels=["pool"]
            ),
            GaugeMetricFamily(
                "granulo_model_queue_depth",
                "Requests that wait in the embedded model server for a batch.",
            ),
        ]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The metrics of this moment; what this process has none of is left out."""
        with self._lock:
            operations, loads = list(self._operations), list(self._loads)
            queues = list(self._queues)
        states, waiting, running, depth = self.describe()
        counts: Counter[tuple[str, str]] = Counter()
        for source in operations:
            counts.update(source())
        for labels, count in sorted(counts.items()):
            states.add_metric(labels, count)
        self._collect_tasks(loads, waiting, running)
        if queues:
            depth.add_metric([], sum(queue() for queue in queues))
        return [family for family in (states, waiting, running, depth) if family.samples]

    def _collect_tasks(
        self, loads: Iterable[Loads], waiting: GaugeMetricFamily, running: GaugeMetricFamily
    ) -> None:
        depth: Counter[tuple[str, str]] = Counter()
        in_flight: Counter[str] = Counter()
        for source in loads:
            for (service, pool), load in source().items():
                depth[service, pool] += load.waiting
                in_flight[pool] += load.running
        for labels, count in sorted(depth.items()):
            waiting.add_metric(labels, count)
        for pool, count in sorted(in_flight.items()):
            running.add_metric([pool], count)

    def _watch(self, sources: list[S], source: S) -> Callable[[], None]:
        def forget() -> None:
            with self._lock:
                if source in sources:
                    sources.remove(source)

        with self._lock:
            sources.append(source)
        return forget


class GpuCollector(Collector):
    """How busy the GPUs of this machine are, by NVIDIA's library; nothing where there is none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usable: bool | None = None

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The metric, empty."""
        return [
            GaugeMetricFamily(
                "granulo_gpu_utilisation",
                "Share of the last moments in which a GPU computed, 0 to 1.",
                labels=["gpu"],
            )
        ]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """One sample for each GPU that says how busy it is."""
        import pynvml  # type: ignore[import-untyped]

        (family,) = self.describe()
        with self._lock:
            if self._usable is None:
                self._usable = _starts(pynvml)
            if not self._usable:
                return []
        for index in range(_count(pynvml)):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
            except pynvml.NVMLError:  # a slice of a GPU has no such figure
                continue
            family.add_metric([str(index)], rates.gpu / 100)
        return [family] if family.samples else []


def _starts(library: Any) -> bool:
    """Whether there is a driver; a machine does not get one while it runs."""
    try:
        library.nvmlInit()
    except library.NVMLError:
        return False
    return True


def _count(library: Any) -> int:
    try:
        return int(library.nvmlDeviceGetCount())
    except library.NVMLError:
        return 0


LIVE = LiveCollector()
_GPUS = GpuCollector()
REGISTRY.register(LIVE)
REGISTRY.register(_GPUS)


def described() -> dict[str, str]:
    """Meaning of every metric of Granulo by its full name; for documents and their tests."""
    own = {name: next(iter(metric.describe())).documentation for name, metric in COUNTED.items()}
    looked_up = [family for each in (LIVE, _GPUS) for family in each.describe()]
    return own | {family.name: family.documentation for family in looked_up}
