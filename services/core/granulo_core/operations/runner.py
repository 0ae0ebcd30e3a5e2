# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the operations of one service; what it accepts is in the store before it answers."""

import time
from collections import Counter
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
)
from granulo_core.operations import record as records
from granulo_core.operations.context import (
    InterruptedOperationError,
    OperationContext,
    Workflow,
)
from granulo_core.operations.record import OperationRecord, State
from granulo_core.operations.register import Register
from granulo_core.rpc.status import to_status
from granulo_core.store.port import ObjectStore
from granulo_core.telemetry import context as telemetry
from granulo_core.telemetry import traces

__all__ = ["OperationContext", "OperationRunner", "Workflow"]

_log = structlog.get_logger(__name__)
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
        self._register = Register(service, store, self._workflows, is_empty=answers_only)
        self._changed = self._register.changed
        self._submitted: set[str] = set()
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
        digest = records.request_digest(kind, request)
        with self._changed:
            if request_id and (first := self._register.by_request_id(request_id)):
                if first.request_digest != digest:
                    raise GranuloError(
                        Reason.RESOURCE_EXISTS,
                        f"request_id {request_id} was used for another request ({first.name}); "
                        "use a new UUID.",
                        metadata={"name": first.name},
                    )
                return self._show(first)
            same = self._register.of_request(digest)
            live = next((r for r in same if not r.state.done), None)
            if live is not None:
                return self._show(live)
            self._register.refuse_second_writer(target)
            if self._closing:
                raise GranuloError(
                    Reason.SERVER_BUSY,
                    "The server stops; ask again when it is back.",
                    retry_after_s=_RETRY_S,
                )
            stamp = records.now()
            record = OperationRecord(
                name=self._register.free_name(digest),
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
            self._register.save(record)
            self._submit(record.name)
            return self._show(record)

    def find_live(self, kind: str, request: Message) -> operations_pb2.Operation | None:
        """The operation that does this request right now, if there is one."""
        digest = records.request_digest(kind, request)
        with self._changed:
            for item in self._register.of_request(digest):
                if not item.state.done:
                    return self._show(item)
        return None

    def resume_all(self) -> int:
        """Go on with every operation that is not done; call once, when the server starts."""
        with self._changed:
            unfinished = [r for r in self._register if not r.state.done]
            for record in unfinished:
                _log.info("resuming", operation=record.name, kind=record.kind)
                if record.name not in self._submitted:
                    self._register.show(
                        replace(record, sequence=record.sequence + _SEQUENCES_PER_START)
                    )
                    self._submit(record.name)
        return len(unfinished)

    def get(self, name: str) -> operations_pb2.Operation:
        """The operation's current state."""
        with self._changed:
            return self._show(self._register.known(name))

    def list(self, filter_text: str = "") -> list[operations_pb2.Operation]:
        """All operations, newest first; ``done=true`` or ``done=false`` selects."""
        wanted = {"": None, "done=true": True, "done=false": False}
        key = filter_text.replace(" ", "").lower()
        if key not in wanted:
            raise invalid_fields(
                [FieldViolation("filter", f"{filter_text!r} is not done=true or done=false.")]
            )
        with self._changed:
            chosen = [r for r in self._register if wanted[key] in (None, r.state.done)]
            chosen.sort(key=lambda item: (item.create_time, item.name), reverse=True)
            return [self._show(item) for item in chosen]

    def wait(
        self, name: str, timeout_s: float, is_active: Callable[[], bool] = lambda: True
    ) -> operations_pb2.Operation:
        """The operation once it is done, or as it is when the time is over."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while True:
                record = self._register.known(name)
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
                record = self._register.known(name)
                while record.sequence <= last and not record.state.done:
                    if self._closing or not is_active():
                        return
                    self._changed.wait(1.0)
                    record = self._register.known(name)
                shown = self._show(record)
            yield record.sequence, shown
            if record.state.done:
                return
            last = max(last, record.sequence)

    def cancel(self, name: str) -> None:
        """Ask for the end of an operation; one that has ended stays as it is."""
        with self._changed:
            record = self._register.known(name)
            if record.state is State.QUEUED:
                status = to_status(_cancelled(name)).SerializeToString()
                self._register.try_save(record.changed(state=State.CANCELLED, error=status))
            elif record.state is State.RUNNING:
                # A store that is full must not keep anybody from stopping what fills it.
                self._register.try_save(record.changed(state=State.CANCELLING))

    def delete(self, name: str) -> None:
        """Forget an ended operation."""
        with self._changed:
            record = self._register.known(name)
            if not record.state.done:
                raise GranuloError(
                    Reason.OPERATION_NOT_DONE,
                    f"{name} is still running; cancel it first.",
                    metadata={"name": name},
                )
            self._register.forget(name)

    def counts(self) -> Mapping[tuple[str, str], int]:
        """How many operations there are, by service and state; all states, also of none."""
        # Without the condition, which is held while the store is written: no scrape waits.
        states = Counter(self._register.states())
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
            record = self._register.get(name)
            if record is None or record.state.done or self._closing:
                return
            if record.state is State.QUEUED:
                started = record.changed(state=State.RUNNING, start_time=records.now())
                self._register.try_save(started)
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
                    self._register.try_save(self._register.known(name).changed(**end))
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
            if cancelled and self._register.known(name).state is not State.CANCELLING:
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
            context = self._context(self._register.known(name), workflow)
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
            predecessors=self._register.predecessors(record),
        )

    def _submit(self, name: str) -> None:
        self._submitted.add(name)
        self._threads.submit(self._run, name)

    def _show(self, record: OperationRecord) -> operations_pb2.Operation:
        return record.to_operation(self._workflows[record.kind].metadata_type)


class _Handle:
    """One operation of a runner, as its context sees it."""

    def __init__(self, runner: OperationRunner, name: str) -> None:
        self._runner = runner
        self._name = name

    @property
    def cancelled(self) -> bool:
        return self._runner._register.known(self._name).state is State.CANCELLING  # noqa: SLF001

    @property
    def interrupted(self) -> bool:
        return self._runner._closing  # noqa: SLF001

    @property
    def poll_s(self) -> float:
        # One listing of the store each time: all operations together ask for a few a second.
        return _POLL_S * max(1, self._runner._running)  # noqa: SLF001

    def update(self, *, persist: bool, **changes: Any) -> None:
        self._runner._register.update(self._name, changes, persist=persist)  # noqa: SLF001


def _cancelled(name: str) -> GranuloError:
    return GranuloError(Reason.OPERATION_CANCELLED, f"{name} was cancelled before it started.")
