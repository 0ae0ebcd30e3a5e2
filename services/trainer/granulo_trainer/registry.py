# SPDX-License-Identifier: GPL-3.0-or-later
"""Models and their versions in the object store: numbers, states, checkpoints.

A version's number is claimed by an object that holds the digest of its request, so that the same
request comes back to the same version and two requests never share one.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from threading import Lock
from typing import Any

from granulo_core.errors import GranuloError, Reason, not_found
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore, StoredObject, digest_of
from granulo_trainer.domain.config import METADATA_NAME

_VERSION = re.compile(r"^models/([a-z0-9][a-z0-9_-]{0,62})/versions/([1-9][0-9]{0,8})$")
_JSON = "application/json"
_LIST_REMEDY = "List the models to see what exists."
_claiming = Lock()


class VersionState(Enum):
    """Life cycle of a version."""

    CREATING = "CREATING"
    ACTIVE = "ACTIVE"
    FAILED = "FAILED"


@dataclass(frozen=True)
class VersionName:
    """Resource name of a version."""

    model: str
    number: int

    @classmethod
    def parse(cls, name: str) -> "VersionName":
        """Read ``models/<model>/versions/<n>``; anything else is RESOURCE_NOT_FOUND."""
        match = _VERSION.match(name)
        if not match:
            raise not_found(
                name or "(empty name)", "A version is called models/<model>/versions/<number>."
            )
        return cls(match.group(1), int(match.group(2)))

    def __str__(self) -> str:
        return f"models/{self.model}/versions/{self.number}"


@dataclass(frozen=True)
class CheckpointRecord:
    """What is kept of one epoch."""

    epoch: int
    figures: Mapping[str, float]
    predictions: tuple[StoredObject, ...]
    names: tuple[str, ...]
    """Of the predicted images."""
    create_time: str


def model_names(store: ObjectStore) -> list[str]:
    """Ids of the models that have a version of any state, in order."""
    keys = store.list("models/")
    return sorted({key.split("/")[1] for key in keys if key.endswith("/claim.json")})


def version_numbers(store: ObjectStore, model: str) -> list[int]:
    """Numbers of a model's versions of any state, in order."""
    keys = store.list(f"models/{model}/versions/")
    return sorted(int(key.split("/")[3]) for key in keys if key.endswith("/claim.json"))


def claim(store: ObjectStore, model: str, request_digest: str) -> VersionName:
    """Find the version of this request, or take the next number for it.

    Parameters
    ----------
    store : ObjectStore
    model : str
        Model id.
    request_digest : str
        Digest of what determines the result.

    Returns
    -------
    VersionName
    """
    # The trainer's operations have one live owner: a lock in this process is enough.
    with _claiming:
        numbers = version_numbers(store, model)
        for number in reversed(numbers):
            name = VersionName(model, number)
            if read_json(store, f"{name}/claim.json")["request_digest"] == request_digest:
                return name
        name = VersionName(model, max(numbers, default=0) + 1)
        content = {"request_digest": request_digest, "create_time": manifests.now_rfc3339()}
        store.put(f"{name}/claim.json", to_json(content), _JSON)
        return name


def find_claim(store: ObjectStore, model: str, request_digest: str) -> VersionName | None:
    """The version that was made, or is being made, for an equal request."""
    for number in reversed(version_numbers(store, model)):
        name = VersionName(model, number)
        if read_json(store, f"{name}/claim.json")["request_digest"] == request_digest:
            return name
    return None


def state_of(store: ObjectStore, version: VersionName) -> VersionState:
    """State of a version; RESOURCE_NOT_FOUND when its number was never taken."""
    if store.exists(f"{version}/manifest.json"):
        return VersionState.ACTIVE
    if not store.exists(f"{version}/claim.json"):
        raise not_found(str(version), _LIST_REMEDY)
    failed = store.exists(f"{version}/failure.json")
    return VersionState.FAILED if failed else VersionState.CREATING


def claim_time(store: ObjectStore, version: VersionName) -> str:
    """When the version's number was taken, RFC 3339."""
    return str(read_json(store, f"{version}/claim.json")["create_time"])


