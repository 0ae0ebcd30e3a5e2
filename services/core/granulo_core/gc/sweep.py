# SPDX-License-Identifier: GPL-3.0-or-later
"""Which objects go, and their removal."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from granulo_core.errors import GranuloError
from granulo_core.gc.marks import RESOURCE_PARTS, Marks, mark, resource_of
from granulo_core.operations.record import State
from granulo_core.store import open_store
from granulo_core.store.port import ListedObject, ObjectStore
from granulo_core.store.tenants import PREFIX, tenant_url

DAY_S = 86400.0


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
    """What may go, and went unless it was a dry run."""
    kept: Tally = field(default_factory=Tally)
    unknown: dict[str, Tally] = field(default_factory=dict)
    """Of folders that Granulo does not write, by name; they are never touched."""
    failed: list[str] = field(default_factory=list)
    """Keys that could not be removed."""


def collect(
    store: ObjectStore,
    rules: Rules,
    *,
    delete: bool,
    tell: Callable[[int], None] = lambda _: None,
) -> Collected:
    """Find garbage in a store and those of its tenants, and remove it where that is wanted.

    Uploads come last, after a second look at what is named: what is named in the meantime stays.

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
        As `mark`: nothing is removed then. What the store says when it is away.
    """
    tenants = list(store.children(PREFIX))
    stores = [store, *(open_store(tenant_url(store.url, tenant)) for tenant in tenants)]
    # All are read before anything goes: a damaged manifest stops it all.
    all_marks = [mark(each) for each in stores]
    found = Collected()
    for each, marks in zip(stores, all_marks, strict=True):
        _sweep(each, marks, rules, found, delete, tell, uploads=False)
        _sweep(each, mark(each), rules, found, delete, tell, uploads=True)
    return found


def _sweep(
    store: ObjectStore,
    marks: Marks,
    rules: Rules,
    found: Collected,
    delete: bool,
    tell: Callable[[int], None],
    *,
    uploads: bool,
) -> None:
    now_s = time.time()
    for item in _objects(store, found, uploads=uploads):
        kind = _kind(item, marks, rules, now_s)
        if kind is None or now_s - item.modified_s < rules.older_than_s:
            found.kept.add(item)
        else:
            found.garbage.setdefault(kind, Tally()).add(item)
            if delete:
                try:
                    store.delete(item.key)
                except GranuloError:
                    found.failed.append(item.key)
        seen = found.kept.objects + sum(each.objects for each in found.garbage.values())
        if seen % 10_000 == 0:
            tell(seen)


def _objects(store: ObjectStore, found: Collected, *, uploads: bool) -> Iterator[ListedObject]:
    for top in store.children(""):
        if (top == "uploads") is not uploads or f"{top}/" == PREFIX:
            continue
        if top in RESOURCE_PARTS or top in _FOLDERS or top == "refs":
            yield from store.scan(f"{top}/")
        else:
            for item in store.scan(f"{top}/"):
                found.unknown.setdefault(top, Tally()).add(item)


def _kind(item: ListedObject, marks: Marks, rules: Rules, now_s: float) -> Kind | None:
    """Why an object is garbage once it is old enough; None for what is needed."""
    top = item.key.split("/", 1)[0]
    if top in _FOLDERS:
        return _FOLDERS[top](item, marks, rules, now_s)
    resource = resource_of(item.key)
    if not resource or resource in marks.resources or resource in marks.targets:
        return None
    # A version of a model is made below the name that its operation has as its target.
    if any(resource.startswith(f"{target}/") for target in marks.targets):
        return None
    return Kind.UNFINISHED


def _upload(item: ListedObject, marks: Marks, _rules: Rules, _now_s: float) -> Kind | None:
    return None if item.key in marks.uploads else Kind.UPLOAD


def _pending(_item: ListedObject, _marks: Marks, _rules: Rules, _now_s: float) -> Kind | None:
    return Kind.PENDING


def _serving(item: ListedObject, marks: Marks, _rules: Rules, _now_s: float) -> Kind | None:
    return None if "/".join(item.key.split("/")[:3]) in marks.served else Kind.SERVING


def _operation(item: ListedObject, marks: Marks, rules: Rules, now_s: float) -> Kind | None:
    parts = item.key.split("/")
    record = marks.operations.get("/".join(parts[:3]))
    if record is None:
        return Kind.UNFINISHED
    if not record.state.done:
        return None
    ended_s = datetime.fromisoformat(record.update_time).timestamp()
    if rules.keep_operations_s is not None and now_s - ended_s > rules.keep_operations_s:
        return Kind.OPERATION
    is_progress = len(parts) > 4 and parts[3] == "progress"
    return Kind.PROGRESS if is_progress and record.state is State.SUCCEEDED else None


_FOLDERS: dict[str, Callable[[ListedObject, Marks, Rules, float], Kind | None]] = {
    "uploads": _upload,
    "pending": _pending,
    "serving": _serving,
    "operations": _operation,
}
