# SPDX-License-Identifier: GPL-3.0-or-later
"""The local engine: crash-isolated, killable, recycled worker processes on this machine.

pebble owns the processes. This module adds what it has not: a budget of cores over several pools,
and a new attempt when a worker dies.
"""

import math
import multiprocessing
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any

import structlog
from pebble import ProcessExpired, ProcessPool

from granulo_core.engine import worker
from granulo_core.engine.port import Task, TaskContext, TaskOutcome
from granulo_core.errors import GranuloError, Reason

_log = structlog.get_logger(__name__)


class LocalEngine:
    """Runs tasks in worker processes of this machine.

    Parameters
    ----------
    cpus : float, optional
        Cores that tasks may occupy together; all that this process may use by default.
    tasks_per_worker : int
        A worker is replaced after so many tasks, because long-lived bpy processes leak.
    """

    def __init__(self, cpus: float | None = None, tasks_per_worker: int = 50) -> None:
        self._cpus = cpus or float(len(os.sched_getaffinity(0)))
        self._free_cpus = self._cpus
        self._tasks_per_worker = tasks_per_worker
        self._pools: dict[tuple[str, int], ProcessPool] = {}
        self._discarded: list[threading.Thread] = []
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        # Workers die with the thread that made them (PR_SET_PDEATHSIG), so one thread, which lives
        # as long as the engine, hands out all tasks.
        self._dispatcher = threading.Thread(
            target=self._dispatch, name="engine-dispatcher", daemon=True
        )
        self._dispatcher.start()

    def submit(self, tasks: Sequence[Task], store_url: str, operation: str = "") -> "LocalGroup":
        """Queue tasks; see `granulo_core.engine.port.Engine`."""
        group = LocalGroup(self, len(tasks))
        with self._changed:
            if self._closed:
                raise GranuloError(Reason.SERVER_BUSY, "The engine is closed; start it again.")
            for task in tasks:
                context = TaskContext(store_url, operation, task.id)
                job = _Job(task, context, group)
                group.jobs.append(job)
                self._waiting.append(job)
            self._changed.notify_all()
        return group

    def close(self) -> None:
        """Stop all workers; running tasks are killed."""
        with self._changed:
            self._closed = True
            waiting = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for job in waiting:
            job.finish(None, _cancelled(job))
        self._dispatcher.join()
        for pool in self._pools.values():
            pool.stop()  # type: ignore[no-untyped-call]
        for pool in self._pools.values():
            pool.join()
        for thread in self._discarded:
            thread.join()

    def _cancel(self, jobs: "Sequence[_Job]") -> None:
        with self._changed:
            for job in jobs:
                job.cancelled = True
            dropped = [job for job in self._waiting if job.cancelled]
            if dropped:
                self._waiting = deque(job for job in self._waiting if not job.cancelled)
            running = [job.future for job in jobs if job.future is not None]
            self._changed.notify_all()
        for job in dropped:
            job.finish(None, _cancelled(job))
        for future in running:
            # pebble kills the worker of a running future and starts another.
            future.cancel()

    def _dispatch(self) -> None:
        while True:
            with self._changed:
                # First come, first served, so that a task that needs many cores gets its turn.
                while not self._closed and not (self._waiting and self._fits(self._waiting[0])):
                    self._changed.wait()
                if self._closed:
                    return
                job = self._waiting.popleft()
                self._free_cpus -= self._share(job)
                self._start(job)

    def _fits(self, job: "_Job") -> bool:
        return self._share(job) <= self._free_cpus + 1e-9

    def _share(self, job: "_Job") -> float:
        return min(job.task.resources.cpu, self._cpus)

    def _start(self, job: "_Job") -> None:
        job.attempts += 1
        context = replace(job.context, attempt=job.attempts)
        job.future = self._pool(job).schedule(
            worker.run_task,
            args=[job.task.entry_point, context, job.task.payload],
            timeout=job.task.timeout_s,
        )
        job.future.add_done_callback(lambda future: self._ended(job, future))

    def _pool(self, job: "_Job") -> ProcessPool:
        threads = max(1, math.floor(self._share(job)))
        key = (job.task.resources.pool, threads)
        if key in self._pools and not self._pools[key].active:
            # pebble gives a whole pool up when a worker is killed that had nothing to do.
            broken = self._pools.pop(key)
            _log.warning("pool replaced", pool=job.task.resources.pool)
            thread = threading.Thread(target=broken.join, name="engine-discard", daemon=True)
            thread.start()
            self._discarded.append(thread)
        if key not in self._pools:
            self._pools[key] = ProcessPool(
                max_workers=max(1, int(self._cpus // threads)),
                max_tasks=self._tasks_per_worker,
                initializer=worker.initialise,
                initargs=(os.getpid(), threads),
                context=multiprocessing.get_context("spawn"),
            )
        return self._pools[key]

    def _ended(self, job: "_Job", future: Future[Any]) -> None:
        receipt, error, again = _result(job, future)
        with self._changed:
            self._free_cpus += self._share(job)
            job.future = None
            if again and not (self._closed or job.cancelled):
                self._waiting.appendleft(job)
                receipt = error = None
            elif again:
                error = _cancelled(job)
            self._changed.notify_all()
        if receipt is not None or error is not None:
            job.finish(receipt, error)


class LocalGroup:
    """Tasks that were submitted to a `LocalEngine` together."""

    def __init__(self, engine: LocalEngine, count: int) -> None:
        self.jobs: list[_Job] = []
        self.outcomes: queue.SimpleQueue[TaskOutcome] = queue.SimpleQueue()
        self._engine = engine
        self._left = count

    def as_completed(self, poll_s: float | None = None) -> Iterator[TaskOutcome | None]:
        """Yield outcomes as tasks end; see `granulo_core.engine.port.TaskGroup`."""
        polled_s = time.monotonic()
        while self._left:
            if poll_s is not None and time.monotonic() - polled_s >= poll_s:
                polled_s = time.monotonic()
                yield None
            try:
                outcome = self.outcomes.get(timeout=poll_s)
            except queue.Empty:
                continue
            self._left -= 1
            yield outcome

    def cancel(self) -> None:
        """Stop running tasks and drop waiting ones."""
        self._engine._cancel(self.jobs)  # noqa: SLF001


@dataclass(eq=False)
class _Job:
    """One task on its way."""

    task: Task
    context: TaskContext
    group: LocalGroup
    attempts: int = 0
    cancelled: bool = False
    future: Future[Any] | None = None

    def finish(self, receipt: bytes | None, error: GranuloError | None) -> None:
        self.group.outcomes.put(TaskOutcome(self.task.id, receipt, error, self.attempts))


def _result(job: _Job, future: Future[Any]) -> tuple[bytes | None, GranuloError | None, bool]:
    """Receipt or error of an ended future, and whether the task deserves another attempt."""
    try:
        value = future.result()
    except CancelledError:
        return None, _cancelled(job), False
    except FutureTimeoutError:
        message = (
            f"Task {job.task.id} ran longer than its limit of {job.task.timeout_s:g} s and was "
            "stopped."
        )
        return None, GranuloError(Reason.TASK_TIMED_OUT, message), False
    except ProcessExpired as death:
        _log.warning(
            "worker died", task=job.task.id, exit_code=death.exitcode, attempt=job.attempts
        )
        if job.attempts < job.task.max_attempts:
            return None, None, True
        return None, _died(job, death.exitcode), False
    except BrokenProcessPool:
        _log.warning("pool of workers broke", task=job.task.id, attempt=job.attempts)
        if job.attempts < job.task.max_attempts:
            return None, None, True
        return None, _died(job, None), False
    except Exception as error:
        _log.exception("worker's answer not understood", task=job.task.id)
        message = f"Task {job.task.id} ended without an answer ({type(error).__name__}: {error})."
        return None, GranuloError(Reason.TASK_FAILED, message), False
    if isinstance(value, GranuloError):
        return None, value, False
    return value, None, False


def _died(job: _Job, exit_code: int | None) -> GranuloError:
    shown = "unknown" if exit_code is None else str(exit_code)
    return GranuloError(
        Reason.WORKER_DIED,
        f"The worker process of task {job.task.id} died {job.attempts} times (last exit code "
        f"{shown}; -11 is a crash, -9 often a lack of memory). Start the same command again "
        "to retry what is missing.",
        metadata={"task": job.task.id, "exit_code": shown},
    )


def _cancelled(job: _Job) -> GranuloError:
    return GranuloError(Reason.OPERATION_CANCELLED, f"Task {job.task.id} was cancelled.")
