# SPDX-License-Identifier: GPL-3.0-or-later
"""The durable record of an operation, and how it shows as `google.longrunning.Operation`."""

import base64
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import structlog
from google.longrunning import operations_pb2
from google.protobuf import any_pb2, timestamp_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2

from granulo.type.v1 import progress_pb2
from granulo_core.errors import GranuloError, Reason
from granulo_core.store.port import ObjectStore

_log = structlog.get_logger(__name__)
_READERS = 16


class State(StrEnum):
    """Life cycle; the names of `granulo.type.v1.Progress.State` without their prefix."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def done(self) -> bool:
        """Whether the operation has ended."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class OperationRecord:
    """Everything that is known of an operation; a change makes a new record."""

    name: str
    """``operations/<service>/<id>``"""
    kind: str
    target: str
    request: bytes
    """The request message, serialised."""
    request_digest: str
    """Of kind and request without ``request_id``: equal requests meet by it."""
    request_id: str = ""
    carried: dict[str, str] = field(default_factory=dict)
    """What log lines and spans of its work go on with (`granulo_core.telemetry.context`)."""
    previous: str = ""
    """The failed or cancelled operation of the same request whose receipts count here."""
    state: State = State.QUEUED
    sequence: int = 1
    create_time: str = ""
    start_time: str = ""
    update_time: str = ""
    unit: str = ""
    units_total: int = 0
    units_done: int = 0
    message: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    partial_failures: tuple[bytes, ...] = ()
    """`google.rpc.Status` messages, serialised."""
    metadata: bytes = b""
    """The service's metadata message, serialised, without its progress."""
    response: bytes = b""
    """`Any`, serialised, once succeeded."""
    error: bytes = b""
    """`google.rpc.Status`, serialised, once failed or cancelled."""

    def changed(self, **changes: Any) -> "OperationRecord":
        """The next record: given fields replaced, sequence and update time advanced."""
        return replace(self, sequence=self.sequence + 1, update_time=now(), **changes)

    def to_json(self) -> bytes:
        """JSON with base64 for bytes."""
        return json.dumps(_encode(asdict(self)), sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "OperationRecord":
        """Read what `to_json` wrote, without what only a newer version knows."""
        known = {item.name for item in fields(cls)}
        values = {name: value for name, value in json.loads(data).items() if name in known}
        for name in ("request", "metadata", "response", "error"):
            values[name] = base64.b64decode(values[name])
        values["partial_failures"] = tuple(map(base64.b64decode, values["partial_failures"]))
        values["state"] = State(values["state"])
        return cls(**values)

    def to_operation(self, metadata_type: type[Message]) -> operations_pb2.Operation:
        """The operation as clients see it; its metadata's field ``progress`` is filled here."""
        metadata = metadata_type.FromString(self.metadata)
        metadata.progress.CopyFrom(self._progress())  # type: ignore[attr-defined]
        operation = operations_pb2.Operation(name=self.name, done=self.state.done)
        operation.metadata.Pack(metadata)
        if self.state is State.SUCCEEDED:
            operation.response.CopyFrom(any_pb2.Any.FromString(self.response))
        elif self.state.done:
            operation.error.CopyFrom(status_pb2.Status.FromString(self.error))
        return operation

    def _progress(self) -> progress_pb2.Progress:
        return progress_pb2.Progress(
            state=progress_pb2.Progress.State.Value(f"STATE_{self.state.value}"),
            unit=self.unit,
            units_total=self.units_total,
            units_done=self.units_done,
            units_failed=len(self.partial_failures),
            create_time=_timestamp(self.create_time),
            start_time=_timestamp(self.start_time),
            update_time=_timestamp(self.update_time),
            partial_failures=[
                status_pb2.Status.FromString(item) for item in self.partial_failures[:20]
            ],
            message=self.message,
            figures=self.figures,
        )


def save(store: ObjectStore, record: OperationRecord, *, is_event: bool = True) -> None:
    """Write the record; an event stays in the operation's history, mere progress does not."""
    data = record.to_json()
    if is_event:
        store.put(f"{record.name}/events/{record.sequence:08d}.json", data, "application/json")
    store.put(f"{record.name}/operation.json", data, "application/json")


def load_all(store: ObjectStore, service: str) -> list[OperationRecord]:
    """All records of a service, oldest first; a damaged one is reported and left alone."""
    # Not all keys: every operation has receipts by the hundred. At once, for stores that are far.
    names = store.children(f"operations/{service}/")
    keys = [f"operations/{service}/{name}/operation.json" for name in names]
    with ThreadPoolExecutor(_READERS) as readers:
        found = [record for record in readers.map(lambda key: _load(store, key), keys) if record]
    return sorted(found, key=lambda record: (record.create_time, record.name))


def _load(store: ObjectStore, key: str) -> OperationRecord | None:
    try:
        return OperationRecord.from_json(store.get(key))
    except (ValueError, KeyError, TypeError) as error:
        _log.error("operation record cannot be read", key=key, error=str(error))
    except GranuloError as error:
        if error.reason is not Reason.RESOURCE_NOT_FOUND:
            raise
        # A folder without a record is no operation: one was killed while it was deleted.
    return None


def now() -> str:
    """Time of day in UTC with microseconds, sortable as text."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _timestamp(text: str) -> timestamp_pb2.Timestamp | None:
    if not text:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromJsonString(text)
    return stamp


def _encode(values: dict[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return value

    return {name: plain(value) for name, value in values.items()}


def request_digest(kind: str, request: Message) -> str:
    """Digest by which equal requests meet: without what only identifies the call."""
    content = type(request)()
    content.CopyFrom(request)
    for name in ("request_id", "validate_only"):
        if name in content.DESCRIPTOR.fields_by_name:
            content.ClearField(name)
    return hashlib.sha256(
        kind.encode() + b"\0" + content.SerializeToString(deterministic=True)
    ).hexdigest()
