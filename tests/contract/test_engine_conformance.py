# SPDX-License-Identifier: GPL-3.0-or-later
"""What every engine must do, with real worker processes."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from granulo_core.engine.local import LocalEngine
from granulo_core.engine.port import Engine, Resources, Task, TaskOutcome
from granulo_core.engine.ray import RayEngine
from granulo_core.errors import GranuloError, Reason

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from ray_cluster import RayCluster

STORE_URL = "file:///nowhere"


@pytest.fixture(scope="module")
def tasks_importable() -> Iterator[None]:
    """Workers find engine_tasks.py as they find any installed package."""
    folder = str(Path(__file__).parent)
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


@pytest.fixture(scope="module", params=["local", "ray"])
def opened(
    request: pytest.FixtureRequest, tasks_importable: None
) -> Iterator[Callable[[], Engine]]:
    """How engines with two cores are opened."""
    if request.param == "local":
        yield lambda: LocalEngine(cpus=2)
        return
    with (
        tempfile.TemporaryDirectory(prefix="ray-") as folder,
        RayCluster(Path(folder), 2, [Path(__file__).parent]) as cluster,
        pytest.MonkeyPatch.context() as patch,
    ):
        # The engine sets these for the process that it is in.
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_USAGE_STATS_ENABLED"):
            patch.setenv(name, "")
        yield lambda: RayEngine(cluster.address, str(cluster.token_file))


@pytest.fixture(scope="module")
def engine(opened: Callable[[], Engine]) -> Iterator[Engine]:
    """An engine with two cores."""
    made = opened()
    yield made
    made.close()


def task(identifier: str, function: str, payload: bytes = b"", **particulars: Any) -> Task:
    return Task(identifier, f"engine_tasks:{function}", payload, **particulars)


def outcomes(engine: Engine, tasks: Sequence[Task], operation: str = "") -> dict[str, TaskOutcome]:
    ended = [o for o in engine.submit(tasks, STORE_URL, operation).as_completed() if o is not None]
    assert len(ended) == len(tasks)
    return {outcome.task_id: outcome for outcome in ended}


def error_of(outcome: TaskOutcome) -> GranuloError:
    assert outcome.receipt is None
    assert outcome.error is not None
    return outcome.error


def receipt_of(outcome: TaskOutcome) -> bytes:
    assert outcome.error is None, outcome.error
    assert outcome.receipt is not None
    return outcome.receipt


def wait_for_pid(path: Path, limit_s: float = 60.0) -> int:
    end_s = time.monotonic() + limit_s
    while not path.exists():
        assert time.monotonic() < end_s, f"no worker wrote {path.name}"
        time.sleep(0.02)
    return int(path.read_text())


def is_running(pid: int) -> bool:
    """Whether a process does anything still; one that only waits to be reaped does not."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def seconds_until_gone(pid: int, limit_s: float = 20.0) -> float:
    begin_s = time.monotonic()
    while is_running(pid):
        assert time.monotonic() - begin_s < limit_s, f"process {pid} lives on"
        time.sleep(0.02)
    return time.monotonic() - begin_s


def test_a_task_gets_its_bytes_and_returns_its_receipt(engine: Engine) -> None:
    ended = outcomes(engine, [task("a", "double", b"ab"), task("b", "double", b"")])
    assert receipt_of(ended["a"]) == b"abab"
    assert receipt_of(ended["b"]) == b""
    assert ended["a"].attempts == 1


def test_a_task_knows_its_operation_and_works_in_another_process(engine: Engine) -> None:
    ended = outcomes(engine, [task("t-7", "describe")], "operations/render/op-1")
    facts = json.loads(receipt_of(ended["t-7"]))
    pid, threads = facts.pop("pid"), facts.pop("threads")
    assert facts == {
        "store_url": STORE_URL,
        "operation": "operations/render/op-1",
        "task_id": "t-7",
        "attempt": 1,
    }
    assert pid != os.getpid()
    assert threads == "1"


def test_an_error_keeps_its_reason_and_a_defect_gets_one(engine: Engine) -> None:
    names = ["refuse", "divide", "leave", "return_text", "no_such_function"]
    ended = outcomes(engine, [task(name, name, b"x") for name in names])
    refused = error_of(ended["refuse"])
    assert (refused.reason, refused.message) == (
        Reason.IMAGE_TOO_LARGE,
        "The image is 7 px too wide.",
    )
    assert refused.metadata == {"width_px": "7"}
    for name in names[1:]:
        assert error_of(ended[name]).reason is Reason.TASK_FAILED
        assert ended[name].attempts == 1
    assert "ZeroDivisionError" in error_of(ended["divide"]).message
    assert "str instead of" in error_of(ended["return_text"]).message


def test_a_task_that_dies_by_a_crash_is_retried_and_then_succeeds(engine: Engine) -> None:
    ended = outcomes(engine, [task("crash", "crash_before", b"3"), task("other", "double", b"o")])
    assert receipt_of(ended["crash"]) == b"attempt 3"
    assert ended["crash"].attempts == 3
    assert receipt_of(ended["other"]) == b"oo"


