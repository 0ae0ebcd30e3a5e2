# SPDX-License-Identifier: GPL-3.0-or-later
"""What operations promise to those who start, follow, cancel and forget them."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from google.longrunning import operations_pb2

from granulo.render.v1 import render_service_pb2 as pb
from granulo.type.v1 import progress_pb2
from granulo_core.engine.local import LocalEngine
from granulo_core.errors import Code, GranuloError, Reason
from granulo_core.operations.runner import OperationRunner
from granulo_core.store import ObjectStore

# Worker processes import the module, too: they inherit this path.
sys.path.insert(0, str(Path(__file__).parent))
import operation_jobs as jobs

State = progress_pb2.Progress.State


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    made = LocalEngine(cpus=1)
    yield made
    made.close()


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    found: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return found


@pytest.fixture
def own_engine(store: ObjectStore) -> Iterator[LocalEngine]:
    """An engine whose workers were started with the store's keys in their environment."""
    made = LocalEngine(cpus=1)
    yield made
    made.close()


@pytest.fixture
def runner(local_store: ObjectStore, engine: LocalEngine) -> Iterator[OperationRunner]:
    with closing(jobs.make_runner(local_store, engine, max_running=1)) as made:
        yield made


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


def finish(runner: OperationRunner, name: str) -> operations_pb2.Operation:
    operation = runner.wait(name, 60.0)
    assert operation.done
    return operation


def progress(operation: operations_pb2.Operation) -> progress_pb2.Progress:
    metadata = pb.CreateDatasetMetadata()
    assert operation.metadata.Unpack(metadata)
    return metadata.progress


def wait_until(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.02)


def is_made(folder: Path, shard: str) -> bool:
    path = folder / "made"
    return path.exists() and shard in path.read_text().split()


def hold(folder: Path, *shards: str) -> None:
    for shard in shards:
        (folder / f"{shard}.hold").touch()


def release(folder: Path, *shards: str) -> None:
    for shard in shards:
        (folder / f"{shard}.hold").unlink()


def test_an_accepted_operation_is_in_the_store_and_ends_with_its_response(
    store: ObjectStore, own_engine: LocalEngine, folder: Path
) -> None:
    with closing(jobs.make_runner(store, own_engine)) as runner:
        started = start(runner, folder, 2)
        assert store.exists(f"{started.name}/operation.json")
        assert not started.done
        ended = finish(runner, started.name)
        dataset = pb.Dataset()
        assert ended.response.Unpack(dataset)
        assert (dataset.name, dataset.image_count) == ("datasets/ds-2", 2)
    shown = progress(ended)
    assert (shown.state, shown.unit, shown.units_done, shown.units_total) == (
        State.STATE_SUCCEEDED,
        "scene",
        2,
        2,
    )
    times = [shown.create_time, shown.start_time, shown.update_time]
    assert [t.ToNanoseconds() for t in times] == sorted(t.ToNanoseconds() for t in times)
    # Whoever reads the store later sees the same.
    with closing(jobs.make_runner(store, own_engine)) as later:
        assert later.get(started.name) == ended
        assert later.list("done=true") == [ended]
    events = list(store.list(f"{started.name}/events/"))
    assert len(events) >= 3  # accepted, running, ended


def test_a_request_id_meets_its_first_operation_for_ever(
    runner: OperationRunner, local_store: ObjectStore, engine: LocalEngine, folder: Path
) -> None:
    first = start(runner, folder, 1, "id-1")
    finish(runner, first.name)
    assert start(runner, folder, 1, "id-1").name == first.name
    with pytest.raises(GranuloError) as refused:
        start(runner, folder, 2, "id-1")
    assert refused.value.reason is Reason.RESOURCE_EXISTS
    assert refused.value.metadata["name"] == first.name
    with closing(jobs.make_runner(local_store, engine)) as later:
        assert start(later, folder, 1, "id-1").name == first.name


def test_equal_requests_meet_while_the_first_runs_and_different_ones_do_not(
    runner: OperationRunner, folder: Path
) -> None:
    hold(folder, "s00")
    first = start(runner, folder, 1, "id-1")
    wait_until(lambda: is_made(folder, "s00"))
    assert start(runner, folder, 1, "id-2").name == first.name
    found = runner.find_live(jobs.KIND, jobs.request(folder, 1, "id-3"))
    assert found is not None
    assert found.name == first.name
    assert runner.find_live(jobs.KIND, jobs.request(folder, 2)) is None
    other = start(runner, folder, 2)
    assert other.name != first.name
    assert progress(runner.get(other.name)).state == State.STATE_QUEUED
    release(folder, "s00")
    finish(runner, other.name)
    assert runner.find_live(jobs.KIND, jobs.request(folder, 1)) is None
    assert start(runner, folder, 1, "id-2").name != first.name


def test_cancelling_stops_what_runs_drops_what_waits_and_leaves_what_is_over(
    runner: OperationRunner, folder: Path
) -> None:
    hold(folder, "s01")
    running, queued = start(runner, folder, 3).name, start(runner, folder, 2).name
    wait_until(lambda: is_made(folder, "s01"))
    runner.cancel(queued)
    assert runner.get(queued).done
    begin_s = time.monotonic()
    runner.cancel(running)
    runner.cancel(running)
    ended = finish(runner, running)
    assert time.monotonic() - begin_s < 2.0
    for operation in (ended, runner.get(queued)):
        assert operation.error.code == Code.CANCELLED.value
        assert progress(operation).state == State.STATE_CANCELLED
    runner.cancel(running)
    assert runner.get(running) == ended
    assert not is_made(folder, "s02")
    release(folder, "s01")
    # The same request continues where the cancelled one stopped.
    again = finish(runner, start(runner, folder, 3).name)
    assert again.name != running
    assert progress(again).units_done == 3
    assert (folder / "made").read_text().split().count("s00") == 1


