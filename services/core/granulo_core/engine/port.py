# SPDX-License-Identifier: GPL-3.0-or-later
"""Where work runs: tasks are an entry point, bytes and resources; never closures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from granulo_core.errors import GranuloError


@dataclass(frozen=True)
class Resources:
    """What one task occupies while it runs."""

    cpu: float = 1.0
    """Cores. A task that asks for more than the engine has gets all of them."""
    gpu: float = 0.0
    memory_mib: int = 0
    """0: not accounted."""
    pool: str = "cpu"
    """Kind of node (``render``, ``train``, ``cpu``); what follows a hyphen only keeps processes
    apart (``train-deterministic``): tasks of different pools never share a worker process."""

    @property
    def nodes(self) -> str:
        """Kind of node that takes the task."""
        return self.pool.partition("-")[0]


@dataclass(frozen=True)
class Task:
    """One unit of work that may run anywhere, any number of times, with the same result."""

    id: str
    """Unique within its operation; becomes the shard receipt's key."""
    entry_point: str
    """``package.module:function``; the function takes `TaskContext` and bytes, returns bytes."""
    payload: bytes
    resources: Resources = field(default_factory=Resources)
    timeout_s: float | None = None
    max_attempts: int = 3
    """Attempts after worker deaths; an exception that the task raises is not retried."""

    @property
    def service(self) -> str:
        """Short name of the service whose code it is, for metrics."""
        return self.entry_point.partition(":")[0].partition(".")[0].removeprefix("granulo_")


@dataclass(frozen=True)
class TaskContext:
    """What a running task knows of its surroundings; picklable."""

    store_url: str
    operation: str
    """``operations/<service>/<id>``; empty outside an operation."""
    task_id: str
    attempt: int = 1
    carried: Mapping[str, str] = field(default_factory=dict)
    """What its log lines and spans go on with (`granulo_core.telemetry.context`)."""


@dataclass(frozen=True)
class TaskOutcome:
    """How a task ended: exactly one of ``receipt`` and ``error`` is set."""

    task_id: str
    receipt: bytes | None
    error: GranuloError | None
    attempts: int


@dataclass(frozen=True)
class Load:
    """How many tasks there are at the moment."""

    waiting: int = 0
    running: int = 0


class TaskGroup(Protocol):
    """Tasks submitted together."""

    def as_completed(self, poll_s: float | None = None) -> Iterator[TaskOutcome | None]:
        """Yield outcomes as tasks end; with ``poll_s`` also ``None`` at least that often."""

    def cancel(self) -> None:
        """Stop running tasks within 2 s and drop waiting ones; their outcomes say CANCELLED."""


class Engine(Protocol):
    """Runs tasks; one conformance suite for every adapter."""

    def submit(self, tasks: Sequence[Task], store_url: str, operation: str = "") -> TaskGroup:
        """Queue tasks; returns at once.

        Each goes on with the submitter's `granulo_core.telemetry.context`.
        """

    def load(self) -> Mapping[tuple[str, str], Load]:
        """Tasks that wait and run now, by service and pool, for all that there ever were."""

    def close(self) -> None:
        """Stop all workers; running tasks are killed."""
