# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of one service's operations: in memory for answers, in the store for what follows."""

import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any

import structlog

from granulo_core.errors import GranuloError, Reason, not_found
from granulo_core.operations import record as records
from granulo_core.operations.record import OperationRecord, State
from granulo_core.store.port import ObjectStore

_log = structlog.get_logger(__name__)
# Progress is shown at once but stored only so often; changes of state are always stored.
_PERSIST_INTERVAL_S = 1.0


class Register:
    """Keeps records; callers hold ``changed``, except where it is said.

    Parameters
    ----------
    service : str
    store : ObjectStore
    kinds : collection of str
        Kinds of operations that this server can do; others are reported and left alone.
    is_empty : bool
        Take none from the store: they belong to another server.
    """

    def __init__(
        self, service: str, store: ObjectStore, kinds: Collection[str], *, is_empty: bool
    ) -> None:
        self.changed = threading.Condition()
        """Notified of every change of a record."""
        self._service = service
        self._store = store
        self._records = {} if is_empty else self._load(kinds)
        self._persisted_s: dict[str, float] = {}
        self._writing: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def __iter__(self) -> Iterator[OperationRecord]:
        """Iterate over all records."""
        return iter(self._records.values())

    def get(self, name: str) -> OperationRecord | None:
        """A record, where there is one of this name."""
        return self._records.get(name)

    def known(self, name: str) -> OperationRecord:
        """A record; RESOURCE_NOT_FOUND where there is none of this name."""
        if name not in self._records:
            raise not_found(name, "List the operations to see what exists.")
        return self._records[name]

    def states(self) -> list[State]:
        """States of all operations; needs no lock."""
        return [record.state for record in list(self._records.values())]

    def by_request_id(self, request_id: str) -> OperationRecord | None:
        """The record of a request that named itself so."""
        return next((r for r in self if r.request_id == request_id), None)

    def of_request(self, digest: str) -> list[OperationRecord]:
        """Records of equal requests, the latest last."""
        return [record for record in self if record.request_digest == digest]

    def refuse_second_writer(self, target: str) -> None:
        """Raise RESOURCE_NOT_READY where a target is being made.

        Two requests that make one resource at once would mix their objects.
        """
        for record in self:
            if target and record.target == target and not record.state.done:
                raise GranuloError(
                    Reason.RESOURCE_NOT_READY,
                    f"{target} is being made by {record.name} for another request; wait for its "
                    "end and ask again, or cancel it.",
                    metadata={"name": target, "operation": record.name},
                )

    def free_name(self, digest: str) -> str:
        """A name that no operation has."""
        attempt = 1
        while True:
            name = f"operations/{self._service}/{digest[:16]}-{attempt}"
            # A record that could not be read is in the store only, and stays there.
            if name not in self._records and not self._store.exists(f"{name}/operation.json"):
                return name
            attempt += 1

    def predecessors(self, record: OperationRecord) -> tuple[str, ...]:
        """Earlier attempts at the same request, whose receipts count."""
        names: tuple[str, ...] = ()
        while record.previous and record.previous in self._records:
            names += (record.previous,)
            record = self._records[record.previous]
        return names

    def save(self, record: OperationRecord) -> None:
        """Store a change, then show it."""
        # After progress that is being written: the store ends up with the newer one.
        with self._writing[record.name]:
            records.save(self._store, record)
        self._persisted_s[record.name] = time.monotonic()
        self.show(record)

    def try_save(self, record: OperationRecord) -> None:
        """Show a change even when the store cannot take it: the next server repeats the work."""
        try:
            self.save(record)
        except GranuloError as error:
            _log.error("record not stored", operation=record.name, message=error.message)
            self.show(record)

    def show(self, record: OperationRecord) -> None:
        """Show a change that is not stored."""
        self._records[record.name] = record
        self.changed.notify_all()

    def update(self, name: str, changes: dict[str, Any], *, persist: bool) -> None:
        """Change fields of a record; callers do not hold ``changed``.

        Parameters
        ----------
        name : str
        changes : dict
        persist : bool
            Store it in any case, before it is shown.
        """
        with self.changed:
            record = self._records[name]
            if all(getattr(record, field) == value for field, value in changes.items()):
                return
            changed = record.changed(**changes)
            if persist:
                self.save(changed)
                return
            self.show(changed)
            now_s = time.monotonic()
            writing = self._writing[name]
            if now_s - self._persisted_s.get(name, 0.0) < _PERSIST_INTERVAL_S:
                return
            if not writing.acquire(blocking=False):
                return
            self._persisted_s[name] = now_s
        # Mere progress is written without the condition, which everybody else waits for.
        try:
            records.save(self._store, changed, is_event=False)
        except GranuloError as error:
            _log.error("record not stored", operation=name, message=error.message)
        finally:
            writing.release()

    def forget(self, name: str) -> None:
        """Remove a record and all that belongs to it."""
        # The record goes first: events without it are not an operation any more.
        self._store.delete(f"{name}/operation.json")
        for key in list(self._store.list(f"{name}/")):
            self._store.delete(key)
        del self._records[name]
        self._writing.pop(name, None)
        self._persisted_s.pop(name, None)
        self.changed.notify_all()

    def _load(self, kinds: Collection[str]) -> dict[str, OperationRecord]:
        loaded = {}
        for item in records.load_all(self._store, self._service):
            if item.kind in kinds:
                loaded[item.name] = item
            else:
                _log.error("operation of an unknown kind", operation=item.name, kind=item.kind)
        return loaded
