# SPDX-License-Identifier: GPL-3.0-or-later
"""What is still needed: read from records of operations, references and manifests."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from granulo_core.errors import GranuloError, Reason
from granulo_core.operations.record import OperationRecord, State
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore

_UPLOAD = re.compile(rb"uploads/[0-9a-f]{64}")
_MANIFEST = "manifest.json"


class Ended(NamedTuple):
    """An operation that is over, and never begins again."""

    succeeded: bool
    ended_s: float
    """In seconds since 1970."""


@dataclass
class Marks:
    """What is needed in one store, by all that was seen of it so far."""

    resources: set[str] = field(default_factory=set)
    """Those that have a manifest: everything below them stays."""
    targets: set[str] = field(default_factory=set)
    """Resources that operations make, or will when they go on."""
    live: set[str] = field(default_factory=set)
    """Names of these operations."""
    ended: dict[str, Ended] = field(default_factory=dict)
    """The others, by name."""
    uploads: set[str] = field(default_factory=set)
    """Keys that a manifest or an operation names anywhere."""
    served: set[str] = field(default_factory=set)
    """``serving/<model>/<version>`` that a reference names or whose version exists."""


def look(store: ObjectStore, marks: Marks, is_expired: Callable[[Ended], bool]) -> None:
    """Add what is needed now to what was; what was read once and cannot change is not read again.

    Operations are read before manifests: one that ends in between has its manifest by then.

    Parameters
    ----------
    store : ObjectStore
        Of one tenant, or the root's.
    marks : Marks
    is_expired : callable
        Whether an ended operation is kept no longer, and with it the uploads that only it names.

    Raises
    ------
    GranuloError
        DIGEST_MISMATCH or RESOURCE_NOT_READY for a manifest, reference or record that cannot be
        read: what it refers to is not known, so nothing may be removed.
    """
    for service in store.children("operations/"):
        for identifier in store.children(f"operations/{service}/"):
            name = f"operations/{service}/{identifier}"
            if name not in marks.ended:
                _look_at_operation(store, name, marks, is_expired)
    for key in store.list("refs/"):
        marks.served |= _served(store, key)
    for name in manifests.all_resources(store):
        if name in marks.resources:
            continue
        data = store.get(f"{name}/{_MANIFEST}")
        manifests.from_json(data, name)
        marks.resources.add(name)
        marks.uploads |= _uploads(data)
        model, _, version = name.removeprefix("models/").partition("/versions/")
        if version:
            marks.served.add(f"serving/{model}/{version}")


def resource_of(key: str) -> str:
    """The resource that a key belongs to; empty where it is none's."""
    parts = key.split("/")
    count = manifests.COLLECTIONS.get(parts[0], 0)
    return "/".join(parts[:count]) if 0 < count < len(parts) else ""


def _served(store: ObjectStore, key: str) -> set[str]:
    data = store.get(key)
    try:
        json.loads(data)
    except ValueError as error:
        raise _unreadable(key, error) from error
    return {text.decode() for text in re.findall(rb"serving/[\w.-]+/\d+", data)}


def _look_at_operation(
    store: ObjectStore, name: str, marks: Marks, is_expired: Callable[[Ended], bool]
) -> None:
    key = f"{name}/operation.json"
    try:
        record = OperationRecord.from_json(store.get(key))
    except GranuloError as error:
        if error.reason is Reason.RESOURCE_NOT_FOUND:
            return  # its folder is what a killed server left
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(key, error) from error
    if record.state.done:
        ended_s = datetime.fromisoformat(record.update_time).timestamp()
        ended = marks.ended[name] = Ended(record.state is State.SUCCEEDED, ended_s)
        if is_expired(ended):
            return
    else:
        marks.live.add(name)
        marks.targets.add(record.target)
    for part in (record.request, record.response, record.metadata):
        marks.uploads |= _uploads(part)


def _uploads(data: bytes) -> set[str]:
    return {key.decode() for key in _UPLOAD.findall(data)}


def _unreadable(key: str, error: Exception) -> GranuloError:
    return GranuloError(
        Reason.DIGEST_MISMATCH,
        f"{key} is damaged ({error}). Restore it from the backup, or remove it, before anything is "
        "collected.",
        metadata={"name": key},
    )
