# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions in a model server's folder: whole or not at all, whenever the writer is killed.

A version is filled in a hidden folder beside the models, flushed to the disk, and takes its place
by one rename; it leaves the same way. Servers look at folders with a number as their name only.
"""

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_LOCK = ".sync.lock"

Identity = tuple[int, int, int]
"""Inode, size and time of change of a file."""


@contextmanager
def owned(root: Path) -> Iterator[None]:
    """Be the only one who changes a folder during the block; what a killed one left is removed.

    The kernel gives the lock back when its holder dies, however it dies.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for item in root.glob(".*ing-*"):
            shutil.rmtree(item, ignore_errors=True)
        yield


def place(root: Path, target: Path, fill: Callable[[Path], object]) -> None:
    """Fill a hidden folder and rename it to ``target``; what is there already is replaced.

    Parameters
    ----------
    root : Path
        Owned by the caller, on the same file system as ``target``.
    target : Path
    fill : callable
        Writes the files into the folder that it is given.
    """
    incoming = root / f".incoming-{uuid.uuid4().hex}"
    incoming.mkdir()
    try:
        fill(incoming)
        _flush(incoming)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            remove(root, target)
        incoming.rename(target)
    except BaseException:
        shutil.rmtree(incoming, ignore_errors=True)
        raise
    _flush_folder(target.parent)


def remove(root: Path, target: Path) -> None:
    """Take a version out of sight by one rename, then delete it."""
    hidden = root / f".outgoing-{uuid.uuid4().hex}"
    target.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a small file atomically; one that is the same already is left alone."""
    if path.is_file() and path.read_text() == text:
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_text(text)
    _flush_file(temporary)
    temporary.replace(path)


def digests_of(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder, by its relative path."""
    return {
        str(path.relative_to(folder)): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Verifier:
    """Tells whether a placed version is whole; reads files again only when they have changed."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[Identity, str]] = {}

    def is_whole(self, folder: Path, digests: Mapping[str, str]) -> bool:
        """Whether every file is there with its digest.

        Parameters
        ----------
        folder : Path
        digests : mapping of str to str
            By relative path.
        """
        return all(self._is(folder / name, digest) for name, digest in digests.items())

    def _is(self, path: Path, digest: str) -> bool:
        try:
            status = path.stat()
            identity = (status.st_ino, status.st_size, status.st_mtime_ns)
            if path not in self._seen or self._seen[path][0] != identity:
                self._seen[path] = identity, _digest(path)
        except OSError:
            self._seen.pop(path, None)
            return False
        return self._seen[path][1] == digest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _flush(folder: Path) -> None:
    """Bytes first, names second: after a power failure a name stands for all of its bytes."""
    for path in folder.rglob("*"):
        if path.is_file():
            _flush_file(path)
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            _flush_folder(path)


def _flush_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