def test_a_task_that_always_dies_ends_while_others_go_on(engine: Engine) -> None:
    tasks = [task("dies", "crash_before", b"99", max_attempts=2)]
    tasks += [task(f"lives-{i}", "occupy", b"0.1") for i in range(4)]
    ended = outcomes(engine, tasks)
    error = error_of(ended["dies"])
    assert error.reason is Reason.WORKER_DIED
    assert error.metadata == {"task": "dies", "exit_code": "-11"}
    assert ended["dies"].attempts == 2
    assert all(ended[f"lives-{i}"].error is None for i in range(4))


def test_cancel_kills_running_work_within_two_seconds_and_drops_the_rest(
    engine: Engine, tmp_path: Path
) -> None:
    running = tmp_path / "running"
    native = str(running).encode()
    tasks = [task("runs", "work_in_native_code", native, resources=Resources(cpu=2))]
    tasks += [task(f"waits-{i}", "double", b"w", resources=Resources(cpu=2)) for i in range(3)]
    group = engine.submit(tasks, STORE_URL)
    pid = wait_for_pid(running)
    begin_s = time.monotonic()
    group.cancel()
    ended = [outcome for outcome in group.as_completed() if outcome is not None]
    seconds_until_gone(pid)
    assert time.monotonic() - begin_s < 2.0
    assert {error_of(outcome).reason for outcome in ended} == {Reason.OPERATION_CANCELLED}
    assert len(ended) == 4
    # The engine is as good as before.
    again = task("again", "double", b"x", resources=Resources(cpu=2))
    assert receipt_of(outcomes(engine, [again])["again"]) == b"xx"
    group.cancel()


def test_a_task_that_takes_too_long_is_killed(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    slow = task("slow", "work_in_native_code", str(path).encode(), timeout_s=0.5)
    ended = outcomes(engine, [slow, task("other", "double", b"o")])
    error = error_of(ended["slow"])
    assert error.reason is Reason.TASK_TIMED_OUT
    assert "0.5 s" in error.message
    assert receipt_of(ended["other"]) == b"oo"
    seconds_until_gone(wait_for_pid(path))


def test_tasks_never_occupy_more_cores_than_there_are(engine: Engine) -> None:
    cores = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 1.0, "e": 64.0}
    tasks = [
        task(name, "occupy", b"0.2", resources=Resources(cpu=cpu)) for name, cpu in cores.items()
    ]
    spans = {
        name: json.loads(receipt_of(outcome))[:2]
        for name, outcome in outcomes(engine, tasks).items()
    }
    for begin_s, _ in spans.values():
        at_once = [n for n, (b_s, e_s) in spans.items() if b_s <= begin_s < e_s]
        assert sum(min(cores[name], 2.0) for name in at_once) <= 2.0, at_once


def test_two_cores_do_two_things_at_once(engine: Engine, tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    tasks = [task(path.name, "wait_for_file", str(path).encode()) for path in paths]
    group = engine.submit(tasks, STORE_URL)
    assert len({wait_for_pid(path) for path in paths}) == 2
    for path in paths:
        path.with_name(path.name + ".go").touch()
    assert [outcome.receipt for outcome in group.as_completed() if outcome] == [b"went"] * 2


def test_waiting_for_outcomes_gives_the_caller_a_turn(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    group = engine.submit([task("t", "wait_for_file", str(path).encode())], STORE_URL)
    turns = 0
    for outcome in group.as_completed(poll_s=0.05):
        if outcome is None:
            turns += 1
            if turns == 3:
                (tmp_path / "pid.go").touch()
        else:
            assert outcome.receipt == b"went"
    assert turns >= 3


def test_pools_never_share_a_process(engine: Engine) -> None:
    tasks = [
        task(f"{pool}-{i}", "describe", resources=Resources(pool=pool))
        for i in range(3)
        for pool in ("render", "cpu")
    ]
    pids: dict[str, set[int]] = {"render": set(), "cpu": set()}
    for name, outcome in outcomes(engine, tasks).items():
        pids[name.partition("-")[0]].add(json.loads(receipt_of(outcome))["pid"])
    assert not pids["render"] & pids["cpu"]


def test_a_closed_engine_cancels_what_runs_and_takes_nothing_more(
    opened: Callable[[], Engine], tmp_path: Path
) -> None:
    engine = opened()
    path = tmp_path / "pid"
    all_cores = Resources(cpu=2)
    tasks = [
        task("runs", "work_in_native_code", str(path).encode(), resources=all_cores),
        task("waits", "double", resources=all_cores),
    ]
    group = engine.submit(tasks, STORE_URL)
    pid = wait_for_pid(path)
    engine.close()
    seconds_until_gone(pid)
    ended = [outcome for outcome in group.as_completed(poll_s=10) if outcome is not None]
    assert [error_of(outcome).reason for outcome in ended] == [Reason.OPERATION_CANCELLED] * 2
    with pytest.raises(GranuloError) as caught:
        engine.submit([task("late", "double")], STORE_URL)
    assert caught.value.reason is Reason.SERVER_BUSY
