# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests: written last, never changed; a thing exists if and only if its manifest does."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from granulo_core.errors import GranuloError, Reason, not_found
from granulo_core.store.local import check_digest
from granulo_core.store.port import ObjectStore, StoredObject, digest_of

FORMAT = 1
_NAME = "manifest.json"
_MEDIA_TYPE = "application/json"
COLLECTIONS: Mapping[str, int] = {
    "annotated": 2,
    "analyses": 2,
    "comparisons": 2,
    "cross-validations": 2,
    "datasets": 2,
    "models": 4,
    "segmentations": 2,
}
"""Folders of resources, with the number of parts of their names: ``models/<id>/versions/<n>``."""
_RECORDED_PACKAGES = (
    "bpy",
    "grpcio",
    "keras",
    "numpy",
    "opencv-python-headless",
    "protobuf",
    "scikit-image",
    "scipy",
    "tensorflow",
    "tensorflow-cpu",
    "tifffile",
)


def now_rfc3339() -> str:
    """Present time in UTC, to the millisecond, e.g. ``2026-11-05T12:34:56.789Z``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class ManifestInput:
    """A resource or artifact from which another was made."""

    name: str
    """Resource name, e.g. ``datasets/ds-3f9a1c02b7e4``, or the object key of an upload."""
    digest: str
    """Digest of its manifest, or of the object."""


@dataclass(frozen=True)
class Producer:
    """What made a resource, as far as another run needs to know it."""

    service: str
    version: str
    packages: Mapping[str, str]
    """Installed versions of the packages on which results depend."""
    git_revision: str
    """Empty where the source is no checkout and ``GRANULO_GIT_REVISION`` is not set."""
    seed: int


@dataclass(frozen=True)
class Manifest:
    """Everything about a resource except the bytes of its objects."""

    resource: str
    """Resource name; also the prefix of its objects, e.g. ``datasets/ds-3f9a1c02b7e4``."""
    kind: str
    """What it is, e.g. ``Dataset``."""
    objects: tuple[StoredObject, ...]
    inputs: tuple[ManifestInput, ...]
    producer: Producer
    request: Mapping[str, Any]
    """The whole request in the JSON form of its message."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Small results: counts, metrics."""
    create_time: str = field(default_factory=now_rfc3339)

    def object(self, name: str) -> StoredObject:
        """Find an object by its key, or by its key below the resource.

        Raises
        ------
        GranuloError
            RESOURCE_NOT_FOUND where the manifest lists no such object.
        """
        keys = (name, f"{self.resource}/{name}")
        for stored in self.objects:
            if stored.key in keys:
                return stored
        raise not_found(name, f"The manifest of {self.resource} lists no such object.")


def commit(store: ObjectStore, prefix: str, manifest: Manifest) -> StoredObject:
    """Make a resource exist.

    Parameters
    ----------
    store : ObjectStore
    prefix : str
        Prefix of the resource's objects without a slash at its end.
    manifest : Manifest
        Its objects must be in the store already.

    Returns
    -------
    StoredObject
        The manifest object. One that exists is left as it is: manifests never change, and a
        repeated commit is the resumed end of the same work.

    Raises
    ------
    GranuloError
        STORE_UNAVAILABLE where objects are gone that an earlier attempt had made, as after a
        collection of garbage: whoever tries again makes them again.
    """
    key = _key(prefix)
    if store.exists(key):
        return manifest_artifact(store, prefix)
    own = {stored.key for stored in manifest.objects if stored.key.startswith(f"{prefix}/")}
    if own and (gone := own.difference(store.list(f"{prefix}/"))):
        raise GranuloError(
            Reason.STORE_UNAVAILABLE,
            f"{len(gone)} objects of {prefix} are gone from the store, e.g. {min(gone)}; the same "
            "request makes them again.",
            metadata={"name": prefix},
        )
    return store.put(key, to_json(manifest), _MEDIA_TYPE)


def load(store: ObjectStore, prefix: str, expected_digest: str | None = None) -> Manifest:
    """Read the manifest of a resource.

    Raises
    ------
    GranuloError
        RESOURCE_NOT_FOUND where there is none, DIGEST_MISMATCH where it is damaged or is another
        than ``expected_digest`` says.
    """
    try:
        data = store.get(_key(prefix), expected_digest)
    except GranuloError as error:
        raise _named(error, prefix) from error
    return from_json(data, prefix)


def manifest_artifact(store: ObjectStore, prefix: str) -> StoredObject:
    """Describe the manifest object of a resource; RESOURCE_NOT_FOUND where there is none."""
    try:
        data = store.get(_key(prefix))
    except GranuloError as error:
        raise _named(error, prefix) from error
    return StoredObject(_key(prefix), digest_of(data), len(data), _MEDIA_TYPE)


def verify(store: ObjectStore, manifest: Manifest) -> None:
    """Read every object of a resource and compare it with the manifest.

    Raises
    ------
    GranuloError
        RESOURCE_NOT_FOUND for a missing object, DIGEST_MISMATCH for a changed one.
    """
    for stored in manifest.objects:
        verify_object(store, stored.key, stored.digest)


def verify_object(store: ObjectStore, key: str, digest: str) -> None:
    """Read an object and compare it with a digest; raises as `verify`."""
    sha256 = hashlib.sha256()
    for chunk in store.read_chunks(key):
        sha256.update(chunk)
    check_digest(f"object {key}", "sha256:" + sha256.hexdigest(), digest)


