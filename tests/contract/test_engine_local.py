# SPDX-License-Identifier: GPL-3.0-or-later
"""What the local engine promises about its worker processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from granulo_core.engine.local import LocalEngine
from granulo_core.engine.port import Task

HERE = Path(__file__).parent
STORE_URL = "file:///nowhere"


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    """One core, workers that are replaced after two tasks."""
    sys.path.insert(0, str(HERE))
    made = LocalEngine(cpus=1, tasks_per_worker=2)
    yield made
    made.close()
    sys.path.remove(str(HERE))


def run(engine: LocalEngine, tasks: list[Task]) -> list[bytes]:
    receipts = []
    for outcome in engine.submit(tasks, STORE_URL).as_completed(poll_s=60):
        assert outcome is not None, "no task ended for a minute"
        assert outcome.receipt is not None, outcome.error
        receipts.append(outcome.receipt)
    return receipts


def describe(count: int) -> list[Task]:
    return [Task(f"t-{i}", "engine_tasks:describe", b"") for i in range(count)]


def wait_for_pid(path: Path, limit_s: float = 60.0) -> int:
    end_s = time.monotonic() + limit_s
    while not path.exists():
        assert time.monotonic() < end_s, f"no worker wrote {path.name}"
        time.sleep(0.02)
    return int(path.read_text())


def state_of(pid: int) -> str:
    """State letter of a process, ``Z`` for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def wait_until_gone(pid: int, limit_s: float = 5.0) -> None:
    end_s = time.monotonic() + limit_s
    while state_of(pid) != "Z":
        assert time.monotonic() < end_s, f"process {pid} lives on"
        time.sleep(0.02)


def test_workers_are_replaced_after_their_number_of_tasks(engine: LocalEngine) -> None:
    pids = Counter(json.loads(receipt)["pid"] for receipt in run(engine, describe(5)))
    assert max(pids.values()) <= 2
    assert len(pids) >= 3


def test_an_idle_worker_that_is_killed_costs_nothing(engine: LocalEngine) -> None:
    """The kernel's out-of-memory killer asks nobody whether a process has work."""
    for noticed in (True, False):
        pid = json.loads(run(engine, describe(1))[0])["pid"]
        if state_of(pid) != "Z":
            os.kill(pid, signal.SIGKILL)
        wait_until_gone(pid)
        if noticed:
            time.sleep(0.5)
        assert json.loads(run(engine, describe(1))[0])["pid"] != pid


def test_a_busy_worker_that_is_killed_costs_one_attempt(
    engine: LocalEngine, tmp_path: Path
) -> None:
    path = tmp_path / "pid"
    group = engine.submit([Task("t", "engine_tasks:wait_for_file", str(path).encode())], STORE_URL)
    os.kill(wait_for_pid(path), signal.SIGKILL)
    path.with_name("pid.go").touch()
    (outcome,) = [outcome for outcome in group.as_completed() if outcome is not None]
    assert (outcome.receipt, outcome.attempts) == (b"went", 2)


def test_interrupting_from_the_keyboard_does_not_reach_the_workers(
    engine: LocalEngine, tmp_path: Path
) -> None:
    path = tmp_path / "pid"
    group = engine.submit([Task("t", "engine_tasks:wait_for_file", str(path).encode())], STORE_URL)
    os.kill(wait_for_pid(path), signal.SIGINT)
    time.sleep(0.1)
    path.with_name("pid.go").touch()
    (outcome,) = [outcome for outcome in group.as_completed() if outcome is not None]
    assert (outcome.receipt, outcome.attempts) == (b"went", 1)


_PARENT = """
import sys, threading
from granulo_core.engine.local import LocalEngine
from granulo_core.engine.port import Task

engine = LocalEngine(cpus=1)
# Handed over in a thread that ends, as a server's threads do.
task = Task("t", "engine_tasks:work_in_native_code", sys.argv[1].encode())
thread = threading.Thread(target=engine.submit, args=([task], ""))
thread.start()
thread.join()
threading.Event().wait()
"""


def test_workers_die_with_their_parent_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(path)], env={**os.environ, "PYTHONPATH": str(HERE)}
    )
    try:
        worker = wait_for_pid(path)
        time.sleep(0.3)
        assert state_of(worker) != "Z"
    finally:
        parent.kill()
        parent.wait()
    wait_until_gone(worker)
