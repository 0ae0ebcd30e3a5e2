# SPDX-License-Identifier: GPL-3.0-or-later
"""The data folder: who owns it, who uses it, and whether it can be worked in."""

import errno
import fcntl
import json
import os
import time
from pathlib import Path
from typing import IO

from granulo_core.errors import GranuloError, Reason

LOCK_NAME = "standalone.lock"
USERS_NAME = "standalone.users"

_SPARE_BYTES = 8 * 1024 * 1024
"""Less free space than this cannot hold even the record of an operation and a small result."""
_LOCK_PATIENCE_S = 2.0
_MAX_LOG_BYTES = 16 * 1024 * 1024


class DataFolder:
    """A data folder that this process owns from `open` to its end.

    ``standalone.lock`` is locked exclusively by the owner and holds its address. Commands that use
    a standalone lock ``standalone.users`` shared.
    """

    def __init__(self, path: Path, lock: IO[str], users: IO[str]) -> None:
        self.path = path
        self._lock = lock
        self._users = users

    @classmethod
    def open(cls, path: Path) -> "DataFolder":
        """Make the folder where it is missing, and own it.

        Raises
        ------
        GranuloError
            STORE_NOT_WRITABLE, STORE_FULL, or RESOURCE_EXISTS where another standalone owns it.
        """
        try:
            for folder in (path / "store", path / "model-server", path / "logs"):
                folder.mkdir(parents=True, exist_ok=True)
                _probe(folder)
            lock = (path / LOCK_NAME).open("a+")
            users = (path / USERS_NAME).open("a")
        except OSError as error:
            raise _unusable(path, error) from error
        _take(lock, path)
        try:
            _check_space(path / "store")
        except OSError as error:
            lock.close()
            raise _unusable(path, error) from error
        return cls(path, lock, users)

    def publish(self, address: str, *, ephemeral: bool, tls: bool) -> None:
        """Tell commands on this folder where and how to connect."""
        content = {"address": address, "pid": os.getpid(), "ephemeral": ephemeral, "tls": tls}
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(json.dumps(content) + "\n")
        self._lock.flush()

    def has_users(self) -> bool:
        """Whether a command uses this folder; once not, new ones wait for this process' end."""
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False

    def open_log(self) -> IO[str]:
        """The log file, to append to; a long one of earlier runs is put aside first."""
        log = self.path / "logs" / "standalone.log"
        if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        return log.open("a")

    def close(self) -> None:
        """Give the folder up."""
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.close()
        self._users.close()


def _take(lock: IO[str], path: Path) -> None:
    # Commands look whether the lock is held by taking it for a moment: so try for a while.
    deadline_s = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline_s:
                time.sleep(0.02)
                continue
            lock.seek(0)
            said = lock.read()
            lock.close()
            raise GranuloError(
                Reason.RESOURCE_EXISTS,
                f"Granulo already runs on {path}{_owner(said)}. Commands with --data {path} join "
                "it; to start another one, choose another data folder.",
            ) from None
        # What an owner that was killed left behind would be read as this one's address.
        lock.seek(0)
        lock.truncate()
        return


def _owner(said: str) -> str:
    try:
        content = json.loads(said)
        return f" at {content['address']} (process {content['pid']})"
    except (ValueError, KeyError):
        return ""


def _probe(folder: Path) -> None:
    probe = folder / f".probe-{os.getpid()}"
    probe.write_bytes(b"granulo")
    probe.unlink()


def _check_space(folder: Path) -> None:
    space = os.statvfs(folder)
    if space.f_bavail * space.f_frsize < _SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unusable(path: Path, error: OSError) -> GranuloError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return GranuloError(
            Reason.STORE_FULL,
            f"The disk of the data folder {path} is full; Granulo needs at least "
            f"{_SPARE_BYTES // 2**20} MiB there. Free some space, or choose another folder "
            "with --data.",
        )
    return GranuloError(
        Reason.STORE_NOT_WRITABLE,
        f"The data folder {path} cannot be used: {error.strerror}. Choose a folder that you may "
        "write with --data.",
    )
