# SPDX-License-Identifier: GPL-3.0-or-later
"""A small kind of operation for tests: one text object per shard, each making written down.

``python operation_jobs.py STORE_URL FOLDER COUNT`` starts it and lives until it is killed.
"""

import sys
import time
from pathlib import Path

from granulo.render.v1 import render_service_pb2 as pb
from granulo_core.engine.local import LocalEngine
from granulo_core.engine.port import Task, TaskContext
from granulo_core.errors import GranuloError, Reason
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.reporting import report
from granulo_core.operations.runner import OperationContext, OperationRunner, Workflow
from granulo_core.store import ObjectStore, open_store

SERVICE = "render"
KIND = "CreateDataset"
OBJECTS = "datasets/ds-test"
_WAIT_S = 60.0


def request(folder: Path, count: int, request_id: str = "") -> pb.CreateDatasetRequest:
    """A request whose shards write down in ``folder`` that they were made."""
    dataset = pb.Dataset(name=str(folder), image_count=count)
    return pb.CreateDatasetRequest(dataset=dataset, request_id=request_id)


def target(count: int) -> str:
    """What a request of this many shards makes."""
    return f"datasets/ds-{count}"


def write_shard(context: TaskContext, payload: bytes) -> bytes:
    """Store one object. A file ``<shard>.fail``, ``.offline`` or ``.hold`` says what to do."""
    folder = Path(payload.decode())
    with (folder / "made").open("a") as made:
        made.write(f"{context.task_id}\n")
    report(context, units_done=0.5, message=f"half of {context.task_id}", figures={"half": 0.5})
    end_s = time.monotonic() + _WAIT_S
    while (folder / f"{context.task_id}.hold").exists() and time.monotonic() < end_s:
        time.sleep(0.02)
    if (folder / f"{context.task_id}.fail").exists():
        raise GranuloError(Reason.IMAGE_UNREADABLE, f"{context.task_id} cannot be read.")
    if (folder / f"{context.task_id}.offline").exists():
        raise GranuloError(Reason.STORE_UNAVAILABLE, "The store does not answer.")
    key = f"{OBJECTS}/{context.task_id}.txt"
    stored = open_store(context.store_url).put(key, context.task_id.encode())
    return Receipt((stored,), {"letters": len(context.task_id)}).to_bytes()


def make_dataset(context: OperationContext, *, allow_failures: bool = False) -> pb.Dataset:
    """Plan, run, reduce."""
    wanted = context.request
    assert isinstance(wanted, pb.CreateDatasetRequest)
    tasks = [
        Task(f"s{i:02d}", "operation_jobs:write_shard", wanted.dataset.name.encode())
        for i in range(wanted.dataset.image_count)
    ]
    receipts = context.run_tasks(tasks, unit="scene", allow_failures=allow_failures)
    return pb.Dataset(name=context.target, image_count=len(receipts))


def make_runner(
    store: ObjectStore,
    engine: LocalEngine,
    max_running: int = 4,
    *,
    allow_failures: bool = False,
    answers_only: bool = False,
    store_patience_s: float = 0.0,
) -> OperationRunner:
    """A runner that knows this kind of operation only."""

    def run(context: OperationContext) -> pb.Dataset:
        return make_dataset(context, allow_failures=allow_failures)

    workflow = Workflow(KIND, pb.CreateDatasetRequest, pb.CreateDatasetMetadata, run)
    return OperationRunner(
        SERVICE,
        store,
        engine,
        [workflow],
        max_running,
        answers_only=answers_only,
        store_patience_s=store_patience_s,
    )


def main() -> None:
    """Start an operation and wait for the end."""
    store = open_store(sys.argv[1])
    runner = make_runner(store, LocalEngine(cpus=1))
    count = int(sys.argv[3])
    operation = runner.start(
        KIND,
        request(Path(sys.argv[2]), count, "first"),
        target=target(count),
        request_id="first",
    )
    sys.stdout.write(f"{operation.name}\n")
    sys.stdout.flush()
    time.sleep(600)


if __name__ == "__main__":
    main()
