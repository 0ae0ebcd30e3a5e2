# SPDX-License-Identifier: GPL-3.0-or-later
"""The local engine: crash-isolated, killable, recycled worker processes on this machine.

pebble owns the processes; every worker is a pebble pool of its own, so that what happens to one
never touches another. This module adds what pebble has not: a budget of cores over all workers, and
another attempt when a worker dies.
"""

import math
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from pebble import ProcessExpired, ProcessPool

from granulo_core.engine import worker as worker_process
from granulo_core.engine.groups import Group, Job
from granulo_core.engine.port import Load
from granulo_core.engine.queued import QueuedEngine
from granulo_core.errors import GranuloError, Reason
from granulo_core.telemetry.metrics import count_all

_log = structlog.get_logger(__name__)
_CHECK_S = 1.0
# An idle worker keeps bpy or TensorFlow in memory: it goes after so long.
_IDLE_S = 120.0
# So that tasks that ask for nothing do not start processes without end.
_MIN_SHARE = 0.1


class LocalEngine(QueuedEngine):
    """Runs tasks in worker processes of this machine.

    Parameters
    ----------
    cpus : float, optional
        Cores that tasks may occupy together; all that this process may use by default.
    tasks_per_worker : int
        A worker is replaced after so many tasks, because long-lived bpy processes leak.
    """

    def __init__(self, cpus: float | None = None, tasks_per_worker: int = 50) -> None:
        super().__init__()
        self._cpus = cpus or float(len(os.sched_getaffinity(0)))
        self._free_cpus = self._cpus
        self._tasks_per_worker = tasks_per_worker
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []
        self._doomed: list[_Worker] = []
        # Workers die with the thread that made them (PR_SET_PDEATHSIG), so one thread, which lives
        # as long as the engine, starts and stops them all.
        self._begin()

    def load(self) -> Mapping[tuple[str, str], Load]:
        """See `granulo_core.engine.port.Engine`."""
        with self._changed:
            waiting = Counter(job.kind for group in self._turns for job in group.waiting)
            running = Counter(item.job.kind for item in self._busy if item.job)
            # A series that vanishes when it comes to nothing would look like one not scraped.
            return {kind: Load(waiting[kind], running[kind]) for kind in self._kinds}

    def _stop_all(self) -> list[Group]:
        self._doomed += self._busy + self._idle
        self._busy, self._idle = [], []
        return list(self._turns)

    def _cancel(self, group: Group) -> None:
        with self._changed:
            dropped = self._turns.drop(group)
            running = [item for item in self._busy if item.job and item.job.group is group]
            self._busy = [item for item in self._busy if item not in running]
            self._doomed += running
            self._changed.notify_all()
        for job in dropped:
            job.cancelled()

    # The dispatcher's thread ----------------------------------------------------------------

    def _dispatch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or self._doomed or self._can_start(), _CHECK_S
                )
                self._look_after_workers()
                doomed, self._doomed = self._doomed, []
                closed = self._closed
                job = self._turns.take() if self._can_start() and not closed else None
                chosen = self._claim(job) if job else None
            self._discard(doomed)
            if chosen is not None and job is not None:
                self._start(chosen, job)
            if closed and not doomed:
                return

    def _can_start(self) -> bool:
        return bool(self._turns) and self._fits(self._turns.peek())

    def _claim(self, job: Job) -> "_Worker":
        """An idle worker of the job's pool, or a new one; its cores are taken from here on."""
        self._free_cpus -= self._share(job)
        threads = max(1, math.floor(self._share(job)))
        key = (job.task.resources.pool, threads)
        found = next((item for item in reversed(self._idle) if item.key == key), None)
        if found is None:
            pool = ProcessPool(
                max_workers=1,
                max_tasks=self._tasks_per_worker,
                initializer=worker_process.initialise,
                initargs=(os.getpid(), threads),
                context=multiprocessing.get_context("spawn"),
            )
            found = _Worker(key, pool)
        else:
            self._idle.remove(found)
        found.job = job
        self._busy.append(found)
        return found

    def _start(self, chosen: "_Worker", job: Job) -> None:
        job.attempts += 1
        context = replace(job.context, attempt=job.attempts)
        future: Future[Any]
        try:
            future = chosen.pool.schedule(
                worker_process.run_task,
                args=[job.task.entry_point, context, job.task.payload],
                timeout=job.task.timeout_s,
            )
        except (RuntimeError, OSError) as error:
            _log.warning("worker cannot start", task=job.task.id, error=str(error))
            future = Future()
            future.set_exception(BrokenProcessPool(str(error)))
        chosen.future = future
        future.add_done_callback(lambda ended: self._ended(chosen, job, ended))

    def _look_after_workers(self) -> None:
        """Find workers that broke, and idle ones whose time is over."""
        now_s = time.monotonic()
        gone = [
            item
            for item in self._idle
            if now_s - item.idle_since_s > _IDLE_S or not item.pool.active
        ]
        self._idle = [item for item in self._idle if item not in gone]
        self._doomed += gone
        for item in list(self._busy):
            # pebble may give a pool up without a word to a task that was on its way into it.
            if item.future is not None and not item.pool.active:
                with suppress(InvalidStateError):
                    item.future.set_exception(BrokenProcessPool("the worker is gone"))

    def _discard(self, doomed: "Sequence[_Worker]") -> None:
        """Kill workers; their jobs end as cancelled once nothing of them runs any more."""
        for item in doomed:
            item.pool.stop()  # type: ignore[no-untyped-call]
        for item in doomed:
            try:
                item.pool.join()
            except Exception:
                _log.exception("worker cannot be stopped", pool=item.key[0])
        for item in doomed:
            if item.job is not None:
                with self._changed:
                    self._free_cpus += self._share(item.job)
                item.job.cancelled()

    # Any thread -----------------------------------------------------------------------------

    def _ended(self, ended: "_Worker", job: Job, future: Future[Any]) -> None:
        receipt, error = _result(job, future)
        with self._changed:
            if ended not in self._busy:
                return  # cancelled meanwhile: the dispatcher reports it
            self._busy.remove(ended)
            self._free_cpus += self._share(job)
            ended.job = ended.future = None
            ended.idle_since_s = time.monotonic()
            (self._idle if ended.pool.active else self._doomed).append(ended)
            if receipt is None and error is None:
                self._turns.put_back(job)
            self._changed.notify_all()
        if receipt is not None or error is not None:
            job.finish(receipt, error)

    def _fits(self, job: Job) -> bool:
        return self._share(job) <= self._free_cpus + 1e-9

    def _share(self, job: Job) -> float:
        return min(max(job.task.resources.cpu, _MIN_SHARE), self._cpus)


