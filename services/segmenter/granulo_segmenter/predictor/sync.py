# SPDX-License-Identifier: GPL-3.0-or-later
"""Model sync: promoted versions from the object store into the model server's folder.

``python -m granulo_segmenter.predictor.sync`` is the same as a process, the sidecar of TensorFlow
Serving: see docs/operations/serving.md.
"""

import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from granulo_core.errors import GranuloError
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore
from granulo_core.store.tenants import PREFIX, tenant_url
from granulo_segmenter.predictor import placing, versions

CONFIG_FILE = "models.config"
"""What TensorFlow Serving reads by ``--model_config_file``."""
_LONGEST_BACKOFF_S = 60.0
_TOUCH_S = 30.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Keeping:
    """Which versions stay after another was promoted, for images and jobs that began with them."""

    older: int = 2
    """So many stay in any case."""
    for_s: float = 900.0
    """And all that were promoted so recently."""


@dataclass(frozen=True)
class SyncReport:
    """What one round did."""

    added: tuple[str, ...] = ()
    """``<model>/<version>``"""
    removed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    """What could not be copied, and why."""


@dataclass
class _Backoff:
    """When something that failed is tried again."""

    interval_s: float
    tries: int = 0
    due_s: float = 0.0
    trouble: str = ""

    def fail(self, trouble: str) -> None:
        """Take note of a failure."""
        self.tries += 1
        self.trouble = trouble
        self.due_s = time.monotonic() + self.pause_s

    @property
    def pause_s(self) -> float:
        """Doubles with every failure, and differs from one sync to the next."""
        # Never shorter than the interval that was asked for, however long that is.
        longest_s = max(_LONGEST_BACKOFF_S, self.interval_s)
        growing_s = self.interval_s * 2.0 ** min(self.tries, 16)
        return min(growing_s, longest_s) * random.uniform(0.7, 1.0)


@dataclass(frozen=True)
class _Wanted:
    """A version that must be in its place."""

    name: str
    """``<model>/<version>``, with the model's name on the server"""
    files: Callable[[], dict[str, str]]
    """Digest by relative path."""
    fill: Callable[[Path], object]
    """Writes the files into a folder."""


