# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens inside a worker process of the local engine."""

import ctypes
import importlib
import os
import signal
import sys
from dataclasses import dataclass

import structlog

from granulo_core.engine.port import TaskContext
from granulo_core.errors import GranuloError, Reason
from granulo_core.telemetry import context as telemetry
from granulo_core.telemetry import traces
from granulo_core.telemetry.logs import configure_worker_logging
from granulo_core.telemetry.metrics import Measurements, gathering

_PR_SET_PDEATHSIG = 1
# Libraries that read their thread count when they are loaded.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


@dataclass(frozen=True)
class Answer:
    """What comes back from a worker; exactly one of ``receipt`` and ``error`` is set."""

    receipt: bytes | None = None
    error: GranuloError | None = None
    measurements: Measurements = ()
    """For `granulo_core.telemetry.metrics.count_all`."""


def initialise(parent_pid: int, threads: int) -> None:
    """Prepare a fresh worker: it dies with its parent and keeps to its share of the cores."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # the parent died before the line above
            os._exit(1)
    # Ctrl-C belongs to the parent, which ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # pebble's handler is Python and would wait for the end of a call into bpy or TensorFlow.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    configure_worker_logging()
    traces.configure_worker_traces()


def run_task(entry_point: str, context: TaskContext, payload: bytes) -> Answer:
    """Run one task; what it raises comes back as an error with a reason."""
    where = telemetry.taken_up(context.carried, operation=context.operation, task=context.task_id)
    with gathering() as tally, where, traces.span(entry_point) as span:
        result = _run(entry_point, context, payload)
        if isinstance(result, GranuloError):
            traces.failed(span, result.message)
    measurements = tuple(tally.items())
    if isinstance(result, GranuloError):
        return Answer(error=result, measurements=measurements)
    return Answer(receipt=result, measurements=measurements)


def _run(entry_point: str, context: TaskContext, payload: bytes) -> bytes | GranuloError:
    try:
        module, _, function = entry_point.partition(":")
        receipt = getattr(importlib.import_module(module), function)(context, payload)
    except GranuloError as error:
        return error
    except (Exception, SystemExit) as error:
        structlog.get_logger(__name__).exception(
            "task failed", task=context.task_id, operation=context.operation
        )
        return GranuloError(
            Reason.TASK_FAILED,
            f"Task {context.task_id} ({entry_point}) failed: {type(error).__name__}: {error}. "
            "The worker's log has the trace.",
            metadata={"task": context.task_id},
        )
    if not isinstance(receipt, bytes):
        return GranuloError(
            Reason.TASK_FAILED,
            f"{entry_point} returned {type(receipt).__name__} instead of a receipt's bytes.",
        )
    return receipt
