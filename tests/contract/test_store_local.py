# SPDX-License-Identifier: GPL-3.0-or-later
"""What the folder store owes beyond the conformance suite: crashes, rights, full disks, links."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from granulo_core.errors import GranuloError, Reason
from granulo_core.store import LocalStore, digest_of, open_store

NOBODY = 65534

FIFO_WRITER = """
import sys
from pathlib import Path
from granulo_core.store import open_store
open_store(sys.argv[1]).put_file("a/b", Path(sys.argv[2]))
"""

# All is imported before the rights are dropped: nobody may not read the interpreter's folder.
UNPRIVILEGED = """
import encodings.idna, os, sys
from granulo_core.errors import GranuloError
from granulo_core.store import open_store
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    store = open_store(sys.argv[1])
    print("read", store.get("a/b").decode())
    for call in (store.check_writable, lambda: store.put("a/c", b"1"), lambda: store.delete("a/b")):
        try:
            call()
            print("done")
        except GranuloError as error:
            print(error.reason, "|", error.message)
except GranuloError as error:
    print(error.reason, "|", error.message)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="granulo-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "granulo-test", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("a small disk needs the mount command")
    if mounted.returncode != 0:
        pytest.skip(f"a small disk needs the right to mount: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def start_half_write(store: LocalStore, tmp_path: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a process that has written half of an object and waits for the rest."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = subprocess.Popen([sys.executable, "-c", FIFO_WRITER, store.url, str(fifo)])
    pipe = os.open(fifo, os.O_WRONLY)
    written = 0
    while written < 3 << 20:
        written += os.write(pipe, b"x" * 65_536)
    deadline = time.monotonic() + 20
    while not any(path.stat().st_size for path in (store.root / ".tmp").glob("*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return writer, pipe


def test_a_half_written_object_of_a_killed_process_is_never_seen_and_is_cleaned_up(
    local_store: LocalStore, tmp_path: Path
) -> None:
    old = local_store.put("a/b", b"old")
    writer, pipe = start_half_write(local_store, tmp_path)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    os.close(pipe)
    assert list(local_store.list("")) == ["a/b"]
    assert local_store.get("a/b", old.digest) == b"old"
    assert len(list((local_store.root / ".tmp").iterdir())) == 1
    open_store(local_store.url)
    assert list((local_store.root / ".tmp").iterdir()) == []


def test_opening_the_store_leaves_the_unfinished_write_of_a_living_process_alone(
    local_store: LocalStore, tmp_path: Path
) -> None:
    writer, pipe = start_half_write(local_store, tmp_path)
    open_store(local_store.url)
    assert not local_store.exists("a/b")
    os.close(pipe)
    assert writer.wait(30) == 0
    content = local_store.get("a/b")
    assert len(content) >= 3 << 20
    assert set(content) == {ord("x")}


@pytest.mark.parametrize("linked", ["a", "a/b", "a/b/file"])
def test_symbolic_links_inside_the_store_are_refused(
    local_store: LocalStore, tmp_path: Path, linked: str
) -> None:
    outside = tmp_path / "outside"
    (outside / "b").mkdir(parents=True)
    for name in ("file", "b/file"):
        (outside / name).write_bytes(b"secret")
    link = local_store.root / linked
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside / "file" if linked.endswith("file") else outside)
    for call in (
        lambda: local_store.get("a/b/file"),
        lambda: local_store.exists("a/b/file"),
        lambda: local_store.put("a/b/file", b"other"),
        lambda: local_store.delete("a/b/file"),
    ):
        with pytest.raises(GranuloError, match="symbolic link"):
            call()
    assert list(local_store.list("")) == []
    assert (outside / "file").read_bytes() == b"secret"


def test_a_store_may_itself_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = open_store(str(tmp_path / "link"))
    store.put("a/b", b"1")
    assert (tmp_path / "real" / "a" / "b").read_bytes() == b"1"


def test_hidden_files_of_users_and_systems_are_no_objects(local_store: LocalStore) -> None:
    local_store.put("a/b", b"1")
    (local_store.root / "a" / ".nfs0001").write_bytes(b"")
    (local_store.root / ".Trash").mkdir()
    (local_store.root / ".Trash" / "x").write_bytes(b"")
    assert list(local_store.list("")) == ["a/b"]
    assert list(local_store.children("")) == ["a"]


def test_an_object_is_no_folder(local_store: LocalStore) -> None:
    local_store.put("a/b", b"1")
    for key in ("a", "a/b/c"):
        with pytest.raises(GranuloError) as caught:
            local_store.put(key, b"2")
        assert caught.value.reason is Reason.FIELD_INVALID
    assert local_store.get("a/b") == b"1"


def test_a_folder_that_is_left_empty_goes_with_its_last_object(local_store: LocalStore) -> None:
    local_store.put("a/b/c/d", b"1")
    local_store.delete("a/b/c/d")
    assert [path.name for path in local_store.root.iterdir() if path.name != ".tmp"] == []


def unprivileged(url: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd="/",
    )
    return run.stdout.splitlines()


def test_a_folder_without_write_permission_can_be_read_and_says_so(open_folder: Path) -> None:
    store = LocalStore(open_folder / "store")
    store.put("a/b", b"content")
    for folder in (store.root, store.root / "a", store.root / ".tmp"):
        folder.chmod(0o555)
    try:
        lines = unprivileged(store.url)
    finally:
        for folder in (store.root, store.root / "a", store.root / ".tmp"):
            folder.chmod(0o755)
    assert lines[0] == "read content"
    assert len(lines) == 4
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    for line in lines[1:]:
        assert line.startswith("STORE_NOT_WRITABLE | ")
        assert f"{open_folder}/store" in line
        assert f"user id {user}" in line
        assert "choose another data folder" in line


def test_a_folder_that_cannot_be_made_says_so(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    (line,) = unprivileged((open_folder / "store").as_uri())
    open_folder.chmod(0o755)
    assert line.startswith(f"STORE_NOT_WRITABLE | {open_folder}/store cannot be written")


def test_a_data_folder_that_is_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(GranuloError, match="file"):
        open_store(str(tmp_path / "file"))


def test_a_full_disk_is_reported_and_loses_nothing(small_disk: Path) -> None:
    store = LocalStore(small_disk / "store")
    old = store.put("a/b", b"x" * 500_000)
    with pytest.raises(GranuloError) as caught:
        store.put("a/b", b"y" * 900_000)
    assert caught.value.reason is Reason.STORE_FULL
    assert caught.value.code.name == "RESOURCE_EXHAUSTED"
    assert str(small_disk) in caught.value.message
    assert "Free space" in caught.value.message
    assert store.get("a/b", old.digest) == b"x" * 500_000
    assert list((store.root / ".tmp").iterdir()) == []
    small = store.put("a/c", b"z" * 1000)  # the failed write's space is free again
    assert store.get("a/c", small.digest) == b"z" * 1000


def test_a_full_disk_is_noticed_by_the_probe(small_disk: Path) -> None:
    store = LocalStore(small_disk / "store")
    filler = small_disk / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
    except OSError:
        pass
    with pytest.raises(GranuloError) as caught:
        store.check_writable()
    assert caught.value.reason is Reason.STORE_FULL
    filler.unlink()
    store.check_writable()


def test_damage_on_the_disk_is_found_by_the_digest(local_store: LocalStore) -> None:
    stored = local_store.put("a/b", b"content")
    (local_store.root / "a" / "b").write_bytes(b"c0ntent")
    with pytest.raises(GranuloError) as caught:
        local_store.get("a/b", stored.digest)
    assert caught.value.metadata == {"expected": stored.digest, "actual": digest_of(b"c0ntent")}
