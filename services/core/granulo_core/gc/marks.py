# SPDX-License-Identifier: GPL-3.0-or-later
"""What is still needed: read from manifests, references and the records of operations."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from granulo_core.errors import GranuloError, Reason
from granulo_core.operations.record import OperationRecord
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore

RESOURCE_PARTS: Mapping[str, int] = {
    "datasets": 2,
    "annotated": 2,
    "cross-validations": 2,
    "segmentations": 2,
    "analyses": 2,
    "comparisons": 2,
    "models": 4,
}
"""How many parts of a key name its resource, by the key's first part."""
_UPLOAD = re.compile(rb"uploads/[0-9a-f]{64}")
_MANIFEST = "manifest.json"


@dataclass
class Marks:
    """What is needed in one store."""

    resources: set[str] = field(default_factory=set)
    """Those that have a manifest: everything below them stays."""
    targets: set[str] = field(default_factory=set)
    """Resources that operations make now, or will when they go on."""
    operations: dict[str, OperationRecord] = field(default_factory=dict)
    """By name; without requests and responses."""
    uploads: set[str] = field(default_factory=set)
    """Keys that a manifest or an operation names anywhere."""
    served: set[str] = field(default_factory=set)
    """``serving/<model>/<version>`` that a reference names or whose version exists."""


def mark(store: ObjectStore) -> Marks:
    """Read everything that refers to objects.

    Parameters
    ----------
    store : ObjectStore
        Of one tenant, or the root's.

    Raises
    ------
    GranuloError
        DIGEST_MISMATCH or RESOURCE_NOT_READY for a manifest, reference or record that cannot be
        read: what it refers to is not known, so nothing may be removed.
    """
    found = Marks()
    for name in manifests.all_resources(store):
        data = store.get(f"{name}/{_MANIFEST}")
        manifests.from_json(data, name)
        found.resources.add(name)
        found.uploads |= _uploads(data)
        model, _, version = name.removeprefix("models/").partition("/versions/")
        if version:
            found.served.add(f"serving/{model}/{version}")
    for key in store.list("refs/"):
        found.served |= _served(store, key)
    for service in store.children("operations/"):
        for identifier in store.children(f"operations/{service}/"):
            _mark_operation(store, f"operations/{service}/{identifier}", found)
    return found


def resource_of(key: str) -> str:
    """The resource that a key belongs to; empty where it is none's."""
    parts = key.split("/")
    count = RESOURCE_PARTS.get(parts[0], 0)
    return "/".join(parts[:count]) if 0 < count < len(parts) else ""


def _served(store: ObjectStore, key: str) -> set[str]:
    data = store.get(key)
    try:
        json.loads(data)
    except ValueError as error:
        raise _unreadable(key, error) from error
    return {text.decode() for text in re.findall(rb"serving/[\w.-]+/\d+", data)}


def _mark_operation(store: ObjectStore, name: str, found: Marks) -> None:
    key = f"{name}/operation.json"
    try:
        data = store.get(key)
    except GranuloError as error:
        if error.reason is Reason.RESOURCE_NOT_FOUND:
            return  # its folder is what a killed server left
        raise
    try:
        record = OperationRecord.from_json(data)
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(key, error) from error
    for part in (record.request, record.response, record.metadata):
        found.uploads |= _uploads(part)
    if not record.state.done:
        found.targets.add(record.target)
    found.operations[name] = replace(record, request=b"", response=b"", metadata=b"")


def _uploads(data: bytes) -> set[str]:
    return {key.decode() for key in _UPLOAD.findall(data)}


def _unreadable(key: str, error: Exception) -> GranuloError:
    return GranuloError(
        Reason.DIGEST_MISMATCH,
        f"{key} is damaged ({error}). Restore it from the backup, or remove it, before anything is "
        "collected.",
        metadata={"name": key},
    )
