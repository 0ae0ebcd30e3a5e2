# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of the model sync in the middle of a copy: a model server never sees half a version."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from granulo_core.store import LocalStore, digest_of, open_store

FILES = 6
FILE_BYTES = 4 << 20


def promote(store: LocalStore, version: int) -> dict[str, str]:
    """A version of 24 MiB; its digests by relative path."""
    digests, objects = {}, []
    for index in range(FILES):
        name = "saved_model.pb" if index == 0 else f"variables/part-{index}"
        data = bytes([version, index]) * (FILE_BYTES // 2)
        stored = store.put(f"serving/default/{version}/{name}", data, "x/y")
        digests[name] = stored.digest
        objects.append({"key": stored.key, "digest": stored.digest})
    reference = json.dumps({"version": version, "objects": objects}).encode()
    store.put("refs/models/default.json", reference, "application/json")
    return digests


def start(store: str, root: Path, *more: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "granulo_segmenter.predictor.sync", "--store", store, "--root",
         str(root), "--interval-s", "0.05", *more],
        stderr=subprocess.DEVNULL, env={**os.environ, "GRANULO_SYNC_KEEP_FOR_S": "0"},
    )  # fmt: skip


def assert_only_whole_versions(root: Path, wanted: dict[int, dict[str, str]]) -> None:
    """Everything that a model server would load is complete."""
    for folder in root.glob("default/*"):
        found = {
            str(path.relative_to(folder)): digest_of(path.read_bytes())
            for path in folder.rglob("*")
            if path.is_file()
        }
        assert found == wanted[int(folder.name)], folder


@pytest.mark.parametrize("files_before", [0, 3])
def test_whatever_the_moment_of_the_kill_only_whole_versions_are_seen(
    local_store: LocalStore, tmp_path: Path, files_before: int
) -> None:
    root = tmp_path / "root"
    wanted = {1: promote(local_store, 1)}
    if files_before == 0:
        # One run before: later there is a version that must stay.
        assert start(local_store.url, root, "--once").wait(120) == 0
        wanted[2] = promote(local_store, 2)
    process = start(local_store.url, root)
    end_s = time.monotonic() + 120
    # Killed when so many files of the copy are there, or it is in its place already.
    while True:
        # A file may get its name, or the folder its place, between two looks.
        with suppress(FileNotFoundError):
            copies = list(root.glob(".incoming-*"))
            count = sum(path.is_file() for copy in copies for path in copy.rglob("*"))
            if copies and count >= files_before:
                break
        if (root / "default" / str(max(wanted))).exists():
            break
        assert time.monotonic() < end_s
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert_only_whole_versions(root, wanted)
    if files_before == 0:
        assert (root / "default" / "1").exists()
    # The next one finishes the work and leaves nothing behind.
    assert start(open_store(local_store.url).url, root, "--once").wait(120) == 0
    assert (root / "default" / str(max(wanted))).exists()
    assert_only_whole_versions(root, wanted)
    assert not list(root.glob(".*ing-*"))