def mark_failed(store: ObjectStore, version: VersionName, message: str) -> None:
    """Remember that the making of a version failed or was cancelled."""
    store.put(f"{version}/failure.json", to_json({"message": message}), _JSON)


def failure_of(store: ObjectStore, version: VersionName) -> str:
    """Why the making of a version failed; empty while it has not."""
    key = f"{version}/failure.json"
    return str(read_json(store, key)["message"]) if store.exists(key) else ""


def clear_failure(store: ObjectStore, version: VersionName) -> None:
    """Forget an earlier failure: the version is being made again."""
    store.delete(f"{version}/failure.json")


def require_active(store: ObjectStore, version: VersionName, purpose: str) -> None:
    """Refuse a version that is not finished.

    Parameters
    ----------
    store : ObjectStore
    version : VersionName
    purpose : str
        What cannot be done with it, e.g. ``promoted``.

    Raises
    ------
    GranuloError
        RESOURCE_NOT_READY unless the version is ACTIVE, RESOURCE_NOT_FOUND where it never was.
    """
    state = state_of(store, version)
    if state is VersionState.ACTIVE:
        return
    reason = (
        "its training failed; train again"
        if state is VersionState.FAILED
        else "it is still being trained; wait for its operation"
    )
    raise GranuloError(
        Reason.RESOURCE_NOT_READY,
        f"{version} cannot be {purpose}: {reason}.",
        metadata={"name": str(version), "state": state.value},
    )


def saved_model_objects(manifest: manifests.Manifest) -> list[tuple[str, StoredObject]]:
    """A version's SavedModel files, by their path inside of the version folder."""
    prefix = f"{manifest.resource}/saved_model/"
    found = [
        (stored.key.removeprefix(prefix), stored)
        for stored in manifest.objects
        if stored.key.startswith(prefix)
    ]
    if METADATA_NAME not in {relative for relative, _ in found}:
        raise GranuloError(
            Reason.DIGEST_MISMATCH,
            f"{manifest.resource} holds no {METADATA_NAME}: its export is incomplete. Train again.",
            metadata={"name": manifest.resource},
        )
    return found


def weights_object(manifest: manifests.Manifest) -> StoredObject:
    """The npz of the weights that a finished version was exported from."""
    digest = manifest.facts["weights_digest"]
    found = [item for item in manifest.objects if item.digest == digest]
    if not found:
        raise GranuloError(
            Reason.DIGEST_MISMATCH,
            f"{manifest.resource} does not hold the weights it was exported from. Train again.",
            metadata={"name": manifest.resource},
        )
    return found[0]


def list_checkpoints(store: ObjectStore, version: VersionName) -> list[CheckpointRecord]:
    """Complete checkpoints of a version in the order of epochs, also while it trains."""
    state_of(store, version)
    prefix = f"{version}/checkpoints/"
    keys = sorted(key for key in store.list(prefix) if key.endswith("/figures.json"))
    records = []
    for key in keys:
        content = read_json(store, key)
        records.append(
            CheckpointRecord(
                epoch=int(content["epoch"]),
                figures={name: float(value) for name, value in content["figures"].items()},
                predictions=tuple(StoredObject(**item) for item in content["predictions"]),
                names=tuple(content["names"]),
                create_time=str(content["create_time"]),
            )
        )
    return records


def request_digest(parts: Sequence[bytes]) -> str:
    """Digest of everything that determines a version."""
    joined = hashlib.sha256()
    for part in parts:
        joined.update(len(part).to_bytes(8, "big"))
        joined.update(part)
    return "sha256:" + joined.hexdigest()


def read_json(store: ObjectStore, key: str) -> dict[str, Any]:
    """Content of a small JSON object; a damaged one is DIGEST_MISMATCH."""
    data = store.get(key)
    try:
        content: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise GranuloError(
            Reason.DIGEST_MISMATCH,
            f"the object {key} ({digest_of(data)}) is damaged: {error}. Restore it from a copy.",
            metadata={"key": key},
        ) from error
    return content


def to_json(content: Mapping[str, Any]) -> bytes:
    """Canonical bytes of a small JSON object."""
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