def test_watching_shows_the_present_then_every_change_and_takes_up_a_broken_stream(
    runner: OperationRunner, folder: Path
) -> None:
    hold(folder, "s01")
    name = start(runner, folder, 2).name
    events = runner.watch(name)
    sequence, operation = next(events)
    while progress(operation).units_done == 0:
        sequence, operation = next(events)
    events.close()
    release(folder, "s01")
    later = list(runner.watch(name, after_sequence=sequence))
    sequences = [sequence, *(number for number, _ in later)]
    assert sequences == sorted(set(sequences))
    assert later[-1][1].done
    # Over is over, also for one who has seen it all.
    assert list(runner.watch(name, later[-1][0]))[-1][1] == later[-1][1]
    assert len(list(runner.watch(name))) == 1


def test_watching_outlives_a_restart_of_the_server(
    runner: OperationRunner, local_store: ObjectStore, engine: LocalEngine, folder: Path
) -> None:
    hold(folder, "s00")
    name = start(runner, folder, 1).name
    wait_until(lambda: is_made(folder, "s00"))
    sequence, _ = next(runner.watch(name))
    watching = runner.watch(name, sequence + 100)  # as if later events had been shown, not stored
    runner.close()
    assert list(watching) == []
    release(folder, "s00")
    with closing(jobs.make_runner(local_store, engine)) as later:
        later.resume_all()
        events = list(later.watch(name, sequence + 100))
    assert events[-1][1].done
    assert all(number > sequence + 100 for number, _ in events)


def test_partial_failures_are_collected_where_they_are_allowed(
    local_store: ObjectStore, engine: LocalEngine, folder: Path
) -> None:
    (folder / "s01.fail").touch()
    with closing(jobs.make_runner(local_store, engine, allow_failures=True)) as runner:
        ended = finish(runner, start(runner, folder, 3).name)
    shown = progress(ended)
    dataset = pb.Dataset()
    assert ended.response.Unpack(dataset)
    assert dataset.image_count == 2
    assert (shown.units_done, shown.units_failed) == (3, 1)
    assert [failure.code for failure in shown.partial_failures] == [Code.INVALID_ARGUMENT.value]
    assert shown.partial_failures[0].message == "s01 cannot be read."


def test_a_store_that_fails_is_no_partial_failure_because_it_passes(
    local_store: ObjectStore, engine: LocalEngine, folder: Path
) -> None:
    (folder / "s01.offline").touch()
    with closing(jobs.make_runner(local_store, engine, allow_failures=True)) as runner:
        ended = finish(runner, start(runner, folder, 3).name)
        assert ended.error.code == Code.UNAVAILABLE.value
        (folder / "s01.offline").unlink()
        ended = finish(runner, start(runner, folder, 3).name)
    dataset = pb.Dataset()
    assert ended.response.Unpack(dataset)
    assert dataset.image_count == 3
    assert not progress(ended).partial_failures


def test_one_resource_is_made_by_one_operation_at_a_time(
    runner: OperationRunner, folder: Path
) -> None:
    hold(folder, "s00")
    first = start(runner, folder, 1)
    other = jobs.request(folder, 2)
    with pytest.raises(GranuloError) as refused:
        runner.start(jobs.KIND, other, target=jobs.target(1))
    assert refused.value.reason is Reason.RESOURCE_NOT_READY
    assert refused.value.metadata["operation"] == first.name
    release(folder, "s00")
    finish(runner, first.name)
    finish(runner, runner.start(jobs.KIND, other, target=jobs.target(1)).name)


def test_an_error_of_a_task_is_the_error_of_the_operation(
    runner: OperationRunner, folder: Path
) -> None:
    (folder / "s00.fail").touch()
    hold(folder, "s01")
    ended = finish(runner, start(runner, folder, 2).name)
    assert ended.error.code == Code.INVALID_ARGUMENT.value
    assert ended.error.message == "s00 cannot be read."
    assert progress(ended).state == State.STATE_FAILED


def test_listing_is_newest_first_and_filters_by_done(runner: OperationRunner, folder: Path) -> None:
    first = start(runner, folder, 1).name
    finish(runner, first)
    hold(folder, "s01")
    second = start(runner, folder, 2).name
    assert [item.name for item in runner.list()] == [second, first]
    assert [item.name for item in runner.list("done = true")] == [first]
    assert [item.name for item in runner.list("done=false")] == [second]
    with pytest.raises(GranuloError) as refused:
        runner.list("state=FAILED")
    assert refused.value.violations[0].field == "filter"
    release(folder, "s01")
    finish(runner, second)


def test_deleting_forgets_what_is_over_and_refuses_what_runs(
    runner: OperationRunner, local_store: ObjectStore, folder: Path
) -> None:
    hold(folder, "s00")
    name = start(runner, folder, 1).name
    with pytest.raises(GranuloError) as refused:
        runner.delete(name)
    assert refused.value.reason is Reason.OPERATION_NOT_DONE
    release(folder, "s00")
    finish(runner, name)
    runner.delete(name)
    assert list(local_store.list(f"{name}/")) == []
    for call in (runner.get, runner.cancel, runner.delete):
        with pytest.raises(GranuloError) as missing:
            call(name)
        assert missing.value.reason is Reason.RESOURCE_NOT_FOUND


def test_waiting_ends_with_the_operation_or_the_time(runner: OperationRunner, folder: Path) -> None:
    hold(folder, "s00")
    name = start(runner, folder, 1).name
    assert not runner.wait(name, 0.1).done
    assert not runner.wait(name, 60.0, is_active=lambda: False).done
    release(folder, "s00")
    assert runner.wait(name, 60.0).done
