# SPDX-License-Identifier: GPL-3.0-or-later
"""Receipts: what a task says it stored, as proof that its work need not be done again."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from granulo_core.errors import GranuloError, Reason
from granulo_core.store.port import ObjectStore, StoredObject


@dataclass(frozen=True)
class Receipt:
    """Result of a task: the objects it stored and a few small figures."""

    objects: tuple[StoredObject, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON values only."""

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        content = {"objects": [asdict(item) for item in self.objects], "facts": dict(self.facts)}
        return json.dumps(content, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Receipt":
        """Read what `to_bytes` wrote.

        Raises
        ------
        GranuloError
            DIGEST_MISMATCH when the bytes are no receipt.
        """
        try:
            content = json.loads(data)
            objects = tuple(StoredObject(**item) for item in content["objects"])
            return cls(objects=objects, facts=content["facts"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise GranuloError(
                Reason.DIGEST_MISMATCH, f"A stored shard receipt cannot be read: {error}"
            ) from error

    def verifies(self, store: ObjectStore) -> bool:
        """Whether every object is in the store with the digest that the receipt names."""
        try:
            return all(store.stat(item.key).digest == item.digest for item in self.objects)
        except GranuloError as error:
            if error.reason is Reason.RESOURCE_NOT_FOUND:
                return False
            raise