@dataclass(eq=False)
class _Worker:
    """One worker process and its successors."""

    key: tuple[str, int]
    """Pool and number of threads: only equal tasks may follow one another in a process."""
    pool: ProcessPool
    job: Job | None = None
    future: Future[Any] | None = None
    idle_since_s: float = field(default_factory=time.monotonic)


def _result(job: Job, future: Future[Any]) -> tuple[bytes | None, GranuloError | None]:
    """Receipt or error of an ended task; neither where it deserves another attempt."""
    try:
        value = future.result()
    except FutureTimeoutError:
        message = (
            f"Task {job.task.id} ran longer than its limit of {job.task.timeout_s:g} s and was "
            "stopped."
        )
        return None, GranuloError(Reason.TASK_TIMED_OUT, message)
    except (ProcessExpired, BrokenProcessPool) as death:
        exit_code = getattr(death, "exitcode", None)
        _log.warning("worker died", task=job.task.id, exit_code=exit_code, attempt=job.attempts)
        return None, job.death(exit_code)
    except Exception as error:
        _log.exception("worker's answer not understood", task=job.task.id)
        message = f"Task {job.task.id} ended without an answer ({type(error).__name__}: {error})."
        return None, GranuloError(Reason.TASK_FAILED, message)
    count_all(value.measurements)
    return value.receipt, value.error
