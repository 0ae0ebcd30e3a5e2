# SPDX-License-Identifier: GPL-3.0-or-later
"""The Ray engine under faults that a real cluster has once a year; Ray's client is a fake."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from granulo_core.engine import ray as engine_module
from granulo_core.engine.port import Resources, Task, TaskOutcome
from granulo_core.engine.ray import RayEngine
from granulo_core.engine.ray_task import Done
from granulo_core.errors import Reason


class RayError(Exception):
    """Stands for Ray's own; Ray itself reads its environment once, when it is imported."""


class RayTaskError(RayError):
    """What the task itself raised."""

    cause = ValueError("in the task")


class TaskCancelledError(RayError):
    """Killed as it was asked for."""


class RpcError(RayError):
    """The cluster does not answer."""


class NodeDiedError(RayError):
    """Stands for all that may happen to a task on its node."""


ERRORS = (RayError, RayTaskError, TaskCancelledError, RpcError, NodeDiedError)
NODES = {"CPU": 4.0, "pool_cpu": 1000.0, "pool_train": 1000.0}


class FakeRay:
    """Ray's client as the engine uses it; what tasks come to is scripted."""

    exceptions = SimpleNamespace(**{error.__name__: error for error in ERRORS})

    def __init__(self) -> None:
        self.answers: list[Any] = []
        """What the next tasks come to: an exception, a `Done`, or nothing for ever."""
        self.submitted: list[dict[str, Any]] = []
        self.cancelled: list[object] = []
        self.connections = 0
        self.on_submit: Callable[[], None] = lambda: None
        self._results: dict[object, Any] = {}

    def init(self, *_: Any, **__: Any) -> None:
        self.connections += 1

    def shutdown(self) -> None:
        pass

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": NODES}]

    def remote(self, _function: Any) -> Any:
        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=self._run(options)))

    def _run(self, options: dict[str, Any]) -> Callable[..., object]:
        def run(task: Task, _context: Any) -> object:
            self.submitted.append(options)
            self.on_submit()
            reference = object()
            if self.answers and (answer := self.answers.pop(0)) is not None:
                self._results[reference] = answer
            return reference

        return run

    def cancel(self, reference: object, *, force: bool) -> None:
        assert force
        self.cancelled.append(reference)
        self._results[reference] = TaskCancelledError()

    def wait(self, references: list[object], **_: Any) -> tuple[list[object], list[object]]:
        time.sleep(0.01)
        return [one for one in references if one in self._results], []

    def get(self, reference: object) -> Any:
        result = self._results[reference]
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    made = FakeRay()
    monkeypatch.setattr(engine_module, "_imported", lambda _: made)
    return made


@pytest.fixture
def engine(ray: FakeRay) -> Iterator[RayEngine]:
    made = RayEngine("ray://nowhere:1")
    yield made
    made.close()


def task(name: str = "t", **particulars: Any) -> Task:
    return Task(name, "package:function", b"", **particulars)


def done(measurements: Any = ()) -> Done:
    return Done(TaskOutcome("t", b"receipt", None, 1), measurements)


def outcomes(group: Any) -> list[TaskOutcome]:
    return [outcome for outcome in group.as_completed() if outcome is not None]


