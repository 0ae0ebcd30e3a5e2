# SPDX-License-Identifier: GPL-3.0-or-later
"""Groups of tasks share the local engine: they take turns and end independently."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from granulo_core.engine.groups import Group
from granulo_core.engine.local import LocalEngine
from granulo_core.engine.port import Resources, Task, TaskOutcome
from granulo_core.errors import Reason

STORE_URL = "file:///nowhere"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEngine]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    made = LocalEngine(cpus=2)
    yield made
    made.close()


def outcomes(group: Group) -> list[TaskOutcome]:
    return [item for item in group.as_completed() if item is not None]


def wait_for_files(*paths: Path, limit_s: float = 60.0) -> None:
    end_s = time.monotonic() + limit_s
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end_s
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_small_group_does_not_wait_for_the_end_of_a_large_one(engine: LocalEngine) -> None:
    large = engine.submit(
        [Task(f"large-{i}", "engine_tasks:occupy", b"0.1") for i in range(40)], STORE_URL
    )
    (small,) = outcomes(engine.submit([Task("s", "engine_tasks:double", b"x")], STORE_URL))
    # A task for all cores waits for both of them, but not for the crowd behind it.
    wide = Task("wide", "engine_tasks:describe", b"", Resources(cpu=2))
    (described,) = outcomes(engine.submit([wide], STORE_URL))
    waiting = len(large.waiting)
    large.cancel()
    assert small.receipt == b"xx"
    assert described.receipt is not None
    assert json.loads(described.receipt)["threads"] == "2"
    assert waiting >= 20
    ended = outcomes(large)
    assert len(ended) == 40
    reasons = [item.error.reason for item in ended if item.error is not None]
    assert set(reasons) == {Reason.OPERATION_CANCELLED}
    assert len(reasons) >= waiting


def test_cancelling_one_group_leaves_the_others_alone(engine: LocalEngine, tmp_path: Path) -> None:
    paths = [tmp_path / "doomed", tmp_path / "kept"]
    doomed, kept = (
        engine.submit(
            [Task(path.name, "engine_tasks:wait_for_file", str(path).encode())], STORE_URL
        )
        for path in paths
    )
    wait_for_files(*paths)
    doomed.cancel()
    (ended,) = outcomes(doomed)
    # Whoever is told that a task was cancelled may rely on it: nothing of it writes any more.
    assert not is_running(int(paths[0].read_text()))
    assert ended.error is not None
    assert ended.error.reason is Reason.OPERATION_CANCELLED
    (tmp_path / "kept.go").touch()
    (ended,) = outcomes(kept)
    assert (ended.receipt, ended.attempts) == (b"went", 1)
