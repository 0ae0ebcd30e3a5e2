# SPDX-License-Identifier: GPL-3.0-or-later
"""How a running task tells its operation how far it is: through the store (decision 0002)."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from granulo_core.engine.port import TaskContext
from granulo_core.errors import GranuloError
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore

_INTERVAL_S = 0.5
_last_report_s: dict[str, float] = {}


@dataclass(frozen=True)
class TaskProgress:
    """Latest word of a running task."""

    units_done: float = 0.0
    message: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


def report(
    context: TaskContext,
    *,
    units_done: float,
    message: str = "",
    figures: Mapping[str, float] | None = None,
) -> None:
    """Report progress from inside a task; calls that come too fast are dropped.

    Parameters
    ----------
    context : TaskContext
    units_done : float
        Of the units that the operation counts, within this task.
    message : str
        One line for a person.
    figures : mapping of str to float, optional
        Latest figures, e.g. ``loss``.
    """
    if not context.operation:
        return
    key = progress_key(context.operation, context.task_id)
    now = time.monotonic()
    if now - _last_report_s.get(key, -_INTERVAL_S) < _INTERVAL_S:
        return
    _last_report_s[key] = now
    content = {"units_done": units_done, "message": message, "figures": dict(figures or {})}
    open_store(context.store_url).put(key, json.dumps(content).encode(), "application/json")


def read_progress(store: ObjectStore, operation: str, task_id: str) -> TaskProgress | None:
    """What a task last reported, if anything readable."""
    try:
        return TaskProgress(**json.loads(store.get(progress_key(operation, task_id))))
    except (GranuloError, ValueError, TypeError):
        return None


def progress_key(operation: str, task_id: str) -> str:
    """Key of a task's progress object."""
    return f"{operation}/progress/{task_id}.json"
