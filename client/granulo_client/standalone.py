# SPDX-License-Identifier: Apache-2.0
"""The standalone of a data folder: joined where it runs, started where it does not.

Two files in the data folder arrange this. ``standalone.lock`` is locked exclusively by the running
standalone and holds its address. ``standalone.users`` is locked shared by every command that uses
it; a standalone that was started by a command stops once nobody holds that lock any more.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Self

from granulo_client.errors import GranuloClientError, UnavailableError, UsageError
from granulo_client.security import Security

LOCK_NAME = "standalone.lock"
USERS_NAME = "standalone.users"
LOG_NAME = "logs/standalone.log"

_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.05
_USAGE_EXIT = 2


def default_data_dir() -> Path:
    """``GRANULO_DATA``, else ``$XDG_DATA_HOME/granulo``, else ``~/.local/share/granulo``."""
    if named := os.environ.get("GRANULO_DATA"):
        return Path(named)
    base = os.environ.get("XDG_DATA_HOME")
    try:
        return (Path(base) if base else Path.home() / ".local" / "share") / "granulo"
    except RuntimeError:
        raise UsageError("This user has no home folder; name a data folder with --data.") from None


@dataclass(frozen=True)
class RunningStandalone:
    """What the lock file of a running standalone says."""

    address: str
    pid: int
    ephemeral: bool
    """Started for a command's duration."""
    tls: bool = False


class Standalone:
    """Use of the standalone on one data folder, by this process.

    Made by `join`; `leave` ends the use.
    """

    def __init__(
        self,
        data: Path,
        running: RunningStandalone,
        users: IO[str],
        process: "subprocess.Popen[str] | None",
    ) -> None:
        self.data = data
        self.address = running.address
        self.started_here = process is not None
        self.ephemeral = running.ephemeral
        self._tls = running.tls
        self._pid = running.pid
        self._users = users
        self._process = process

    @classmethod
    def join(cls, data: Path, on_start: Callable[[], object] = lambda: None) -> Self:
        """Use the standalone of a data folder; start one where none runs.

        Parameters
        ----------
        data : Path
            Data folder; made where it is missing.
        on_start : callable
            Called once before a standalone is started, which takes some seconds.

        Raises
        ------
        UsageError
            The folder cannot be used.
        GranuloClientError
            The standalone did not start.
        """
        data = data.expanduser().absolute()
        users = _open_users(data)
        try:
            deadline_s = time.monotonic() + _START_TIMEOUT_S
            process: subprocess.Popen[str] | None = None
            while time.monotonic() < deadline_s:
                running = read_lock(data)
                if running is not None:
                    mine = process if process and process.pid == running.pid else None
                    return cls(data, running, users, mine)
                if _is_locked(data):  # it is starting
                    time.sleep(_POLL_S)
                    continue
                if process is None:
                    on_start()
                process = _start(data)
            raise UnavailableError(
                f"The standalone on {data} did not get ready; {data / LOG_NAME} says why."
            )
        except BaseException:
            users.close()
            raise

    def alive(self) -> bool:
        """Whether the standalone still runs."""
        if self._process is not None:
            return self._process.poll() is None
        return _is_locked(self.data)

    def security(self, given: Security) -> Security:
        """How to call it: it says itself whether it speaks TLS.

        Raises
        ------
        UsageError
            It does, and no authority is given.
        """
        if not self._tls:
            return replace(given, tls_ca=None, client_cert=None, client_key=None)
        if not given.is_encrypted:
            raise UsageError(
                f"Granulo on {self.data} speaks TLS: give the authority of its certificate with "
                "--tls-ca FILE."
            )
        return given

    def leave(self) -> None:
        """End the use; the last one to leave stops a standalone that a command started."""
        if self._users.closed:
            return
        try:
            if self.ephemeral and self._is_last() and self.alive():
                os.kill(self._pid, signal.SIGTERM)
                self._wait_for_end()
        except ProcessLookupError:
            pass
        finally:
            self._users.close()

    def _is_last(self) -> bool:
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _wait_for_end(self) -> None:
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        while self.alive():
            if time.monotonic() > deadline_s:
                os.kill(self._pid, signal.SIGKILL)
                break
            time.sleep(_POLL_S)
        if self._process is not None:
            self._process.wait()


def read_lock(data: Path) -> RunningStandalone | None:
    """What the running standalone of a data folder says; ``None`` where none is ready."""
    path = data / LOCK_NAME
    if not _is_locked(data):
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        return RunningStandalone(
            content["address"],
            int(content["pid"]),
            bool(content["ephemeral"]),
            bool(content.get("tls", False)),
        )
    except (OSError, ValueError, KeyError):
        return None  # locked, and still being written


def command(data: Path, arguments: Sequence[str]) -> list[str]:
    """Command line of a standalone on a data folder."""
    return [sys.executable, "-m", "granulo_standalone", "--data", str(data), *arguments]


def _open_users(data: Path) -> IO[str]:
    try:
        data.mkdir(parents=True, exist_ok=True)
        users = (data / USERS_NAME).open("a")
    except OSError as error:
        raise UsageError(
            f"The data folder {data} cannot be used: {error.strerror}. "
            "Choose a folder that you may write with --data, or free some space.",
            reason="STORE_FULL" if error.errno == 28 else "STORE_NOT_WRITABLE",
        ) from error
    # Waits while a standalone that has lost its last user is stopping.
    deadline_s = time.monotonic() + _STOP_TIMEOUT_S
    while True:
        try:
            fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return users
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                users.close()
                raise UnavailableError(
                    f"The standalone on {data} does not stop; end it and try again."
                ) from None
            time.sleep(_POLL_S)


def _is_locked(data: Path) -> bool:
    try:
        with (data / LOCK_NAME).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        raise UsageError(f"{data / LOCK_NAME} cannot be read: {error.strerror}.") from error
    return False


def _start(data: Path) -> "subprocess.Popen[str]":
    """Start a standalone and wait until it is ready or has ended; two at once are no error."""
    process = subprocess.Popen(
        command(data, ["--ephemeral", "--announce"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C on the terminal is for the command, which then stops the standalone gracefully.
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
    except BaseException:
        process.terminate()
        raise
    if line:
        process.stdout.close()
        process.stderr.close()
        return process
    said = process.stderr.read().strip()
    code = process.wait()
    process.stdout.close()
    process.stderr.close()
    if _is_locked(data):
        return process  # another command was quicker; its standalone is joined
    message = said.splitlines()[-1] if said else f"it ended with code {code}"
    if code == _USAGE_EXIT:
        raise UsageError(message, reason="STANDALONE_REFUSED")
    raise GranuloClientError(
        f"The standalone did not start: {message} ({data / LOG_NAME} may say more)."
    )
