# SPDX-License-Identifier: GPL-3.0-or-later
"""The dispatcher with 10,000 queued operations and 1,000 workers, which are simulated.

Everything but the workers is real: the runner of operations with its threads, the turns between
groups, receipts and records in a store, whose every request takes some milliseconds more, as S3's
do. Workers only wait: a task takes a log-normal time and writes nothing. Time is real time; the run
is a window out of the whole, after which the server is "killed" and starts anew on its store.

    python benchmarks/part_dispatcher.py [--operations N] [--workers N] [--tasks N] [--seconds S]
"""

import argparse
import heapq
import os
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue
from stopwatch import emit

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo_core.engine.groups import Group, Job, Turns
from granulo_core.engine.port import Load, Task, TaskContext
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.runner import OperationContext, OperationRunner, Workflow
from granulo_core.settings import CoreSettings
from granulo_core.store import LocalStore
from granulo_core.store.port import ListedObject, StoredObject

RECEIPT = Receipt().to_bytes()
SPREAD = 0.4
"""Of the logarithm of a task's time."""


class _RemoteStore(LocalStore):
    """A folder whose requests take as long as those of an S3 service, and are counted."""

    def __init__(self, folder: Path, latency_s: float) -> None:
        super().__init__(folder)
        self._latency_s = latency_s
        self.requests: Counter[str] = Counter()

    def _ask(self, what: str) -> None:
        self.requests[what] += 1
        time.sleep(self._latency_s)

    def put(self, key: str, data: bytes, media_type: str = "") -> StoredObject:
        self._ask("put")
        return super().put(key, data, media_type)

    def get(self, key: str, expected_digest: str | None = None) -> bytes:
        self._ask("get")
        return super().get(key, expected_digest)

    def stat(self, key: str) -> StoredObject:
        self._ask("stat")
        return super().stat(key)

    def exists(self, key: str) -> bool:
        self._ask("stat")
        return super().exists(key)

    def delete(self, key: str) -> None:
        self._ask("delete")
        super().delete(key)

    def list(self, prefix: str) -> Iterator[str]:
        for number, key in enumerate(super().list(prefix)):
            if number % 1000 == 999:
                self._ask("list")
            yield key
        self._ask("list")

    def children(self, prefix: str) -> Iterator[str]:
        for number, name in enumerate(super().children(prefix)):
            if number % 1000 == 999:
                self._ask("list")
            yield name
        self._ask("list")

    def scan(self, prefix: str) -> Iterator[ListedObject]:
        self._ask("list")
        return super().scan(prefix)


class _SimulatedEngine:
    """So many workers that wait for as long as a task would take them."""

    def __init__(self, workers: int, task_s: float) -> None:
        self._free = workers
        self._task_s = task_s
        self._random = random.Random(1)
        self._turns = Turns()
        self._ends: list[tuple[float, int, Job]] = []
        self._changed = threading.Condition()
        self._closed = False
        self.busy_s = 0.0
        self.done = 0
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, tasks: Sequence[Task], store_url: str, operation: str = "") -> Group:
        group = Group(tasks, lambda task: TaskContext(store_url, operation, task.id), self._cancel)
        with self._changed:
            self._turns.add(group)
            self._changed.notify()
        return group

    def load(self) -> Mapping[tuple[str, str], Load]:
        return {}

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _cancel(self, group: Group) -> None:
        with self._changed:
            dropped = self._turns.drop(group)
        for job in dropped:
            job.cancelled()

    def _work(self) -> None:
        while True:
            with self._changed:
                now_s = time.monotonic()
                while self._ends and self._ends[0][0] <= now_s:
                    _, _, job = heapq.heappop(self._ends)
                    self._free += 1
                    self.done += 1
                    job.attempts = 1
                    job.finish(RECEIPT, None)
                while self._free and self._turns:
                    job = self._turns.take()
                    seconds = self._task_s * self._random.lognormvariate(0, SPREAD)
                    self.busy_s += seconds
                    self._free -= 1
                    heapq.heappush(self._ends, (now_s + seconds, id(job), job))
                if self._closed:
                    return
                wait_s = self._ends[0][0] - now_s if self._ends else None
                self._changed.wait(wait_s)


def workflow(tasks: int) -> Workflow:
    def run(context: OperationContext) -> Empty:
        context.run_tasks(
            [Task(f"t-{number:06d}", "simulated:task", b"") for number in range(tasks)], unit="task"
        )
        return Empty()

    return Workflow("Simulate", StringValue, pb.CreateAnalysisMetadata, run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=10, help="of one operation")
    parser.add_argument("--task-s", type=float, default=10.0, help="median time of a task")
    parser.add_argument("--latency-ms", type=float, default=10.0, help="of a request to the store")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the window")
    parser.add_argument("--at-once", type=int, default=0, help="operations; 0: as with Ray")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        measure(options, _RemoteStore(Path(folder), options.latency_ms / 1000))


def measure(options: Any, store: _RemoteStore) -> None:
    engine = _SimulatedEngine(options.workers, options.task_s)
    jobs = workflow(options.tasks)
    runner = OperationRunner("simulated", store, engine, [jobs], **_at_once(options))
    accepted = []
    for number in range(options.operations):
        started_s = time.monotonic()
        runner.start("Simulate", StringValue(value=str(number)), target=f"datasets/{number}")
        accepted.append(time.monotonic() - started_s)
    tenth = max(1, len(accepted) // 10)
    requests, busy_s, done = store.requests.copy(), engine.busy_s, engine.done
    cpu_s, began = time.process_time(), time.monotonic()
    time.sleep(options.seconds)
    cpu_s, window_s = time.process_time() - cpu_s, time.monotonic() - began
    tasks, busy_s = engine.done - done, engine.busy_s - busy_s
    asked = store.requests - requests
    runner.interrupt()
    engine.close()
    emit(
        f"dispatcher: {options.operations} operations of {options.tasks} tasks of "
        f"{options.task_s:g} s, {options.workers} workers, {options.latency_ms:g} ms a request",
        "seconds",
        {
            "accept an operation, first tenth": statistics.median(accepted[:tenth]),
            "accept an operation, last tenth": statistics.median(accepted[-tenth:]),
            "start anew with all of them": _restart(options, store, jobs),
        },
        f"{tasks / window_s:.1f} tasks/s of {options.workers / options.task_s:.0f} that would keep "
        f"all workers busy: {busy_s / window_s / options.workers:.0%} used; "
        f"{cpu_s / window_s:.0%} of a core, "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB; "
        f"{sum(asked.values()) / max(tasks, 1):.1f} requests a task "
        f"({', '.join(f'{name} {count / max(tasks, 1):.1f}' for name, count in asked.items())})",
    )
    # The threads of the killed server's operations are of no interest any more.
    sys.stdout.flush()
    os._exit(0)


def _restart(options: Any, store: _RemoteStore, jobs: Workflow) -> float:
    """Seconds until a new server has all records, and its engine a first task."""
    engine = _SimulatedEngine(options.workers, options.task_s)
    started_s = time.monotonic()
    runner = OperationRunner("simulated", store, engine, [jobs], **_at_once(options))
    runner.resume_all()
    while not engine.busy_s:
        time.sleep(0.01)
    seconds = time.monotonic() - started_s
    runner.interrupt()
    engine.close()
    return seconds


def _at_once(options: Any) -> dict[str, int]:
    return {"max_running": options.at_once or CoreSettings(engine="ray").max_running}


if __name__ == "__main__":
    main()