@pytest.mark.timeout(30)
def test_what_is_cancelled_while_it_is_handed_over_is_killed(
    ray: FakeRay, engine: RayEngine
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        go_on.wait(10)

    ray.on_submit = slow
    group = engine.submit([task()], "file:///x")
    assert began.wait(10)
    group.cancel()
    go_on.set()
    (outcome,) = outcomes(group)
    assert outcome.error is not None
    assert outcome.error.reason is Reason.OPERATION_CANCELLED
    assert len(ray.cancelled) == 1


@pytest.mark.timeout(30)
def test_closing_ends_what_is_handed_over_just_then(ray: FakeRay) -> None:
    engine = RayEngine("ray://nowhere:1")
    began, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        go_on.wait(10)

    ray.on_submit = slow
    group = engine.submit([task("a"), task("b")], "file:///x")
    assert began.wait(10)
    closing = threading.Thread(target=engine.close)
    closing.start()
    go_on.set()
    ended = outcomes(group)
    closing.join(10)
    assert not closing.is_alive()
    assert [o.error.reason for o in ended if o.error] == [Reason.OPERATION_CANCELLED] * 2


@pytest.mark.timeout(30)
def test_a_figure_that_is_not_known_here_costs_no_result(ray: FakeRay, engine: RayEngine) -> None:
    ray.answers = [done(((("granulo_of_next_year", (), 1.0), 1),))]
    (outcome,) = outcomes(engine.submit([task()], "file:///x"))
    assert outcome.receipt == b"receipt"


@pytest.mark.timeout(30)
def test_what_ray_cannot_do_is_an_attempt_and_no_loss_of_the_cluster(
    ray: FakeRay, engine: RayEngine
) -> None:
    ray.answers = [NodeDiedError("gone"), RayError("the disk is full"), NodeDiedError("gone")]
    (outcome,) = outcomes(engine.submit([task()], "file:///x"))
    assert outcome.error is not None
    assert outcome.error.reason is Reason.WORKER_DIED
    assert (outcome.attempts, len(ray.submitted), ray.connections) == (3, 3, 1)


@pytest.mark.timeout(30)
def test_an_answer_that_cannot_be_read_fails_its_task_only(ray: FakeRay, engine: RayEngine) -> None:
    ray.answers = [ModuleNotFoundError("No module named granulo_next")]
    (outcome,) = outcomes(engine.submit([task()], "file:///x"))
    assert outcome.error is not None
    assert outcome.error.reason is Reason.TASK_FAILED
    assert "granulo_next" in outcome.error.message
    assert ray.connections == 1


def test_rays_own_errors_are_what_the_fake_ones_stand_for() -> None:
    code = """
from ray import exceptions as e
faults = (e.OutOfDiskError, e.RaySystemError, e.NodeDiedError, e.WorkerCrashedError, e.RpcError,
          e.ObjectStoreFullError, e.RuntimeEnvSetupError, e.TaskUnschedulableError,
          e.LocalRayletDiedError, e.OutOfMemoryError, e.ObjectLostError, e.TaskCancelledError)
assert all(issubclass(fault, e.RayError) for fault in faults)
assert not any(issubclass(fault, e.RayTaskError) for fault in faults)
assert issubclass(e.RayTaskError, e.RayError)
"""
    # In a process of its own, see RayError.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(30)
@pytest.mark.parametrize("away", [ConnectionError("away"), RpcError("away")])
def test_a_cluster_that_goes_away_begins_again_without_an_attempt(
    ray: FakeRay, engine: RayEngine, away: Exception
) -> None:
    ray.answers = [away, done()]
    (outcome,) = outcomes(engine.submit([task()], "file:///x"))
    assert (outcome.receipt, outcome.attempts, ray.connections) == (b"receipt", 1, 2)


@pytest.mark.timeout(30)
def test_a_pool_of_processes_goes_to_its_kind_of_node(ray: FakeRay, engine: RayEngine) -> None:
    ray.answers = [done()]
    outcomes(engine.submit([task(resources=Resources(pool="train-deterministic"))], "file:///x"))
    assert ray.submitted[0]["resources"] == {"pool_train": 1}


def test_every_pool_has_nodes_on_kubernetes_and_is_documented() -> None:
    root = Path(__file__).parents[2]
    sources = (path.read_text() for path in (root / "services").rglob("*.py"))
    pools = {pool for text in sources for pool in re.findall(r'pool="([\w-]+)"', text)}
    pools |= {Resources().pool}
    assert {"cpu", "render", "train", "train-deterministic"} <= pools
    wanted = {Resources(pool=pool).nodes for pool in pools}
    cluster = (root / "deploy/k8s/components/ray/cluster.yaml").read_text()
    assert wanted == set(re.findall(r"pool_(\w+)", cluster))
    table = (root / "docs/operations/ray.md").read_text()
    assert all(f"| `{nodes}` |" in table for nodes in wanted)