def list_resources(store: ObjectStore, collection: str) -> Iterator[str]:
    """Yield the names of the resources of a collection that exist, in lexicographic order.

    Parameters
    ----------
    store : ObjectStore
    collection : str
        E.g. ``datasets`` or ``models/default/versions``.
    """
    for identifier in store.children(f"{collection}/"):
        name = f"{collection}/{identifier}"
        if store.exists(_key(name)):
            yield name


def all_resources(store: ObjectStore) -> Iterator[str]:
    """Yield the names of all resources that exist; those of tenants are in stores of their own."""
    for top in sorted(COLLECTIONS):
        yield from _resources_below(store, top, COLLECTIONS[top] - 1)


def referrers(store: ObjectStore, resource: str) -> list[str]:
    """Names of the resources that were made from ``resource``, in lexicographic order."""
    return sorted(
        name
        for name in all_resources(store)
        if any(source.name == resource for source in load(store, name).inputs)
    )


def refuse_referenced(store: ObjectStore, resource: str) -> None:
    """Raise RESOURCE_REFERENCED where other resources were made from ``resource``."""
    names = referrers(store, resource)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise GranuloError(
            Reason.RESOURCE_REFERENCED,
            f"{resource} cannot be deleted: {', '.join(names[:3])}{more} were made from it. "
            "Delete those first.",
            metadata={"name": resource, "referrers": ",".join(names[:20])},
        )


def delete_resource(store: ObjectStore, resource: str) -> None:
    """Remove a resource: its manifest first, so that no reader meets a half of it.

    Raises
    ------
    GranuloError
        RESOURCE_NOT_FOUND where it does not exist, RESOURCE_REFERENCED where others need it.
    """
    if not store.exists(_key(resource)):
        raise not_found(resource, "List the collection to see the names that exist.")
    refuse_referenced(store, resource)
    store.delete(_key(resource))
    for key in list(store.list(f"{resource}/")):
        store.delete(key)


def to_json(manifest: Manifest) -> bytes:
    """Canonical bytes of a manifest: sorted names, no spaces, UTF-8; equal ones are identical."""
    content = {"format": FORMAT, **asdict(manifest)}
    text = json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def from_json(data: bytes, prefix: str) -> Manifest:
    """Read what `to_json` wrote; ``prefix`` names it in errors.

    Raises
    ------
    GranuloError
        DIGEST_MISMATCH where the bytes are no manifest, RESOURCE_NOT_READY where a newer Granulo
        wrote it.
    """
    try:
        content = json.loads(data)
        if content.pop("format") != FORMAT:
            raise GranuloError(
                Reason.RESOURCE_NOT_READY,
                f"{prefix} was written by a newer Granulo whose manifests this one cannot read. "
                "Update Granulo.",
                metadata={"name": prefix},
            )
        content["objects"] = tuple(StoredObject(**item) for item in content["objects"])
        content["inputs"] = tuple(ManifestInput(**item) for item in content["inputs"])
        content["producer"] = Producer(**content["producer"])
        return Manifest(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise GranuloError(
            Reason.DIGEST_MISMATCH,
            f"The manifest of {prefix} is damaged ({error}). Restore it from a copy, or remove the "
            "folder and make the resource again.",
            metadata={"name": prefix},
        ) from error


def content_id(prefix: str, *parts: bytes | str) -> str:
    """Make an input-addressed id: equal parts give equal ids, e.g. ``ds-3f9a1c02b7e4``.

    Parameters
    ----------
    prefix : str
        Short name of the kind, e.g. ``ds``.
    *parts : bytes or str
        What the result depends on, in a fixed order; text counts as its UTF-8 bytes.
    """
    sha256 = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        # The length keeps ("ab", "c") and ("a", "bc") apart.
        sha256.update(len(data).to_bytes(8, "big"))
        sha256.update(data)
    return f"{prefix}-{sha256.hexdigest()[:12]}"


def producer(service: str, seed: int) -> Producer:
    """Describe this installation as the maker of a resource."""
    return Producer(
        service=service,
        version=_version("granulo-core"),
        packages={name: found for name in _RECORDED_PACKAGES if (found := _version(name))},
        git_revision=_git_revision(),
        seed=seed,
    )


def _key(prefix: str) -> str:
    return f"{prefix}/{_NAME}"


def _named(error: GranuloError, prefix: str) -> GranuloError:
    if error.reason is Reason.RESOURCE_NOT_FOUND:
        return not_found(prefix, "List the collection to see the names that exist.")
    return error


def _resources_below(store: ObjectStore, prefix: str, levels: int) -> Iterator[str]:
    for name in store.children(f"{prefix}/"):
        path = f"{prefix}/{name}"
        if levels > 1:
            yield from _resources_below(store, path, levels - 1)
        elif store.exists(_key(path)):
            yield path


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


@cache
def _git_revision() -> str:
    if revision := os.environ.get("GRANULO_GIT_REVISION"):
        return revision
    folder = Path(__file__).resolve().parent
    # An installed package may lie in a checkout of something else: ask only for our own tree.
    if not any(
        (parent / ".git").exists() and (parent / "protos").exists() for parent in folder.parents
    ):
        return ""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
