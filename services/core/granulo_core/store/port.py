# SPDX-License-Identifier: GPL-3.0-or-later
"""The object store as the rest of Granulo sees it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True)
class StoredObject:
    """What a store knows of one object after writing or reading it."""

    key: str
    """Store-relative key with forward slashes, e.g. ``datasets/ds-3f9a/images/000001.tif``."""
    digest: str
    """``sha256:<64 hex>`` of the content."""
    size_bytes: int
    media_type: str


@dataclass(frozen=True)
class ListedObject:
    """What a store tells of an object without reading it."""

    key: str
    size_bytes: int
    modified_s: float
    """When it was written, in seconds since 1970 by the store's clock."""


class ObjectStore(Protocol):
    """Flat keys to immutable-by-convention bytes; one conformance suite for every adapter.

    Keys match ``[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*``, no part begins with a dot or has more than
    200 characters, and no key has more than 700; others raise FIELD_INVALID. An object is no
    folder: ``a`` and ``a/b`` must not exist together. An empty media type is derived from the key.
    A reader never sees a half-written object. Missing keys raise RESOURCE_NOT_FOUND; a full disk
    STORE_FULL; missing rights STORE_NOT_WRITABLE; a store that does not answer STORE_UNAVAILABLE.
    """

    @property
    def url(self) -> str:
        """Address from which `open_store` makes an equal store in another process."""

    def put(self, key: str, data: bytes, media_type: str = "") -> StoredObject:
        """Write (or replace) an object atomically and durably."""

    def put_file(self, key: str, path: Path, media_type: str = "") -> StoredObject:
        """Like `put`, from a file, without holding it in memory."""

    def get(self, key: str, expected_digest: str | None = None) -> bytes:
        """Read an object; bytes that differ from ``expected_digest`` raise DIGEST_MISMATCH."""

    def get_file(self, key: str, path: Path, expected_digest: str | None = None) -> None:
        """Like `get`, into a file (written atomically)."""

    def read_chunks(self, key: str, offset: int = 0, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        """Stream an object from ``offset`` on."""

    def stat(self, key: str) -> StoredObject:
        """Describe an object (the digest may be computed by reading it).

        The media type is the one that `media_type_of` derives from the key where the store keeps
        none; manifests and receipts carry the declared one.
        """

    def exists(self, key: str) -> bool:
        """Tell whether an object exists, without reading it."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield all keys that start with ``prefix`` in lexicographic order."""

    def children(self, prefix: str) -> Iterator[str]:
        """Yield the names of the folders directly below ``prefix`` (``datasets/``) in order.

        Costs as much as there are names, not as there are objects. ``prefix`` is empty or ends
        with a slash.
        """

    def scan(self, prefix: str) -> Iterator[ListedObject]:
        """Like `list`, with the size and age of each object."""

    def delete(self, key: str) -> None:
        """Remove an object; removing a missing one is no error."""

    def presigned(
        self, verb: Literal["GET", "PUT"], key: str, expires_s: int, endpoint: str
    ) -> str:
        """URL at which anybody may do this to one object for a while.

        Parameters
        ----------
        verb : str
        key : str
            Need not exist.
        expires_s : int
        endpoint : str
            ``https://host`` of the store as who gets the URL reaches it.

        Returns
        -------
        str
            Empty where the store has no such thing. It is a secret until it expires.
        """

    def check_writable(self) -> None:
        """Write and remove a probe, to raise at start-up what the first `put` would raise."""


def digest_of(data: bytes) -> str:
    """Digest of bytes in the form that manifests and artifacts carry."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
