# SPDX-License-Identifier: GPL-3.0-or-later
"""What a workflow is, and what it is handed while it runs."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from google.protobuf.message import Message

from granulo_core.engine.port import Engine, Task, TaskOutcome
from granulo_core.errors import Code, GranuloError, Reason
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.reporting import progress_key, read_progress
from granulo_core.rpc.status import to_status
from granulo_core.store.port import ObjectStore

_log = structlog.get_logger(__name__)
_POLL_S = 0.25
# Whatever is wrong is wrong with the surroundings, and passes: no task is to blame for good.
_NEVER_PARTIAL = frozenset(
    {Code.CANCELLED, Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.PERMISSION_DENIED}
)


class InterruptedOperationError(Exception):
    """The server stops; the operation stays as it is and is resumed by the next one."""


class OperationHandle(Protocol):
    """The runner's side of a running operation."""

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for its end."""

    @property
    def interrupted(self) -> bool:
        """Whether the server stops."""

    @property
    def poll_s(self) -> float:
        """How often to look for what running tasks say."""

    def update(self, *, persist: bool, **changes: Any) -> None:
        """Change fields of the record."""


@dataclass(frozen=True)
class Workflow:
    """How one kind of operation is done."""

    kind: str
    """Name of the RPC that starts it, e.g. ``CreateDataset``."""
    request_type: type[Message]
    metadata_type: type[Message]
    run: Callable[["OperationContext"], Message]
    """Does the work and returns the response; must bear being run again from any point."""


class OperationContext:
    """What a workflow knows and may do; used in the runner's thread only."""

    def __init__(
        self,
        *,
        name: str,
        target: str,
        request: Message,
        store: ObjectStore,
        engine: Engine,
        handle: OperationHandle,
        predecessors: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.target = target
        self.request = request
        self.store = store
        self._engine = engine
        self._handle = handle
        self._receipt_owners = (name, *predecessors)
        self._failures: list[bytes] = []
        self._polled_s = 0.0

    def check_cancelled(self) -> None:
        """Raise OPERATION_CANCELLED when somebody asked for the end of the operation."""
        if self._handle.interrupted:
            raise InterruptedOperationError(self.name)
        if self._handle.cancelled:
            raise GranuloError(Reason.OPERATION_CANCELLED, f"{self.name} was cancelled.")

    def progress(
        self,
        *,
        units_done: int | None = None,
        units_total: int | None = None,
        unit: str | None = None,
        message: str | None = None,
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Report progress; what is left out stays as it was."""
        changes: dict[str, Any] = {
            "units_done": units_done,
            "units_total": units_total,
            "unit": unit,
            "message": message,
            "figures": dict(figures) if figures is not None else None,
        }
        given = {name: value for name, value in changes.items() if value is not None}
        self._handle.update(persist=False, **given)

    def update_metadata(self, metadata: Message) -> None:
        """Set the service's metadata; its ``progress`` is filled by the runner."""
        self._handle.update(persist=True, metadata=metadata.SerializeToString())

    def run_tasks(
        self,
        tasks: Sequence[Task],
        *,
        unit: str,
        units_of: Callable[[Task], int] = lambda _: 1,
        allow_failures: bool = False,
    ) -> dict[str, bytes]:
        """Run tasks on the engine, except those whose stored receipt verifies.

        Parameters
        ----------
        tasks : sequence of Task
        unit : str
            What is being counted, e.g. ``scene``.
        units_of : callable
            Units of one task.
        allow_failures : bool
            Collect failed tasks as partial failures instead of ending at the first, except where
            the store, the model server or the machine failed: the same command later succeeds.

        Returns
        -------
        dict of str to bytes
            Receipts by task id; failed tasks have none.

        Raises
        ------
        GranuloError
            The first task's error, or OPERATION_CANCELLED.
        """
        units = {task.id: units_of(task) for task in tasks}
        counter = _Counter(units)
        receipts: dict[str, bytes] = {}
        owners = self._owners_of_receipts()
        for task in tasks:
            self.check_cancelled()
            if (known := self._known_receipt(task.id, owners)) is not None:
                receipts[task.id] = known
                counter.finish(task.id)
        self.progress(units_done=counter.done, units_total=counter.total, unit=unit)
        pending = [task for task in tasks if task.id not in receipts]
        if not pending:
            return receipts
        with self._submitted(pending) as outcomes:
            for outcome in outcomes:
                if outcome is not None and outcome.receipt is not None:
                    # Before anything can end the operation: this work is not done again.
                    key = _receipt_key(self.name, outcome.task_id)
                    self.store.put(key, outcome.receipt, "application/json")
                    receipts[outcome.task_id] = outcome.receipt
                self.check_cancelled()
                if outcome is None:
                    self._poll(counter)
                    continue
                if outcome.error is not None:
                    self._fail(outcome.error, allow_failures)
                if counter.finish(outcome.task_id):
                    self.store.delete(progress_key(self.name, outcome.task_id))
                self.progress(units_done=counter.done)
        return receipts

    @contextmanager
    def _submitted(self, tasks: Sequence[Task]) -> Iterator[Iterator[TaskOutcome | None]]:
        group = self._engine.submit(tasks, self.store.url, self.name)
        try:
            yield group.as_completed(_POLL_S)
        finally:
            # Also after success: cancelling what has ended does nothing.
            group.cancel()

    def _fail(self, error: GranuloError, allow_failures: bool) -> None:
        if not allow_failures or error.code in _NEVER_PARTIAL:
            raise error
        self._failures.append(to_status(error).SerializeToString())
        self._handle.update(persist=True, partial_failures=tuple(self._failures))

    def _owners_of_receipts(self) -> dict[str, list[str]]:
        """Operations that have a receipt, by its key's last part.

        One listing each: to ask for each of ten thousand tasks takes minutes of a remote store.
        """
        found: dict[str, list[str]] = {}
        for owner in self._receipt_owners:
            for key in self.store.list(f"{owner}/shards/"):
                found.setdefault(key.rpartition("/")[2], []).append(owner)
        return found

    def _known_receipt(self, task_id: str, owners: Mapping[str, list[str]]) -> bytes | None:
        for owner in owners.get(f"{task_id}.json", ()):
            key = _receipt_key(owner, task_id)
            data = self.store.get(key)
            try:
                receipt = Receipt.from_bytes(data)
            except GranuloError as error:
                # Doing the work again is always possible; going on without it never is.
                _log.warning("receipt ignored", key=key, message=error.message)
                continue
            if receipt.verifies(self.store):
                return data
        return None

    def _poll(self, counter: "_Counter") -> None:
        now_s = time.monotonic()
        if now_s - self._polled_s < self._handle.poll_s:
            return
        self._polled_s = now_s
        words = read_progress(self.store, self.name, counter.unfinished)
        if words:
            for name, word in words.items():
                counter.report(name, word.units_done, word.units_total)
            latest = list(words.values())[-1]
            self.progress(
                units_done=counter.done,
                units_total=counter.total,
                message=latest.message,
                figures=latest.figures,
            )


class _Counter:
    """Units of finished tasks, and of running ones as far as they say."""

    def __init__(self, units: Mapping[str, int]) -> None:
        self.total = sum(units.values())
        self.partial: dict[str, float] = {}
        self.unfinished = dict(units)

    def report(self, task_id: str, done: float, total: float | None) -> None:
        """Take what a running task says of itself."""
        self.partial[task_id] = done
        if total is not None:
            self.total += int(total) - self.unfinished[task_id]
            self.unfinished[task_id] = int(total)

    def finish(self, task_id: str) -> bool:
        """Count a task as finished; whether it had reported progress before."""
        self.unfinished.pop(task_id)
        return self.partial.pop(task_id, None) is not None

    @property
    def done(self) -> int:
        finished = self.total - sum(self.unfinished.values())
        return min(self.total, finished + int(sum(self.partial.values())))


def _receipt_key(operation: str, task_id: str) -> str:
    return f"{operation}/shards/{task_id}.json"
