# SPDX-License-Identifier: GPL-3.0-or-later
"""What is counted, where, and what log lines and spans of one piece of work share."""

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from structlog.contextvars import bound_contextvars, get_contextvars

from granulo_core.engine.port import Load, TaskContext
from granulo_core.engine.worker import run_task
from granulo_core.errors import GranuloError, Reason
from granulo_core.store import LocalStore
from granulo_core.telemetry import context, stages, traces
from granulo_core.telemetry.live import LIVE, described
from granulo_core.telemetry.metrics import REGISTRY, count_all, gathering, record
from granulo_core.telemetry.stages import Stage, in_stage, stage

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "operations" / "observability.md"


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def counting_task(_context: TaskContext, payload: bytes) -> bytes:
    """An entry point that counts, logs where it is, and may fail."""
    record("granulo_scenes_total")
    with stage(Stage.COMPOSE):
        pass
    if payload == b"fail":
        raise GranuloError(Reason.TASK_FAILED, "as asked")
    fields = get_contextvars()
    return f"{fields['request_id']} {fields['operation']} {traces.trace_id()}".encode()


def test_what_a_task_counts_comes_back_with_its_result_and_is_counted_once() -> None:
    before = value("granulo_scenes_total")
    carried = {"request_id": "r-1", "traceparent": TRACEPARENT, "secret": "no"}
    where = TaskContext("", "operations/x/1", "t", carried=carried)
    answer = run_task(f"{__name__}:counting_task", where, b"")
    assert answer.receipt == b"r-1 operations/x/1 0af7651916cd43dd8448eb211c80319c"
    assert value("granulo_scenes_total") == before
    count_all(answer.measurements)
    assert value("granulo_scenes_total") == before + 1
    failed = run_task(f"{__name__}:counting_task", where, b"fail")
    assert failed.error is not None
    assert len(failed.measurements) == 2


def test_only_named_fields_are_carried_on() -> None:
    with bound_contextvars(request_id="r", tenant="t", token="secret"):
        assert context.carried() == {"request_id": "r", "tenant": "t"}
    with context.taken_up({"request_id": "r", "token": "secret"}, operation="o", kind=""):
        assert get_contextvars() == {"request_id": "r", "operation": "o"}
    assert get_contextvars() == {}


def test_a_trace_goes_on_where_nothing_keeps_spans() -> None:
    with traces.below({"traceparent": TRACEPARENT}), traces.span("inner"):
        found: dict[str, str] = {}
        traces.inject(found)
        assert traces.trace_id() in found["traceparent"]
        assert found["traceparent"].split("-")[1] == TRACEPARENT.split("-")[1]
    assert traces.trace_id() == ""


def test_stages_count_their_own_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def advance(seconds: float) -> None:
        now[0] += seconds

    def slow() -> Iterator[int]:
        for number in range(2):
            advance(5)
            yield number

    monkeypatch.setattr(stages.time, "perf_counter", lambda: now[0])
    with gathering() as tally, stage(Stage.INSTANCES):
        advance(1)
        for _ in in_stage(Stage.NETWORK, slow()):
            advance(2)
        with stage(Stage.WRITE):
            advance(10)
    seconds = {dict(labels)["stage"]: number for _, labels, number in tally}
    assert seconds == {"segment.instances": 5, "segment.network": 10, "segment.write": 10}


def test_the_store_counts_failures_and_not_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    labels = {"op": "get", "code": "UNAVAILABLE"}
    before = value("granulo_store_errors_total", **labels)
    calls = value("granulo_store_seconds_count", op="get")
    with pytest.raises(GranuloError):
        store.get("uploads/none")
    assert value("granulo_store_seconds_count", op="get") == calls + 1

    def away(*_: object) -> None:
        raise GranuloError(Reason.STORE_UNAVAILABLE, "away")

    monkeypatch.setattr(store, "_path", away)
    with pytest.raises(GranuloError):
        store.get("uploads/none")
    assert value("granulo_store_errors_total", **labels) == before + 1


def test_what_lives_is_looked_up_and_what_has_gone_counts_nothing() -> None:
    forget: list[Callable[[], None]] = [
        LIVE.watch_load(lambda: {("nobody", "slow"): Load(waiting=3, running=1)}),
        LIVE.watch_operations(lambda: {("nobody", "QUEUED"): 2}),
    ]
    assert value("granulo_queue_depth", service="nobody", pool="slow") == 3
    assert value("granulo_tasks_in_flight", pool="slow") == 1
    assert value("granulo_operations", service="nobody", state="QUEUED") == 2
    for each in forget:
        each()
    assert value("granulo_queue_depth", service="nobody", pool="slow") == 0
    assert value("granulo_operations", service="nobody", state="QUEUED") == 0


def test_threads_count_without_loss() -> None:
    before = value("granulo_images_total", service="test")
    threads = [
        threading.Thread(
            target=lambda: [record("granulo_images_total", service="test") for _ in range(500)]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value("granulo_images_total", service="test") == before + 2000


def test_every_metric_is_explained_in_the_docs_and_no_other() -> None:
    rows = dict(re.findall(r"^\| `(granulo_\w+)` \| ([^|]+) \|", DOCS.read_text(), re.MULTILINE))
    assert {name: text.strip() for name, text in rows.items()} == described()
    listed = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", DOCS.read_text(), re.MULTILINE)
    assert listed == [item.value for item in Stage]


def test_the_exposition_is_what_prometheus_reads() -> None:
    record("granulo_scenes_total")
    families = {
        family.name for family in text_string_to_metric_families(generate_latest(REGISTRY).decode())
    }
    assert {"granulo_scenes", "granulo_stage_seconds", "process_cpu_seconds"} <= families
