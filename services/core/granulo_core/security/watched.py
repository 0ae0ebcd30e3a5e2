# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are read again when they change: rotation needs no restart."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from granulo_core.errors import GranuloError

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class Watched(Generic[T]):
    """What some files say, up to date.

    Parameters
    ----------
    paths : sequence of str
        Files; links are followed, so that Kubernetes' swap of a mounted folder counts as a change.
    parse : callable
        Reads them; raises `GranuloError` where they are unusable.

    Raises
    ------
    GranuloError
        What ``parse`` raises at first. Later the old value stays, and the log says why: files that
        belong together are rarely replaced in one step.
    """

    def __init__(self, paths: Sequence[str], parse: Callable[[], T]) -> None:
        self._paths = [Path(path) for path in paths]
        self._parse = parse
        self._lock = threading.Lock()
        self._stamp = self._look()
        self._value = parse()

    def get(self) -> T:
        """The files' content as it is now; costs one ``stat`` for each where nothing changed."""
        with self._lock:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._value = self._parse()
                    _log.info("files read again", paths=[str(path) for path in self._paths])
                except GranuloError as error:
                    _log.error("changed files unusable; the old ones stay in use",
                               message=error.message)  # fmt: skip
            return self._value

    def _look(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
