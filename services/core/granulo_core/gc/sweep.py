# SPDX-License-Identifier: GPL-3.0-or-later
"""Which objects go, and their removal."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from granulo_core.errors import GranuloError
from granulo_core.gc.marks import Ended, Marks, look, resource_of
from granulo_core.store import manifest as manifests
from granulo_core.store import open_store
from granulo_core.store.port import ListedObject, ObjectStore
from granulo_core.store.tenants import PREFIX, tenant_url

DAY_S = 86400.0
_BATCH = 200
"""Objects that are removed after one look: a few seconds' worth."""


class Kind(StrEnum):
    """Why an object goes."""

    UNFINISHED = "parts of things that were never finished"
    UPLOAD = "uploads and answers of calls that nothing names"
    PENDING = "presigned uploads that were never taken in"
    SERVING = "serving copies of deleted models"
    PROGRESS = "progress of finished operations"
    OPERATION = "operations beyond their retention"


@dataclass(frozen=True)
class Rules:
    """What may go."""

    older_than_s: float = 7 * DAY_S
    """Younger objects stay, whatever they are: somebody may be about to name them."""
    keep_operations_s: float | None = None
    """Finished operations older than this go; by default none."""


@dataclass
class Tally:
    """Objects of one kind."""

    objects: int = 0
    size_bytes: int = 0
    oldest_s: float = float("inf")
    """In seconds since 1970."""

    def add(self, item: ListedObject) -> None:
        """Count an object."""
        self.objects += 1
        self.size_bytes += item.size_bytes
        self.oldest_s = min(self.oldest_s, item.modified_s)


@dataclass
class Collected:
    """What a collection came to."""

    garbage: dict[Kind, Tally] = field(default_factory=dict)
    """What went, or may go where it was a dry run."""
    kept: Tally = field(default_factory=Tally)
    unknown: dict[str, Tally] = field(default_factory=dict)
    """Of folders that Granulo does not write, by name; they are never touched."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why keys could not be removed."""
    stopped: str = ""
    """Why it ended before all was looked at; empty where it did not."""


def collect(
    store: ObjectStore,
    rules: Rules,
    *,
    delete: bool,
    tell: Callable[[int], None] = lambda _: None,
) -> Collected:
    """Find garbage in a store and those of its tenants, and remove it where that is wanted.

    Before anything is removed it is looked again at what is needed, a few hundred objects at a
    time: what is named or taken up in the meantime stays.

    Parameters
    ----------
    store : ObjectStore
        The root's.
    rules : Rules
    delete : bool
        Otherwise nothing is changed.
    tell : callable
        Told the number of objects that were looked at, now and then.

    Raises
    ------
    GranuloError
        As `look`, before anything is removed; `Collected.stopped` says of later ones.
    """
    tenants = list(store.children(PREFIX))
    stores = [store, *(open_store(tenant_url(store.url, tenant)) for tenant in tenants)]
    found = Collected()
    # All are read before anything goes: a damaged manifest stops it all.
    sweeps = [_Sweep(each, rules, found) for each in stores]
    for sweep in sweeps:
        try:
            sweep.run(delete, tell)
        except GranuloError as error:
            found.stopped = error.message
            break
    return found


class _Sweep:
    """The collection of one store."""

    def __init__(self, store: ObjectStore, rules: Rules, found: Collected) -> None:
        self._store = store
        self._rules = rules
        self._found = found
        self._now_s = time.time()
        self._marks = Marks()
        self._look()

    def run(self, delete: bool, tell: Callable[[int], None]) -> None:
        batch: list[ListedObject] = []
        for number, item in enumerate(self._objects(), start=1):
            if self._kind(item) is None:
                self._found.kept.add(item)
            else:
                batch.append(item)
            if len(batch) == _BATCH:
                self._settle(batch, delete)
                batch = []
            if number % 10_000 == 0:
                tell(number)
        self._settle(batch, delete)

    def _look(self) -> None:
        look(self._store, self._marks, self._is_expired)

    def _settle(self, batch: list[ListedObject], delete: bool) -> None:
        if delete and batch:
            self._look()
        for item in batch:
            kind = self._kind(item)
            if kind is None:
                self._found.kept.add(item)
                continue
            if delete:
                try:
                    self._store.delete(item.key)
                except GranuloError as error:
                    self._found.failed[item.key] = error.message
                    continue
            self._found.garbage.setdefault(kind, Tally()).add(item)

    def _objects(self) -> Iterator[ListedObject]:
        for top in self._store.children(""):
            if f"{top}/" == PREFIX:
                continue
            if top in manifests.COLLECTIONS or top in self._folders or top == "refs":
                yield from self._store.scan(f"{top}/")
            else:
                for item in self._store.scan(f"{top}/"):
                    self._found.unknown.setdefault(top, Tally()).add(item)

    def _kind(self, item: ListedObject) -> Kind | None:
        """Why an object is garbage; None for what is needed or young."""
        if self._now_s - item.modified_s < self._rules.older_than_s:
            return None
        top = item.key.split("/", 1)[0]
        if top in self._folders:
            return self._folders[top](self, item.key)
        resource = resource_of(item.key)
        if not resource or resource in self._marks.resources or resource in self._marks.targets:
            return None
        # A version of a model is made below the name that its operation has as its target.
        if any(resource.startswith(f"{target}/") for target in self._marks.targets):
            return None
        return Kind.UNFINISHED

    def _upload(self, key: str) -> Kind | None:
        return None if key in self._marks.uploads else Kind.UPLOAD

    def _pending(self, _key: str) -> Kind | None:
        return Kind.PENDING

    def _serving(self, key: str) -> Kind | None:
        return None if "/".join(key.split("/")[:3]) in self._marks.served else Kind.SERVING

    def _operation(self, key: str) -> Kind | None:
        parts = key.split("/")
        name = "/".join(parts[:3])
        ended = self._marks.ended.get(name)
        if ended is None:
            return None if name in self._marks.live else Kind.UNFINISHED
        if self._is_expired(ended):
            return Kind.OPERATION
        is_progress = len(parts) > 4 and parts[3] == "progress"
        return Kind.PROGRESS if is_progress and ended.succeeded else None

    def _is_expired(self, ended: Ended) -> bool:
        keep_s = self._rules.keep_operations_s
        return keep_s is not None and self._now_s - ended.ended_s > keep_s

    _folders: ClassVar[Mapping[str, Callable[["_Sweep", str], Kind | None]]] = {
        "uploads": _upload,
        "pending": _pending,
        "serving": _serving,
        "operations": _operation,
    }
