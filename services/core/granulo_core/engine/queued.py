# SPDX-License-Identifier: GPL-3.0-or-later
"""What every engine has that keeps tasks in a queue and starts them from one thread."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from granulo_core.engine.groups import Group, Turns
from granulo_core.engine.port import Load, Task, TaskContext
from granulo_core.errors import GranuloError, Reason
from granulo_core.telemetry import context as telemetry
from granulo_core.telemetry.live import LIVE


class QueuedEngine(ABC):
    """The queue, its lock and its thread; how a task runs is the subclass's own.

    A subclass calls :meth:`_begin` at the end of its ``__init__``. What the methods below read and
    change is guarded by ``self._changed``.
    """

    def __init__(self) -> None:
        self._turns = Turns()
        self._kinds: set[tuple[str, str]] = set()
        self._closed = False
        self._changed = threading.Condition()

    def submit(self, tasks: Sequence[Task], store_url: str, operation: str = "") -> Group:
        """Queue tasks; see `granulo_core.engine.port.Engine`."""
        carried = telemetry.carried()
        group = Group(
            tasks,
            lambda task: TaskContext(store_url, operation, task.id, carried=carried),
            self._cancel,
        )
        with self._changed:
            if self._closed:
                raise GranuloError(Reason.SERVER_BUSY, "The engine is closed; start it again.")
            self._kinds |= {job.kind for job in group.waiting}
            self._turns.add(group)
            self._changed.notify_all()
        return group

    @abstractmethod
    def load(self) -> Mapping[tuple[str, str], Load]:
        """Tasks that wait and run now; see `granulo_core.engine.port.Engine`."""

    def close(self) -> None:
        """Stop everything; running tasks are killed."""
        with self._changed:
            self._closed = True
            groups = list(self._stop_all())
            self._changed.notify_all()
        for group in groups:
            group.cancel()
        self._dispatcher.join()
        self._forget()

    def _begin(self) -> None:
        self._dispatcher = threading.Thread(
            target=self._dispatch, name="engine-dispatcher", daemon=True
        )
        self._dispatcher.start()
        self._forget = LIVE.watch_load(self.load)

    @abstractmethod
    def _dispatch(self) -> None:
        """Start tasks until the engine is closed and nothing runs; a thread of its own."""

    @abstractmethod
    def _cancel(self, group: Group) -> None:
        """Stop a group's running tasks and drop its waiting ones."""

    @abstractmethod
    def _stop_all(self) -> Iterable[Group]:
        """Groups that are left to cancel; the lock is held."""
