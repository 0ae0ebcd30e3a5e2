# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker of Ray does with a task: a local engine of its own does it.

So a task is isolated, limited and tried again as on one machine, and when Ray kills its worker the
process that does the work dies with it. Ray's own environments for processes are not needed.
"""

from dataclasses import dataclass

from granulo_core.engine.local import LocalEngine
from granulo_core.engine.port import Task, TaskContext, TaskOutcome
from granulo_core.telemetry import context as telemetry
from granulo_core.telemetry import traces
from granulo_core.telemetry.logs import configure_worker_logging
from granulo_core.telemetry.metrics import Measurements, gathering

_MOST_CPUS = 1 << 10
_engine: LocalEngine | None = None


@dataclass(frozen=True)
class Done:
    """What comes back from a node."""

    outcome: TaskOutcome
    measurements: Measurements
    """For `granulo_core.telemetry.metrics.count_all`."""


def do(task: Task, context: TaskContext) -> Done:
    """Do a task in a process of this node; Ray has set its resources aside.

    Parameters
    ----------
    task : Task
    context : TaskContext
    """
    with gathering() as tally, telemetry.taken_up(context.carried):
        group = _local().submit([task], context.store_url, context.operation)
        (outcome,) = (item for item in group.as_completed() if item is not None)
    return Done(outcome, tuple(tally.items()))


def _local() -> LocalEngine:
    """The engine of this process; it keeps what a task has loaded for the next one."""
    global _engine  # noqa: PLW0603
    if _engine is None:
        configure_worker_logging()
        traces.configure_worker_traces()
        # How much may run at once is Ray's business.
        _engine = LocalEngine(cpus=_MOST_CPUS)
    return _engine
