# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the operations of one service; what it accepts is in the store before it answers."""

import hashlib
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import structlog
from google.longrunning import operations_pb2
from google.protobuf import any_pb2
from google.protobuf.message import Message

from granulo_core.engine.port import Engine
from granulo_core.errors import (
    FieldViolation,
    GranuloError,
    Reason,
    invalid_fields,
    not_found,
)
from granulo_core.operations import record as records
from granulo_core.operations.context import (
    InterruptedOperationError,
    OperationContext,
    Workflow,
)
from granulo_core.operations.record import OperationRecord, State
from granulo_core.rpc.status import to_status
from granulo_core.store.port import ObjectStore
from granulo_core.telemetry import context as telemetry
from granulo_core.telemetry import traces

__all__ = ["OperationContext", "OperationRunner", "Workflow"]

_log = structlog.get_logger(__name__)
# Progress is shown at once but stored only so often; changes of state are always stored.
_PERSIST_INTERVAL_S = 1.0
# A server that is killed may have shown events that it had not stored: their numbers are skipped.
_SEQUENCES_PER_START = 1000
_RETRY_S = 1.0
_POLL_S = 0.1


class OperationRunner:
    """Starts, resumes, shows and ends the operations of one service.

    Parameters
    ----------
    service : str
        Short name, e.g. ``render``; part of the operations' names.
    store : ObjectStore
    engine : Engine
    workflows : sequence of Workflow
    max_running : int
        Operations that run at once; others wait in order.
    store_patience_s : float
        How long an operation waits for a store that has gone away; what was made is kept.
    answers_only : bool
        The operations belong to another server: this one knows, resumes and accepts none.
    """

    def __init__(
        self,
        service: str,
        store: ObjectStore,
        engine: Engine,
        workflows: Sequence[Workflow],
        max_running: int = 4,
        *,
        store_patience_s: float = 300.0,
        answers_only: bool = False,
    ) -> None:
        self.service = service
        self._answers_only = answers_only
        self._store_patience_s = store_patience_s
        self._store = store
        self._engine = engine
        self._workflows = {workflow.kind: workflow for workflow in workflows}
        self._changed = threading.Condition()
        self._records = {} if answers_only else self._load()
        self._submitted: set[str] = set()
        self._persisted_s: dict[str, float] = {}
        self._writing: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._running = 0
        self._closing = False
        self._threads = ThreadPoolExecutor(max_running, thread_name_prefix=f"{service}-operation")

    def start(
        self, kind: str, request: Message, *, target: str, request_id: str = ""
    ) -> operations_pb2.Operation:
        """Accept an operation, or meet the one that does the same already.

        Parameters
        ----------
        kind : str
            Kind of one of the workflows.
        request : Message
            The RPC's request, already validated.
        target : str
            Resource name that is being made.
        request_id : str, optional
            The same id returns the first operation (AIP-155).

        Raises
        ------
        GranuloError
            OPERATIONS_ELSEWHERE where this server only answers calls;
            RESOURCE_EXISTS when ``request_id`` was used for another request; RESOURCE_NOT_READY
            when another request makes ``target`` just now; SERVER_BUSY when the server stops; what
            the store says when the record cannot be written.
        """
        if self._answers_only:
            raise GranuloError(
                Reason.OPERATIONS_ELSEWHERE,
                f"This {self.service} server answers calls only; create operations at the one that "
                f"runs them ({self.service}=HOST:PORT of the installation).",
            )
        digest = _request_digest(kind, request)
        with self._changed:
            if request_id and (first := self._by_request_id(request_id)):
                if first.request_digest != digest:
                    raise GranuloError(
                        Reason.RESOURCE_EXISTS,
                        f"request_id {request_id} was used for another request ({first.name}); "
                        "use a new UUID.",
                        metadata={"name": first.name},
                    )
                return self._show(first)
            same = [r for r in self._records.values() if r.request_digest == digest]
            live = next((r for r in same if not r.state.done), None)
            if live is not None:
                return self._show(live)
            self._refuse_second_writer(target)
            if self._closing:
                raise GranuloError(
                    Reason.SERVER_BUSY,
                    "The server stops; ask again when it is back.",
                    retry_after_s=_RETRY_S,
                )
            stamp = records.now()
            record = OperationRecord(
                name=self._free_name(digest),
                kind=kind,
                target=target,
                request=request.SerializeToString(deterministic=True),
                request_digest=digest,
                request_id=request_id,
                carried=telemetry.carried(),
                previous=same[-1].name if same else "",
                create_time=stamp,
                update_time=stamp,
            )
            records.save(self._store, record)
            self._records[record.name] = record
            self._submit(record.name)
            return self._show(record)

    def find_live(self, kind: str, request: Message) -> operations_pb2.Operation | None:
        """The operation that does this request right now, if there is one."""
        digest = _request_digest(kind, request)
        with self._changed:
            for item in self._records.values():
                if item.request_digest == digest and not item.state.done:
                    return self._show(item)
        return None

    def resume_all(self) -> int:
        """Go on with every operation that is not done; call once, when the server starts."""
        with self._changed:
            unfinished = [r for r in self._records.values() if not r.state.done]
            for record in unfinished:
                _log.info("resuming", operation=record.name, kind=record.kind)
                if record.name not in self._submitted:
                    self._put(replace(record, sequence=record.sequence + _SEQUENCES_PER_START))
                    self._submit(record.name)
        return len(unfinished)

    def get(self, name: str) -> operations_pb2.Operation:
        """The operation's current state."""
        with self._changed:
            return self._show(self._known(name))

    def list(self, filter_text: str = "") -> list[operations_pb2.Operation]:
        """All operations, newest first; ``done=true`` or ``done=false`` selects."""
        wanted = {"": None, "done=true": True, "done=false": False}
        key = filter_text.replace(" ", "").lower()
        if key not in wanted:
            raise invalid_fields(
                [FieldViolation("filter", f"{filter_text!r} is not done=true or done=false.")]
            )
        with self._changed:
            chosen = [r for r in self._records.values() if wanted[key] in (None, r.state.done)]
            chosen.sort(key=lambda item: (item.create_time, item.name), reverse=True)
            return [self._show(item) for item in chosen]

    def wait(
        self, name: str, timeout_s: float, is_active: Callable[[], bool] = lambda: True
    ) -> operations_pb2.Operation:
        """The operation once it is done, or as it is when the time is over."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while True:
                record = self._known(name)
                left = end - time.monotonic()
                if record.state.done or left <= 0 or self._closing or not is_active():
                    return self._show(record)
                self._changed.wait(min(left, 1.0))

    def watch(
        self, name: str, after_sequence: int = 0, is_active: Callable[[], bool] = lambda: True
    ) -> Iterator[tuple[int, operations_pb2.Operation]]:
        """Current state at once, then every change until the operation is done."""
        last = after_sequence
        while True:
            with self._changed:
                record = self._known(name)
                while record.sequence <= last and not record.state.done:
                    if self._closing or not is_active():
                        return
                    self._changed.wait(1.0)
                    record = self._known(name)
                shown = self._show(record)
            yield record.sequence, shown
            if record.state.done:
                return
            last = max(last, record.sequence)

    def cancel(self, name: str) -> None:
        """Ask for the end of an operation; one that has ended stays as it is."""
        with self._changed:
            record = self._known(name)
            if record.state is State.QUEUED:
                status = to_status(_cancelled(name)).SerializeToString()
                self._try_save(record.changed(state=State.CANCELLED, error=status))
            elif record.state is State.RUNNING:
                # A store that is full must not keep anybody from stopping what fills it.
                self._try_save(record.changed(state=State.CANCELLING))

    def delete(self, name: str) -> None:
        """Forget an ended operation."""
        with self._changed:
            record = self._known(name)
            if not record.state.done:
                raise GranuloError(
                    Reason.OPERATION_NOT_DONE,
                    f"{name} is still running; cancel it first.",
                    metadata={"name": name},
                )
            # The record goes first: events without it are not an operation any more.
            self._store.delete(f"{name}/operation.json")
            for key in list(self._store.list(f"{name}/")):
                self._store.delete(key)
            del self._records[name]
            self._writing.pop(name, None)
            self._persisted_s.pop(name, None)
            self._changed.notify_all()

    def counts(self) -> Mapping[tuple[str, str], int]:
        """How many operations there are, by service and state; all states, also of none."""
        with self._changed:
            states = Counter(record.state for record in self._records.values())
        return {(self.service, state.value): states[state] for state in State}

    def interrupt(self) -> None:
        """Begin to stop: nothing new is accepted, nobody waits any longer."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stop; running operations stay resumable."""
        self.interrupt()
        self._threads.shutdown(wait=True, cancel_futures=True)

    # The runner's threads -----------------------------------------------------------------

    def _run(self, name: str) -> None:
        with self._changed:
            record = self._records.get(name)
            if record is None or record.state.done or self._closing:
                return
            if record.state is State.QUEUED:
                started = record.changed(state=State.RUNNING, start_time=records.now())
                self._try_save(started)
            self._running += 1
        try:
            self._do(name, record)
        finally:
            with self._changed:
                self._running -= 1

    def _do(self, name: str, record: OperationRecord) -> None:
        with (
            telemetry.taken_up(record.carried, operation=name, kind=record.kind),
            traces.span(record.kind, attributes={"operation": name}) as span,
        ):
            end = self._end_of(name, self._workflows[record.kind])
            if end is not None:
                with self._changed:
                    self._try_save(self._records[name].changed(**end))
                if end["state"] is not State.SUCCEEDED:
                    traces.failed(span, end["state"])

    def _end_of(self, name: str, workflow: Workflow) -> dict[str, Any] | None:
        """Do the work; the changes that end the operation, or None where it is not its end."""
        log = _log.bind(operation=name, kind=workflow.kind)
        try:
            response = self._outlast_outages(workflow, name)
        except InterruptedOperationError:
            log.info("interrupted; the next server goes on with it")
            return None
        except GranuloError as error:
            cancelled = error.reason is Reason.OPERATION_CANCELLED
            if cancelled and self._records[name].state is not State.CANCELLING:
                # Nobody asked for its end: the engine was closed under it.
                log.info("interrupted; the next server goes on with it")
                return None
            log.info("ended", reason=error.reason.value, message=error.message)
            state = State.CANCELLED if cancelled else State.FAILED
            return {"state": state, "error": to_status(error).SerializeToString()}
        except Exception as error:
            log.exception("failed by a defect")
            described = GranuloError(
                Reason.INTERNAL_ERROR,
                f"{name} failed by a defect of Granulo ({type(error).__name__}: {error}); "
                "the server's log has the trace.",
            )
            return {"state": State.FAILED, "error": to_status(described).SerializeToString()}
        packed = any_pb2.Any()
        packed.Pack(response)
        return {"state": State.SUCCEEDED, "response": packed.SerializeToString()}

    def _outlast_outages(self, workflow: Workflow, name: str) -> Message:
        """Run a workflow, again while the store is away: what is done is not done again."""
        began_s: float | None = None
        while True:
            context = self._context(self._records[name], workflow)
            started_s = time.monotonic()
            try:
                return workflow.run(context)
            except GranuloError as error:
                now_s = time.monotonic()
                if began_s is None or now_s - started_s > self._store_patience_s:
                    began_s = now_s
                is_over = now_s - began_s >= self._store_patience_s
                if error.reason is not Reason.STORE_UNAVAILABLE or is_over:
                    raise
                _log.warning("the store is away", operation=name, message=error.message)
            with self._changed:
                self._changed.wait_for(lambda: self._closing, _RETRY_S)
            context.check_cancelled()

    def _context(self, record: OperationRecord, workflow: Workflow) -> OperationContext:
        return OperationContext(
            name=record.name,
            target=record.target,
            request=workflow.request_type.FromString(record.request),
            store=self._store,
            engine=self._engine,
            handle=_Handle(self, record.name),
            predecessors=self._predecessors(record),
        )

    def _refuse_second_writer(self, target: str) -> None:
        """Two requests that make one resource at once would mix their objects."""
        for record in self._records.values():
            if target and record.target == target and not record.state.done:
                raise GranuloError(
                    Reason.RESOURCE_NOT_READY,
                    f"{target} is being made by {record.name} for another request; wait for its "
                    "end and ask again, or cancel it.",
                    metadata={"name": target, "operation": record.name},
                )

    def _predecessors(self, record: OperationRecord) -> tuple[str, ...]:
        names: tuple[str, ...] = ()
        while record.previous and record.previous in self._records:
            names += (record.previous,)
            record = self._records[record.previous]
        return names

    def _update(self, name: str, persist: bool, changes: dict[str, Any]) -> None:
        with self._changed:
            record = self._records[name]
            if all(getattr(record, field) == value for field, value in changes.items()):
                return
            changed = record.changed(**changes)
            if persist:
                self._save(changed)
                return
            self._put(changed)
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

    # Records; callers hold the condition ---------------------------------------------------

    def _known(self, name: str) -> OperationRecord:
        if name not in self._records:
            raise not_found(name, "List the operations to see what exists.")
        return self._records[name]

    def _by_request_id(self, request_id: str) -> OperationRecord | None:
        return next((r for r in self._records.values() if r.request_id == request_id), None)

    def _free_name(self, digest: str) -> str:
        attempt = 1
        while True:
            name = f"operations/{self.service}/{digest[:16]}-{attempt}"
            # A record that could not be read is in the store only, and stays there.
            if name not in self._records and not self._store.exists(f"{name}/operation.json"):
                return name
            attempt += 1

    def _load(self) -> dict[str, OperationRecord]:
        loaded = {}
        for item in records.load_all(self._store, self.service):
            if item.kind in self._workflows:
                loaded[item.name] = item
            else:
                _log.error("operation of an unknown kind", operation=item.name, kind=item.kind)
        return loaded

    def _submit(self, name: str) -> None:
        self._submitted.add(name)
        self._threads.submit(self._run, name)

    def _save(self, record: OperationRecord) -> None:
        # After progress that is being written: the store ends up with the newer one.
        with self._writing[record.name]:
            records.save(self._store, record)
        self._persisted_s[record.name] = time.monotonic()
        self._put(record)

    def _try_save(self, record: OperationRecord) -> None:
        """Show a change even when the store cannot take it: the next server repeats the work."""
        try:
            self._save(record)
        except GranuloError as error:
            _log.error("record not stored", operation=record.name, message=error.message)
            self._put(record)

    def _put(self, record: OperationRecord) -> None:
        self._records[record.name] = record
        self._changed.notify_all()

    def _show(self, record: OperationRecord) -> operations_pb2.Operation:
        return record.to_operation(self._workflows[record.kind].metadata_type)


