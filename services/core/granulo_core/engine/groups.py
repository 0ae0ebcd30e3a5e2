# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks on their way through an engine: what all engines keep of them."""

import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from granulo_core.engine.port import Task, TaskContext, TaskOutcome
from granulo_core.errors import GranuloError, Reason


class Group:
    """Tasks that were submitted together; see `granulo_core.engine.port.TaskGroup`.

    Parameters
    ----------
    tasks : sequence of Task
    context_of : callable
        What each task knows of its surroundings.
    cancel : callable
        How its engine stops it.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        context_of: Callable[[Task], TaskContext],
        cancel: Callable[["Group"], None],
    ) -> None:
        self.waiting = deque(Job(task, context_of(task), self) for task in tasks)
        self.outcomes: queue.SimpleQueue[TaskOutcome] = queue.SimpleQueue()
        self.is_cancelled = False
        """Whether whoever submitted it wants no more of it."""
        self._cancel = cancel
        self._left = len(tasks)

    def as_completed(self, poll_s: float | None = None) -> Iterator[TaskOutcome | None]:
        """Yield outcomes as tasks end."""
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
        self.is_cancelled = True
        self._cancel(self)


@dataclass(eq=False)
class Job:
    """One task on its way."""

    task: Task
    context: TaskContext
    group: Group
    attempts: int = 0

    @property
    def kind(self) -> tuple[str, str]:
        """Service and pool."""
        return self.task.service, self.task.resources.pool

    def finish(self, receipt: bytes | None, error: GranuloError | None) -> None:
        """Report how it ended."""
        self.group.outcomes.put(TaskOutcome(self.task.id, receipt, error, self.attempts))

    def cancelled(self) -> None:
        """Report that it was cancelled."""
        message = f"Task {self.task.id} was cancelled."
        self.finish(None, GranuloError(Reason.OPERATION_CANCELLED, message))

    def death(self, exit_code: int | None) -> GranuloError | None:
        """What to report after its worker died; None where it deserves another attempt."""
        if self.attempts < self.task.max_attempts:
            return None
        shown = "unknown" if exit_code is None else str(exit_code)
        return GranuloError(
            Reason.WORKER_DIED,
            f"The worker process of task {self.task.id} died {self.attempts} times (last exit code "
            f"{shown}; -11 is a crash, -9 often a lack of memory). Start the same command again "
            "to retry what is missing.",
            metadata={"task": self.task.id, "exit_code": shown},
        )


class Turns:
    """Groups take turns, so that a small job need not wait for the end of a large one.

    Within a group tasks start in order.
    """

    def __init__(self) -> None:
        self._groups: deque[Group] = deque()

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._groups)

    def __iter__(self) -> Iterator[Group]:
        """Iterate over the groups that have something waiting."""
        return iter(self._groups)

    def add(self, group: Group) -> None:
        """Take in a group whose tasks wait; once only."""
        if group.waiting and group not in self._groups:
            self._groups.append(group)

    def drop(self, group: Group) -> list[Job]:
        """Forget what waits of a group."""
        dropped = list(group.waiting)
        group.waiting.clear()
        if group in self._groups:
            self._groups.remove(group)
        return dropped

    def peek(self) -> Job:
        """The job whose turn is next."""
        return self._groups[0].waiting[0]

    def take(self) -> Job:
        """Take the job whose turn it is."""
        group = self._groups.popleft()
        job = group.waiting.popleft()
        self.add(group)
        return job

    def put_back(self, job: Job) -> None:
        """Let a job begin anew, before others of its group."""
        job.group.waiting.appendleft(job)
        self.add(job.group)
