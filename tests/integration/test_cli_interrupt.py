# SPDX-License-Identifier: GPL-3.0-or-later
"""Ctrl-C during a command, and what can be done with the operation afterwards."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from granulo_client.standalone import read_lock

_GRANULO = Path(sys.executable).with_name("granulo")


def test_an_interrupted_command_leaves_a_resumable_operation_that_can_be_cancelled(
    data_dir: Path,
) -> None:
    command = subprocess.Popen(
        [_GRANULO, "render", "sio2", "--count", "500", "--size", "64", "--data", data_dir],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and the test run may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline_s = time.monotonic() + 200
    while not list((data_dir / "store").glob("operations/render/*/shards/*.json")):
        assert command.poll() is None, command.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.05)

    command.send_signal(signal.SIGINT)
    printed, said = command.communicate(timeout=60)

    assert command.returncode == 130
    assert printed == ""
    assert "the same command again continues" in said
    assert "Traceback" not in said
    assert read_lock(data_dir) is None, "the command left its standalone running"
    record = next((data_dir / "store").glob("operations/render/*/operation.json"))
    assert json.loads(record.read_text())["state"] == "RUNNING"

    name = f"operations/render/{record.parent.name}"
    assert _json("operations", "cancel", name, "--data", data_dir)["state"] == "CANCELLED"
    listed = _json("operations", "list", "--data", data_dir)["operations"]
    assert [(item["name"], item["state"]) for item in listed] == [(name, "CANCELLED")]


def _json(*words: str | Path) -> dict[str, Any]:
    done = subprocess.run(
        [_GRANULO, *words, "--json", "--quiet"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    document: dict[str, Any] = json.loads(done.stdout)
    return document