class _Handle:
    """One operation of a runner, as its context sees it."""

    def __init__(self, runner: OperationRunner, name: str) -> None:
        self._runner = runner
        self._name = name

    @property
    def cancelled(self) -> bool:
        return self._runner._records[self._name].state is State.CANCELLING  # noqa: SLF001

    @property
    def interrupted(self) -> bool:
        return self._runner._closing  # noqa: SLF001

    @property
    def poll_s(self) -> float:
        # One listing of the store each time: all operations together ask for a few a second.
        return _POLL_S * max(1, self._runner._running)  # noqa: SLF001

    def update(self, *, persist: bool, **changes: Any) -> None:
        self._runner._update(self._name, persist, changes)  # noqa: SLF001


def _cancelled(name: str) -> GranuloError:
    return GranuloError(Reason.OPERATION_CANCELLED, f"{name} was cancelled before it started.")


def _request_digest(kind: str, request: Message) -> str:
    """Digest by which equal requests meet: without what only identifies the call."""
    content = type(request)()
    content.CopyFrom(request)
    for field in ("request_id", "validate_only"):
        if field in content.DESCRIPTOR.fields_by_name:
            content.ClearField(field)
    return hashlib.sha256(
        kind.encode() + b"\0" + content.SerializeToString(deterministic=True)
    ).hexdigest()