@dataclass
class ModelSync:
    """Keeps a model server's folder up to date with a store.

    Parameters
    ----------
    store : ObjectStore
    root : Path
        The model server's base folder; made when missing.
    packaged : Path, optional
        SavedModel folder of the network that comes with Granulo. It is always served: jobs that
        began with it before a ``models/default`` was promoted end with it, and a probe has a model
        to ask for that is there in every installation.
    keeping : Keeping
    serving_root : str
        Where the model server sees ``root``: `CONFIG_FILE` is written with it. Empty: none is.
    interval_s : float
        Pause between rounds, from which pauses after failures grow.
    """

    store: ObjectStore
    root: Path
    packaged: Path | None = None
    keeping: Keeping = field(default_factory=Keeping)
    serving_root: str = ""
    interval_s: float = 1.0
    _verifier: placing.Verifier = field(default_factory=placing.Verifier)
    _packaged_digests: dict[str, str] = field(default_factory=dict)
    _troubles: dict[str, _Backoff] = field(default_factory=dict)
    _tenants: dict[str, ObjectStore] = field(default_factory=dict)

    def round(self) -> SyncReport:
        """Bring the folder up to date once.

        Returns
        -------
        SyncReport
            A version that cannot be copied is reported, keeps what is there, does not stop the
            others, and is tried again later and later.

        Raises
        ------
        GranuloError, OSError
            The store does not answer or the folder cannot be written; nothing is lost by it.
        """
        added: list[str] = []
        removed: list[str] = []
        wanted: list[_Wanted] = []
        damaged: list[str] = []
        for store in self._stores():
            references, faults = versions.promoted(store)
            wanted += [_promoted(store, reference) for reference in references]
            damaged += faults
        if self.packaged is not None and (self.packaged / versions.METADATA).is_file():
            wanted.append(self._standing_in(self.packaged))
        names = {version.name for version in wanted}
        self._troubles = {name: it for name, it in self._troubles.items() if name in names}
        with placing.owned(self.root):
            for version in wanted:
                self._update(version, added, removed)
            if self.serving_root:
                config = serving_config(self.root, self.serving_root)
                placing.write_whole(self.root / CONFIG_FILE, config)
        failed = [f"{name}: {backoff.trouble}" for name, backoff in self._troubles.items()]
        return SyncReport(tuple(added), tuple(removed), (*damaged, *failed))

    def run(
        self, stop: threading.Event, told: Callable[[SyncReport], object] | None = None
    ) -> None:
        """Go round and round until ``stop`` is set; troubles are logged once each.

        Parameters
        ----------
        stop : threading.Event
        told : callable, optional
            Is given the report of every round.
        """
        known: set[str] = set()
        outage = _Backoff(self.interval_s)
        while True:
            try:
                report = self.round()
                outage = _Backoff(self.interval_s)
            except (GranuloError, OSError) as error:
                outage.fail(str(error))
                report = SyncReport(failed=(str(error),))
            for item in report.added:
                _log.info("model synced", model=item)
            for item in report.removed:
                _log.info("model removed", model=item)
            for trouble in set(report.failed) - known:
                _log.warning("model not synced", trouble=trouble)
            known = set(report.failed)
            if told is not None:
                told(report)
            if stop.wait(outage.pause_s if outage.tries else self.interval_s):
                return

    def _update(self, version: _Wanted, added: list[str], removed: list[str]) -> None:
        """Have one version in its place, whole, and older ones removed."""
        backoff = self._troubles.get(version.name) or _Backoff(self.interval_s)
        if backoff.tries and time.monotonic() < backoff.due_s:
            return
        target = self.root / version.name
        try:
            if not self._verifier.is_whole(target, version.files()):
                if target.exists():
                    _log.warning("served version damaged, copied again", model=version.name)
                placing.place(self.root, target, version.fill)
                added.append(version.name)
            self._touch(target)
            removed += self._remove_older(target)
        except (GranuloError, OSError) as error:
            backoff.fail(str(error))
            self._troubles[version.name] = backoff
            return
        self._troubles.pop(version.name, None)

    def _touch(self, target: Path) -> None:
        """The folder's time is when its version was the promoted one for the last time.

        Nearly: a disk should not be written to every second for it.
        """
        if time.time() - target.stat().st_mtime >= min(_TOUCH_S, self.keeping.for_s / 10):
            os.utime(target)

    def _remove_older(self, serving: Path) -> list[str]:
        others = [
            (item.stat().st_mtime, item)
            for item in serving.parent.iterdir()
            if item.name.isdecimal() and item != serving
        ]
        others.sort(reverse=True)
        removed = []
        for time_s, item in others[self.keeping.older :]:
            if time.time() - time_s >= self.keeping.for_s:
                placing.remove(self.root, item)
                removed.append(f"{item.parent.name}/{item.name}")
        return removed

    def _stores(self) -> list[ObjectStore]:
        """The root and the stores of its tenants, whose models stand beside one another."""
        for tenant in self.store.children(PREFIX):
            if tenant not in self._tenants:
                self._tenants[tenant] = open_store(tenant_url(self.store.url, tenant))
        return [self.store, *self._tenants.values()]

    def _standing_in(self, packaged: Path) -> _Wanted:
        return _Wanted(
            f"{versions.PACKAGED}/{versions.packaged_version(packaged)}",
            self._files_of_packaged,
            lambda folder: shutil.copytree(packaged, folder, dirs_exist_ok=True),
        )

    def _files_of_packaged(self) -> dict[str, str]:
        if not self._packaged_digests and self.packaged is not None:
            self._packaged_digests = placing.digests_of(self.packaged)
        return self._packaged_digests


def sync_once(
    store: ObjectStore, root: Path, packaged: Path | None = None, keeping: Keeping | None = None
) -> SyncReport:
    """One round of a `ModelSync` of its own."""
    return ModelSync(store, root, packaged, keeping or Keeping()).round()


def serving_config(root: Path, serving_root: str) -> str:
    """TensorFlow Serving's ``ModelServerConfig`` for the models in a folder, as text.

    All versions there are served, because images go on with the one that they began with; the
    default policy would serve the highest number alone, and a rollback could not be served at all.
    Models without a version are left out: a server that reloads its configuration waits for all.
    """
    lines = ["model_config_list {"]
    for folder in sorted(root.iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        if any(item.name.isdecimal() for item in folder.iterdir()):
            lines += [
                "  config {",
                f'    name: "{folder.name}"',
                f'    base_path: "{serving_root.rstrip("/")}/{folder.name}"',
                '    model_platform: "tensorflow"',
                "    model_version_policy { all {} }",
                "  }",
            ]
    return "\n".join([*lines, "}"]) + "\n"


def _promoted(store: ObjectStore, reference: versions.Promoted) -> _Wanted:
    served = reference.served
    return _Wanted(
        f"{served.server_name}/{served.version}",
        lambda: _files(reference),
        lambda folder: _fetch(store, reference, folder),
    )


def _prefix(reference: versions.Promoted) -> str:
    return f"serving/{reference.served.name}/{reference.served.version}/"


def _files(reference: versions.Promoted) -> dict[str, str]:
    prefix = _prefix(reference)
    return {versions.relative_key(key, prefix): digest for key, digest in reference.objects}


def _fetch(store: ObjectStore, reference: versions.Promoted, folder: Path) -> None:
    prefix = _prefix(reference)
    for name, digest in _files(reference).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(prefix + name, path, digest)


if __name__ == "__main__":
    from granulo_segmenter.predictor.sidecar import main

    raise SystemExit(main())
