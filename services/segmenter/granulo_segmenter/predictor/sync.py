# SPDX-License-Identifier: GPL-3.0-or-later
"""Model sync: promoted versions from the object store into the model server's folder.

A version appears there by one rename of a complete, verified folder, so that no server ever sees
half a model. ``python -m granulo_segmenter.predictor.sync`` is the same as a process (a sidecar).
"""

import argparse
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from granulo_core.errors import GranuloError
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore
from granulo_segmenter.predictor import versions

_KEPT_OLDER = 2
"""Versions that stay after another was promoted, for jobs that have begun with them."""
_STALE_S = 3600.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class SyncReport:
    """What one round did."""

    added: tuple[str, ...] = ()
    """``<model>/<version>``"""
    removed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    """What could not be copied, and why."""


def sync_once(store: ObjectStore, root: Path, packaged: Path | None = None) -> SyncReport:
    """Bring the folder up to date with the store.

    Parameters
    ----------
    store : ObjectStore
    root : Path
        The model server's base folder; made when missing.
    packaged : Path, optional
        SavedModel folder that is served while no ``models/default`` is promoted.

    Returns
    -------
    SyncReport
        A version that cannot be copied is reported and does not stop the others.
    """
    root.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(root)
    added, removed, failed = [], [], []
    references = versions.promoted(store)
    for reference in references:
        target = root / reference.model / str(reference.version)
        if not target.exists():
            try:
                _fetch(store, reference, target)
            except (GranuloError, OSError) as error:
                failed.append(f"{reference.model}/{reference.version}: {error}")
                continue
            added.append(f"{reference.model}/{reference.version}")
        removed += _remove_older(root / reference.model, reference.version)
    stands_in = not any(reference.model == versions.DEFAULT for reference in references)
    if packaged is not None and stands_in and (packaged / versions.METADATA).is_file():
        version = versions.packaged_version(packaged)
        target = root / versions.PACKAGED / str(version)
        if not target.exists():
            _place(target, lambda folder: shutil.copytree(packaged, folder, dirs_exist_ok=True))
            added.append(f"{versions.PACKAGED}/{version}")
        removed += _remove_older(root / versions.PACKAGED, version)
    return SyncReport(tuple(added), tuple(removed), tuple(failed))


def run_sync(
    store: ObjectStore,
    root: Path,
    stop: threading.Event,
    *,
    packaged: Path | None = None,
    interval_s: float = 1.0,
) -> None:
    """Sync again and again until ``stop`` is set; troubles are logged once each."""
    known: set[str] = set()
    while True:
        try:
            report = sync_once(store, root, packaged)
        except (GranuloError, OSError) as error:
            report = SyncReport(failed=(str(error),))
        for item in report.added:
            _log.info("model synced", model=item)
        for trouble in set(report.failed) - known:
            _log.warning("model not synced", trouble=trouble)
        known = set(report.failed)
        if stop.wait(interval_s):
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a sidecar until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m granulo_segmenter.predictor.sync",
        description="Copy promoted model versions from the object store for a model server.",
    )
    parser.add_argument("--store", required=True, help="url of the object store")
    parser.add_argument("--root", required=True, type=Path, help="the model server's base folder")
    parser.add_argument("--interval-s", type=float, default=5.0)
    parser.add_argument("--once", action="store_true", help="one round, then end")
    options = parser.parse_args(arguments)
    store = open_store(options.store)
    packaged = versions.packaged_folder()
    if options.once:
        return 1 if sync_once(store, options.root, packaged).failed else 0
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run_sync(store, options.root, stop, packaged=packaged, interval_s=options.interval_s)
    return 0


def _fetch(store: ObjectStore, reference: versions.Promoted, target: Path) -> None:
    prefix = f"serving/{reference.model}/{reference.version}/"

    def fill(folder: Path) -> None:
        for key, digest in reference.objects:
            path = folder / versions.relative_key(key, prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(key, path, digest)

    _place(target, fill)


def _place(target: Path, fill: "versions.Fill") -> None:
    """Fill a hidden folder beside the models, then rename it into its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    incoming = target.parent.parent / f".incoming-{uuid.uuid4().hex}"
    incoming.mkdir()
    try:
        fill(incoming)
        incoming.rename(target)
    except BaseException:
        shutil.rmtree(incoming, ignore_errors=True)
        # Another sync was faster: the same version, complete as well.
        if not target.exists():
            raise


def _remove_older(folder: Path, serving: int) -> list[str]:
    others = [item for item in folder.iterdir() if item.name.isdecimal()]
    others = [item for item in others if int(item.name) != serving]
    others.sort(key=lambda item: item.stat().st_mtime, reverse=True)
    removed = []
    for item in others[_KEPT_OLDER:]:
        hidden = folder.parent / f".outgoing-{uuid.uuid4().hex}"
        item.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
        removed.append(f"{folder.name}/{item.name}")
    return removed


def _remove_leftovers(root: Path) -> None:
    """Folders that a killed sync left behind; young ones may belong to a running one."""
    for item in root.glob(".*ing-*"):
        if time.time() - item.stat().st_mtime > _STALE_S:
            shutil.rmtree(item, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
