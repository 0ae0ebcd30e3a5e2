# SPDX-License-Identifier: GPL-3.0-or-later
"""Which version of a model is served: promotion, and the way back.

``refs/models/<model>.json`` is the only mutable pointer. It names the served version with its files
and, in ``history``, what was served before, the latest last. Pointers without a history are those
of before there was one.
"""

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import structlog

from granulo_core.errors import GranuloError, Reason
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore, StoredObject
from granulo_trainer.registry import (
    VersionName,
    read_json,
    require_active,
    saved_model_objects,
    to_json,
)

_log = structlog.get_logger(__name__)
_JSON = "application/json"
_KEPT = ("version", "manifest_digest", "update_time")
"""What of a pointer goes into the history."""
# The trainer's store has one live owner: a lock in this process is enough.
_pointing = Lock()


def serving_version(store: ObjectStore, model: str) -> VersionName | None:
    """The promoted version of a model."""
    pointer = _pointer(store, model)
    return VersionName(model, int(pointer["version"])) if pointer else None


def promote(store: ObjectStore, version: VersionName) -> None:
    """Copy a version to ``serving/`` and point the model's reference at it.

    Promoting what is served already copies it again and leaves the history alone.

    Raises
    ------
    GranuloError
        RESOURCE_NOT_READY (FAILED_PRECONDITION) unless the version is ACTIVE, DIGEST_MISMATCH for a
        damaged one.
    """
    with _pointing:
        require_active(store, version, "promoted")
        pointer = _pointer_or_none(store, version.model)
        history = _history(pointer)
        if pointer and int(pointer["version"]) != version.number:
            history = [*history, {name: pointer.get(name, "") for name in _KEPT}]
        _serve(store, version, history)


def roll_back(store: ObjectStore, model: str) -> VersionName:
    """Serve again what was served before; once more goes further back.

    Returns
    -------
    VersionName
        What is served now.

    Raises
    ------
    GranuloError
        NO_EARLIER_VERSION (FAILED_PRECONDITION) where nothing was served before; RESOURCE_NOT_FOUND
        or DIGEST_MISMATCH where that version is gone or damaged: then nothing changes.
    """
    with _pointing:
        history = _history(_pointer(store, model))
        if not history:
            raise GranuloError(
                Reason.NO_EARLIER_VERSION,
                f"models/{model} served nothing before that it could go back to. Promote the "
                f"version that you want: `granulo models promote {model}/VERSION`.",
                metadata={"name": f"models/{model}"},
            )
        *earlier, last = history
        version = VersionName(model, int(last["version"]))
        _serve(store, version, earlier, str(last["manifest_digest"]))
        return version


def _serve(
    store: ObjectStore,
    version: VersionName,
    history: Sequence[Mapping[str, Any]],
    manifest_digest: str = "",
) -> None:
    manifest = manifests.load(store, str(version), manifest_digest or None)
    prefix = f"serving/{version.model}/{version.number}"
    served = [
        _copy(store, stored, f"{prefix}/{relative}")
        for relative, stored in saved_model_objects(manifest)
    ]
    # The pointer is written last: whoever reads it finds every object that it names.
    pointer = {
        "model": f"models/{version.model}",
        "version": version.number,
        "manifest_digest": manifests.manifest_artifact(store, str(version)).digest,
        "objects": [
            {"key": item.key, "digest": item.digest, "size_bytes": item.size_bytes}
            for item in served
        ],
        "update_time": manifests.now_rfc3339(),
        "history": list(history),
    }
    store.put(_key(version.model), to_json(pointer), _JSON)


def _copy(store: ObjectStore, stored: StoredObject, key: str) -> StoredObject:
    """Copy an object whose bytes are what the manifest says; an equal copy stays untouched."""
    data = store.get(stored.key, stored.digest)
    if store.exists(key) and store.get(key) == data:
        return StoredObject(key, stored.digest, stored.size_bytes, stored.media_type)
    return store.put(key, data, stored.media_type)


def _pointer(store: ObjectStore, model: str) -> dict[str, Any] | None:
    key = _key(model)
    return read_json(store, key) if store.exists(key) else None


def _pointer_or_none(store: ObjectStore, model: str) -> dict[str, Any] | None:
    """Promoting is the way out of a damaged pointer, whose history is lost."""
    try:
        return _pointer(store, model)
    except GranuloError as error:
        if error.reason is not Reason.DIGEST_MISMATCH:
            raise
        _log.warning("pointer replaced, its history is lost", model=model, message=error.message)
        return None


def _history(pointer: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return list(pointer.get("history", [])) if pointer else []


def _key(model: str) -> str:
    return f"refs/models/{model}.json"
