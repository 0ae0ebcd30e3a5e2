# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedded model server as a child process: started at the first call, restarted when it dies.

It answers on a Unix socket in a folder that only this user may enter. Until it is started the
socket is held by this process. TensorFlow takes seconds and half a gigabyte to start, which a
command that only renders or analyses should not pay.
"""

import contextlib
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

_log = structlog.get_logger(__name__)

_POLL_S = 0.25
_STOP_TIMEOUT_S = 5.0
_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 30.0
_HEALTHY_S = 60.0
"""A server that ran for so long is restarted without delay."""


class ModelServer:
    """Keeps a model server running at one address.

    Parameters
    ----------
    folder : Path
        Models in TF Serving's layout, ``<folder>/<model>/<n>/``.
    eager : bool
        Start at once instead of at the first call.
    metrics_listen : str
        ``host:port`` of its metrics; none where empty.
    float32 : bool
        Compute in float32 also where the processor has bfloat16.
    """

    def __init__(
        self, folder: Path, *, eager: bool, metrics_listen: str = "", float32: bool = False
    ) -> None:
        self._folder = folder
        self._eager = eager
        self._metrics_listen = metrics_listen
        self._float32 = float32
        self._stop = threading.Event()
        # Not in the data folder: addresses of sockets have at most 107 characters.
        self._private = Path(tempfile.mkdtemp(prefix="granulo-"))
        self._path = self._private / "model-server"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self._path))
        self._socket.listen(16)
        self.address = f"unix:{self._path}"
        # The child dies with the thread that starts it, so this one lives as long as it may.
        self._thread = threading.Thread(target=self._supervise, name="model-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        shutil.rmtree(self._private, ignore_errors=True)

    def _supervise(self) -> None:
        with self._socket:
            if not self._eager and not self._called():
                return
            self._path.unlink()
        backoff_s = _FIRST_BACKOFF_S
        while not self._stop.is_set():
            started_s = time.monotonic()
            process = self._start()
            while process.poll() is None and not self._stop.wait(_POLL_S):
                pass
            if self._stop.is_set():
                _end(process)
                return
            if time.monotonic() - started_s > _HEALTHY_S:
                backoff_s = _FIRST_BACKOFF_S
            _log.warning("model server ended", code=process.returncode, again_in_s=backoff_s)
            self._stop.wait(backoff_s)
            backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)

    def _called(self) -> bool:
        """Wait until somebody connects; false where the end comes first."""
        while not self._stop.is_set():
            if select.select([self._socket], [], [], _POLL_S)[0]:
                # Accepted and closed, so that the caller notices and tries again.
                with contextlib.suppress(OSError):
                    self._socket.accept()[0].close()
                return True
        return False

    def _start(self) -> "subprocess.Popen[bytes]":
        _log.info("starting the model server", address=self.address)
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "granulo_segmenter.predictor.embedded",
                "--listen",
                self.address,
                "--base",
                str(self._folder),
                *(["--metrics-listen", self._metrics_listen] if self._metrics_listen else []),
                *(["--float32"] if self._float32 else []),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
