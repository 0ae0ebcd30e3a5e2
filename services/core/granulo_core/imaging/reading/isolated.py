# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading in a process of its own: what a hostile file does to a decoder, it does there.

Decoders are native code. One that crashes, hangs or takes all memory ends or is ended alone, and
the caller gets a refusal of the file. Engine workers may read directly: losing one is what the
engine is made for.
"""

import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from pebble import ProcessExpired, ProcessPool

from granulo_core.errors import GranuloError, Reason
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.read import DEFAULT_MAX_PX, Micrograph, read_micrograph

_FILES_PER_PROCESS = 500
_BYTES_PER_PX = 16
_ROOM_BYTES = 1 << 30
_WATCH_S = 1.0
_LOOK_S = 0.1
"""How often a file that is being read is asked about."""

T = TypeVar("T")


class Read(Protocol):
    """Calls ``function(data, name=name, **options)``, here or in another process."""

    def __call__(
        self, function: Callable[..., T], data: bytes | Path, *, name: str, **options: Any
    ) -> T:
        """Answer what ``function`` does, or raise what it raises."""


def read_here(function: Callable[..., T], data: bytes | Path, *, name: str, **options: Any) -> T:
    """Read in this process, which may be lost: the `Read` of the engine's workers."""
    return function(data, name=name, **options)


class IsolatedReader:
    """Reads files in child processes, which start with the first file.

    Parameters
    ----------
    max_px : int
        Largest accepted number of pixels; a child's memory is bounded by it.
    processes : int
        Files that are read at the same time; further ones wait.
    timeout_s : float
        A file that takes longer is refused, and its process killed.
    """

    def __init__(
        self, *, max_px: int = DEFAULT_MAX_PX, processes: int = 1, timeout_s: float = 120.0
    ) -> None:
        self._max_px = max_px
        self._processes = processes
        self._timeout_s = timeout_s
        self._making = threading.Lock()
        self._pool: ProcessPool | None = None

    def read(
        self,
        data: bytes | Path,
        *,
        name: str | None = None,
        page: int = 0,
        pixel_size: PixelSize | None = None,
    ) -> Micrograph:
        """Read an image file as `granulo_core.imaging.read.read_micrograph` does.

        Raises
        ------
        GranuloError
            What `read_micrograph` and `run` raise.
        """
        name = name or (data.name if isinstance(data, Path) else "the image")
        return self.run(
            read_micrograph, data, name=name, max_px=self._max_px, page=page, pixel_size=pixel_size
        )

    def run(
        self,
        function: Callable[..., T],
        data: bytes | Path,
        *,
        name: str,
        check: Callable[[], None] = lambda: None,
        **options: Any,
    ) -> T:
        """Call ``function(data, name=name, **options)`` in a child.

        Parameters
        ----------
        function : callable
            Of a module, so that the child can import it.
        data : bytes or Path
            Large files better as a path: bytes are sent to the child.
        name : str
            What the user calls the file, for messages.
        check : callable
            Raises where nobody waits for the answer any more; what reads is killed then.

        Raises
        ------
        GranuloError
            What ``function`` and ``check`` raise; IMAGE_UNREADABLE, with the metadata ``cause``,
            where the reader crashed (``crash``), took too long (``timeout``) or wanted more memory
            than an image of ``max_px`` needs (``memory``).
        """
        options["name"] = name
        try:
            try:
                return self._once(function, data, options, check)
            except BrokenProcessPool:
                # A child that ends while it reads nothing breaks the pool for what comes next.
                return self._once(function, data, options, check)
        except FutureTimeoutError as error:
            raise _refusal(
                name, f"was not decoded within {self._timeout_s:g} s", "timeout"
            ) from error
        except (ProcessExpired, BrokenProcessPool) as error:
            raise _refusal(name, "made its decoder crash", "crash") from error
        except MemoryError as error:
            raise _refusal(name, "needs far more memory than its pixels", "memory") from error

    def close(self) -> None:
        """End the child processes."""
        with self._making:
            pool, self._pool = self._pool, None
        if pool is not None:
            _end(pool)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _once(
        self,
        function: Callable[..., T],
        data: bytes | Path,
        options: dict[str, Any],
        check: Callable[[], None],
    ) -> T:
        future = self._started().schedule(
            function, args=[data], kwargs=options, timeout=self._timeout_s
        )
        try:
            check()
            while not wait([future], timeout=_LOOK_S).done:
                check()
        except BaseException:
            future.cancel()  # type: ignore[no-untyped-call]
            raise
        found: T = future.result()
        return found

    def _started(self) -> ProcessPool:
        with self._making:
            if self._pool is not None and not self._pool.active:
                _end(self._pool)
                self._pool = None
            if self._pool is None:
                self._pool = ProcessPool(
                    max_workers=self._processes,
                    max_tasks=_FILES_PER_PROCESS,
                    initializer=_prepare,
                    initargs=[os.getpid(), self._max_px * _BYTES_PER_PX + _ROOM_BYTES],
                    # A forked child would inherit the threads' locks of gRPC.
                    context=multiprocessing.get_context("spawn"),
                )
            return self._pool


def _end(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()


def _refusal(name: str, problem: str, cause: str) -> GranuloError:
    return GranuloError(
        Reason.IMAGE_UNREADABLE,
        f"{name} {problem}; it is damaged, or no micrograph. Export it again as TIFF or PNG.",
        metadata={"image": name, "cause": cause},
    )


def _prepare(parent: int, room_bytes: int) -> None:
    """Bound the memory of a child, and end it with its parent."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room_bytes, used + room_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()


def _end_with(parent: int) -> Any:
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(1)
