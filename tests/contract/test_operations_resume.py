# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations outlive what happens to their process, their store and their shards."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from google.longrunning import operations_pb2

from granulo.render.v1 import render_service_pb2 as pb
from granulo.type.v1 import progress_pb2
from granulo_core.engine.local import LocalEngine
from granulo_core.errors import Code, GranuloError, Reason
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.runner import OperationRunner
from granulo_core.store import LocalStore

# Worker processes import the module, too: they inherit this path.
sys.path.insert(0, str(Path(__file__).parent))
import operation_jobs as jobs

State = progress_pb2.Progress.State


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    made = LocalEngine(cpus=1)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where shards write down that they were made, and look what to do."""
    made = tmp_path / "shards"
    made.mkdir()
    return made


def start(
    runner: OperationRunner, folder: Path, count: int, request_id: str = ""
) -> operations_pb2.Operation:
    request = jobs.request(folder, count, request_id)
    return runner.start(jobs.KIND, request, target=jobs.target(count), request_id=request_id)


def progress(operation: operations_pb2.Operation) -> progress_pb2.Progress:
    metadata = pb.CreateDatasetMetadata()
    assert operation.metadata.Unpack(metadata)
    return metadata.progress


def response(operation: operations_pb2.Operation) -> pb.Dataset:
    assert operation.done
    assert operation.WhichOneof("result") == "response", operation.error
    dataset = pb.Dataset()
    assert operation.response.Unpack(dataset)
    return dataset


def made(folder: Path) -> Counter[str]:
    path = folder / "made"
    return Counter(path.read_text().split() if path.exists() else [])


def wait_until(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.02)


def test_a_killed_process_costs_only_the_shards_in_flight(
    local_store: LocalStore, engine: LocalEngine, folder: Path
) -> None:
    (folder / "s02.hold").touch()
    process = subprocess.Popen(
        [sys.executable, jobs.__file__, local_store.url, folder, "4"],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    try:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        # A shard is in flight until its receipt is stored.
        receipts = [f"{name}/shards/s0{i}.json" for i in (0, 1)]
        wait_until(lambda: made(folder)["s02"] == 1 and all(map(local_store.exists, receipts)))
    finally:
        process.kill()
        process.communicate()
    before = {i: local_store.root.joinpath(f"{jobs.OBJECTS}/s0{i}.txt").stat() for i in (0, 1)}
    (folder / "s02.hold").unlink()

    with closing(jobs.make_runner(local_store, engine)) as runner:
        stored = runner.get(name)
        assert progress(stored).state == State.STATE_RUNNING
        # Who repeats the command while nobody has resumed yet meets the operation, too.
        assert start(runner, folder, 4, "another").name == name
        assert start(runner, folder, 4, "first").name == name
        assert runner.resume_all() == 1
        assert runner.resume_all() == 1  # and still runs it only once
        ended = runner.wait(name, 60.0)
    assert response(ended).image_count == 4
    assert progress(ended).units_done == 4
    assert made(folder) == {"s00": 1, "s01": 1, "s02": 2, "s03": 1}
    for i, status in before.items():
        after = local_store.root.joinpath(f"{jobs.OBJECTS}/s0{i}.txt").stat()
        assert (after.st_mtime_ns, after.st_ino) == (status.st_mtime_ns, status.st_ino)
    with closing(jobs.make_runner(local_store, engine)) as runner:
        assert response(runner.get(name)).image_count == 4
        assert runner.resume_all() == 0


def test_stopping_the_server_leaves_its_operations_to_the_next(
    local_store: LocalStore, engine: LocalEngine, folder: Path
) -> None:
    (folder / "s01.hold").touch()
    with closing(jobs.make_runner(local_store, engine, max_running=1)) as runner:
        running = start(runner, folder, 2).name
        queued = start(runner, folder, 1).name
        wait_until(lambda: made(folder)["s01"] == 1)
        assert progress(runner.get(queued)).state == State.STATE_QUEUED
    with pytest.raises(GranuloError) as refused:
        start(runner, folder, 3)
    assert refused.value.reason is Reason.SERVER_BUSY
    (folder / "s01.hold").unlink()
    with closing(jobs.make_runner(local_store, engine)) as runner:
        assert {progress(runner.get(name)).state for name in (running, queued)} == {
            State.STATE_RUNNING,
            State.STATE_QUEUED,
        }
        assert runner.resume_all() == 2
        assert response(runner.wait(running, 60.0)).image_count == 2
        assert response(runner.wait(queued, 60.0)).image_count == 1


def test_an_engine_that_closes_first_does_not_cancel_the_operation(
    local_store: LocalStore, engine: LocalEngine, folder: Path
) -> None:
    (folder / "s00.hold").touch()
    own_engine = LocalEngine(cpus=1)
    with closing(jobs.make_runner(local_store, own_engine)) as runner:
        name = start(runner, folder, 1).name
        wait_until(lambda: made(folder)["s00"] == 1)
        own_engine.close()
        assert not runner.wait(name, 1.0).done
    (folder / "s00.hold").unlink()
    with closing(jobs.make_runner(local_store, engine)) as runner:
        runner.resume_all()
        assert response(runner.wait(name, 60.0)).image_count == 1


def test_a_second_attempt_uses_the_receipts_of_the_first(
    local_store: LocalStore, engine: LocalEngine, folder: Path
) -> None:
    (folder / "s02.fail").touch()
    with closing(jobs.make_runner(local_store, engine)) as runner:
        first = runner.wait(start(runner, folder, 4).name, 60.0)
        assert (first.error.code, progress(first).state) == (
            Code.INVALID_ARGUMENT.value,
            State.STATE_FAILED,
        )
        (folder / "s02.fail").unlink()
        second = runner.wait(start(runner, folder, 4).name, 60.0)
    assert second.name != first.name
    assert response(second).image_count == 4
    counts = made(folder)
    assert (counts["s00"], counts["s01"], counts["s02"]) == (1, 1, 2)


@pytest.mark.parametrize("damage", ["object changed", "object lost", "receipt unreadable"])
def test_a_shard_counts_as_done_only_while_its_receipt_verifies(
    local_store: LocalStore, engine: LocalEngine, folder: Path, damage: str
) -> None:
    with closing(jobs.make_runner(local_store, engine)) as runner:
        first = runner.wait(start(runner, folder, 2).name, 60.0)
        key = f"{jobs.OBJECTS}/s01.txt"
        if damage == "object changed":
            local_store.put(key, b"something else")
        elif damage == "object lost":
            local_store.delete(key)
        else:
            local_store.put(f"{first.name}/shards/s01.json", b"{")
        second = runner.wait(start(runner, folder, 2).name, 60.0)
    assert response(second).image_count == 2
    assert made(folder) == {"s00": 1, "s01": 2}
    receipt = Receipt.from_bytes(local_store.get(f"{second.name}/shards/s01.json"))
    assert receipt.verifies(local_store)
    assert receipt.facts == {"letters": 3}


def test_records_that_cannot_be_read_neither_stop_the_service_nor_get_lost(
    local_store: LocalStore, engine: LocalEngine, folder: Path
) -> None:
    with closing(jobs.make_runner(local_store, engine)) as runner:
        name = runner.wait(start(runner, folder, 1).name, 60.0).name
    local_store.put(f"{name}/operation.json", b"{")
    with closing(jobs.make_runner(local_store, engine)) as runner:
        assert runner.list() == []
        again = runner.wait(start(runner, folder, 1).name, 60.0)
    assert response(again).image_count == 1
    assert again.name != name
    assert local_store.get(f"{name}/operation.json") == b"{"


def test_progress_of_running_shards_shows_and_is_tidied_up(
    local_store: LocalStore, engine: LocalEngine, folder: Path
) -> None:
    for hold in ("s00.hold", "s01.hold"):
        (folder / hold).touch()
    with closing(jobs.make_runner(local_store, engine)) as runner:
        name = start(runner, folder, 2).name
        seen: list[progress_pb2.Progress] = []
        for _, operation in runner.watch(name):
            seen.append(progress(operation))
            if seen[-1].message:
                for hold in folder.glob(f"{seen[-1].message.split()[-1]}.hold"):
                    hold.unlink()
    assert seen[-1].state == State.STATE_SUCCEEDED
    assert {"half of s00", "half of s01"} <= {item.message for item in seen}
    assert seen[-1].figures["half"] == 0.5
    done = [item.units_done for item in seen]
    assert done == sorted(done)
    assert list(local_store.list(f"{name}/progress/")) == []


def test_a_store_that_takes_no_more_fails_the_operation_and_a_later_one_goes_on(
    local_store: LocalStore,
    engine: LocalEngine,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put = LocalStore.put

    def full(self: LocalStore, key: str, *rest: str) -> object:
        if "/shards/s01" in key:
            monkeypatch.setattr(LocalStore, "put", refuse)
        return put(self, key, *rest)  # type: ignore[arg-type]

    def refuse(self: LocalStore, key: str, *rest: str) -> object:
        raise GranuloError(Reason.STORE_FULL, "No space is left.")

    with closing(jobs.make_runner(local_store, engine)) as runner:
        monkeypatch.setattr(LocalStore, "put", full)
        name = start(runner, folder, 4).name
        ended = runner.wait(name, 60.0)
        assert ended.error.code == Code.RESOURCE_EXHAUSTED.value
        with pytest.raises(GranuloError) as refused:
            start(runner, folder, 3)
        assert refused.value.reason is Reason.STORE_FULL
        runner.cancel(name)
    monkeypatch.setattr(LocalStore, "put", put)
    with closing(jobs.make_runner(local_store, engine)) as runner:
        # Its end could not be stored, so it is not over.
        assert [item.name for item in runner.list()] == [name]
        runner.resume_all()
        assert response(runner.wait(name, 60.0)).image_count == 4
    assert made(folder)["s00"] == 1


def test_a_server_that_only_answers_calls_leaves_the_operations_to_their_owner(
    local_store: LocalStore, engine: LocalEngine, folder: Path
) -> None:
    (folder / "s00.hold").touch()
    with closing(jobs.make_runner(local_store, engine)) as owner:
        operation = start(owner, folder, 1)
        wait_until(lambda: made(folder)["s00"] == 1)
        with closing(jobs.make_runner(local_store, engine, answers_only=True)) as second:
            assert second.resume_all() == 0
            with pytest.raises(GranuloError) as raised:
                start(second, folder, 2)
            assert raised.value.reason is Reason.OPERATIONS_ELSEWHERE
            with pytest.raises(GranuloError) as raised:
                second.cancel(operation.name)
            assert raised.value.code is Code.NOT_FOUND
        (folder / "s00.hold").unlink()
        assert response(owner.wait(operation.name, 60)).image_count == 1
    assert made(folder) == {"s00": 1}


def test_an_operation_outlasts_a_store_that_is_away_for_a_while(
    local_store: LocalStore, engine: LocalEngine, folder: Path
) -> None:
    (folder / "s01.offline").touch()
    with closing(jobs.make_runner(local_store, engine, store_patience_s=60.0)) as runner:
        operation = start(runner, folder, 2)
        wait_until(lambda: made(folder)["s01"] >= 2)
        assert not runner.get(operation.name).done
        (folder / "s01.offline").unlink()
        assert response(runner.wait(operation.name, 60)).image_count == 2
    # What was finished before the outage was not made again.
    assert made(folder)["s00"] == 1


def test_an_operation_that_waits_for_the_store_can_be_cancelled_and_interrupted(
    local_store: LocalStore, engine: LocalEngine, folder: Path
) -> None:
    for shard in ("s00", "s01"):
        (folder / f"{shard}.offline").touch()
    with closing(jobs.make_runner(local_store, engine, store_patience_s=3600.0)) as runner:
        cancelled, interrupted = start(runner, folder, 1), start(runner, folder, 2)
        wait_until(lambda: made(folder)["s00"] >= 2 and made(folder)["s01"] >= 1)
        runner.cancel(cancelled.name)
        ended = runner.wait(cancelled.name, 60)
        assert ended.error.code == Code.CANCELLED.value
    with closing(jobs.make_runner(local_store, engine)) as runner:
        assert not runner.get(interrupted.name).done
