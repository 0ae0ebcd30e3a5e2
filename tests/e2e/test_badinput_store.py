# SPDX-License-Identifier: GPL-3.0-or-later
"""Data folders that cannot be used: one clear sentence, exit code 2, nothing lost."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

GRANULO = str(Path(sys.executable).parent / "granulo")
RENDER = ["render", "sio2", "--count", "1", "--seed", "3", "--size", "64"]
# The right to read, not to write, what belongs to others: the interpreter may lie in root's home.
UNPRIVILEGED = [
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="granulo-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def unprivileged() -> list[str]:
    """Beginning of a command that runs as a user without special rights."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("running as another user needs setpriv (Debian: util-linux)")
    tried = subprocess.run([*UNPRIVILEGED, sys.executable, "-c", ""], capture_output=True)
    if tried.returncode != 0:
        pytest.skip(f"running as another user is not allowed here: {tried.stderr.decode()}")
    return UNPRIVILEGED


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "granulo-test", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk needs the right to mount: {mounted.stderr.strip()}")
    yield disk
    # Lazily: a worker process may still be ending in it.
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def granulo(
    arguments: Sequence[str], *, prefix: Sequence[str] = (), home: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, GRANULO, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=home,
        env={**os.environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
    )


def assert_refused(run: subprocess.CompletedProcess[str], *words: str) -> None:
    assert run.returncode == 2, f"exit code {run.returncode}\n{run.stdout}\n{run.stderr}"
    text = " ".join(run.stderr.split())  # the terminal may have wrapped the sentence
    for word in words:
        assert word in text, f"{word!r} is not in: {run.stderr}"
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


@contextmanager
def running_standalone(data: Path, home: Path) -> Iterator[None]:
    """A standalone that started while the disk had space."""
    command = [GRANULO, "up", "--data", str(data), "--listen", "127.0.0.1:0"]
    with (home / "up.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=home)
    try:
        deadline = time.monotonic() + 90
        while not (data / "standalone.lock").is_file() or not read_address(data):
            assert process.poll() is None, (home / "up.log").read_text()
            assert time.monotonic() < deadline, "the standalone did not start"
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(60)


def read_address(data: Path) -> str:
    try:
        return str(json.loads((data / "standalone.lock").read_text())["address"])
    except (ValueError, KeyError):
        return ""


def fill(disk: Path, leaving_bytes: int) -> Path:
    filler = disk / "filler"
    filler.write_bytes(b"")
    with filler.open("wb", buffering=0) as file:
        free = shutil.disk_usage(disk).free
        for _ in range((free - leaving_bytes) // 4096):
            file.write(b"x" * 4096)
    return filler


@pytest.mark.parametrize("command", [RENDER, ["up", "--listen", "127.0.0.1:0"]])
def test_a_data_folder_without_write_permission_is_refused(
    folder: Path, unprivileged: list[str], command: list[str]
) -> None:
    data = folder / "data"
    data.mkdir()
    data.chmod(0o555)
    run = granulo([*command, "--data", str(data)], prefix=unprivileged, home=folder)
    data.chmod(0o755)
    assert_refused(run, str(data), "Permission denied", "--data")
    assert list(data.iterdir()) == []


def test_a_data_folder_that_cannot_be_made_is_refused(
    folder: Path, unprivileged: list[str]
) -> None:
    folder.chmod(0o555)
    run = granulo([*RENDER, "--data", str(folder / "new")], prefix=unprivileged, home=folder)
    folder.chmod(0o755)
    assert_refused(run, str(folder / "new"), "Permission denied", "--data")


def test_a_data_folder_that_is_a_file_is_refused(folder: Path) -> None:
    (folder / "file").write_text("precious")
    run = granulo([*RENDER, "--data", str(folder / "file")], home=folder)
    assert_refused(run, str(folder / "file"))
    assert (folder / "file").read_text() == "precious"


def test_a_full_disk_is_refused_before_any_work(small_disk: Path, folder: Path) -> None:
    fill(small_disk, 0)
    run = granulo([*RENDER, "--data", str(small_disk / "data")], home=folder)
    assert_refused(run, str(small_disk), "full", "Free some space", "--data")


def test_a_disk_that_fills_up_during_the_work_loses_nothing(small_disk: Path, folder: Path) -> None:
    data = small_disk / "data"
    more = ["render", "sio2", "--count", "1", "--seed", "4", "--size", "256", "--data", str(data)]
    with running_standalone(data, folder):
        first = granulo([*RENDER, "--data", str(data), "--quiet"], home=folder)
        assert first.returncode == 0, first.stderr
        objects = {
            path: (path.stat().st_mtime_ns, path.read_bytes())
            for path in (data / "store" / "datasets").rglob("*")
            if path.is_file()
        }
        assert objects
        filler = fill(small_disk, 64 << 10)  # enough to accept the job, not for its images
        full = granulo(more, home=folder)
        assert full.returncode in (1, 2), full.stderr
        assert "No space is left" in " ".join(full.stderr.split())
        assert "Free space" in " ".join(full.stderr.split())
        for path, (mtime_ns, content) in objects.items():
            assert (path.stat().st_mtime_ns, path.read_bytes()) == (mtime_ns, content)
        filler.unlink()
        again = granulo(more, home=folder)
        assert again.returncode == 0, again.stderr
    assert len(list((data / "store" / "datasets").glob("*/manifest.json"))) == 2


def test_a_port_in_use_is_refused(folder: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        run = granulo(["up", "--data", str(folder / "data"), "--listen", address], home=folder)
    assert_refused(run, address)
