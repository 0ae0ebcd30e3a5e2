# SPDX-License-Identifier: Apache-2.0
"""A folder that an instrument fills: its files, each once, when they are whole."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from granulo_client.truth import MICROGRAPH_ENDINGS, is_micrograph

_Mark = tuple[int, int]
"""Size and time of the last change."""


class WatchedFolder:
    """Micrographs of a folder, by the time of their last change.

    A file is taken when its size and time stay the same from one look to the next, and once only,
    even where it is written again. Names that begin with a dot and folders are left alone.

    Parameters
    ----------
    folder : Path
    settle_s : float
        Pause between looks.
    on_trouble : callable
        Told once that the folder cannot be read, until it can again: a share may be away for a
        while.
    """

    def __init__(self, folder: Path, settle_s: float, on_trouble: Callable[[str], None]) -> None:
        self._folder = folder
        self._settle_s = settle_s
        self._on_trouble = on_trouble
        self._stop = threading.Event()
        self._taken: set[str] = set()
        self._is_away = False

    def stop(self) -> None:
        """Let the iteration end."""
        self._stop.set()

    def __iter__(self) -> Iterator[Path]:
        """Yield files until `stop`, as they come."""
        before: dict[Path, _Mark] = {}
        while not self._stop.is_set():
            now = self._look()
            for path in sorted(now, key=lambda item: (now[item][1], item)):
                if before.get(path) == now[path]:
                    self._taken.add(path.name)
                    yield path
            before = now
            self._stop.wait(self._settle_s)

    def _look(self) -> dict[Path, _Mark]:
        found = {}
        try:
            for path in self._folder.iterdir():
                if path.name in self._taken or not is_micrograph(path, MICROGRAPH_ENDINGS):
                    continue
                try:
                    status = path.stat()
                except OSError:
                    continue  # gone between the two
                if status.st_size and not path.name.startswith("."):
                    found[path] = (status.st_size, status.st_mtime_ns)
        except OSError as error:
            if not self._is_away:
                self._on_trouble(f"{self._folder} cannot be read ({error.strerror}); waiting.")
            self._is_away = True
            return {}
        self._is_away = False
        return found
