# SPDX-License-Identifier: GPL-3.0-or-later
"""How a running task tells its operation how far it is: through the store (decision 0002)."""

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache

import structlog

from granulo_core.engine.port import TaskContext
from granulo_core.errors import GranuloError
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore

_log = structlog.get_logger(__name__)
_INTERVAL_S = 0.5
_LONG_S, _LONG_INTERVAL_S = 10.0, 2.0
"""Of tasks that take longer, fewer reports do: each is a write to the store."""
_first_report_s: dict[str, float] = {}
_last_report_s: dict[str, float] = {}


@dataclass(frozen=True)
class TaskProgress:
    """Latest word of a running task."""

    units_done: float = 0.0
    message: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    units_total: float | None = None
    """How many units the task now expects to have; None: as many as were planned."""


def report(
    context: TaskContext,
    *,
    units_done: float,
    message: str = "",
    figures: Mapping[str, float] | None = None,
    units_total: float | None = None,
) -> None:
    """Report progress from inside a task; calls that come too fast are dropped.

    A report that cannot be stored is dropped too: it is no reason to lose the task's work.

    Parameters
    ----------
    context : TaskContext
    units_done : float
        Of the units that the operation counts, within this task.
    message : str
        One line for a person.
    figures : mapping of str to float, optional
        Latest figures, e.g. ``loss``.
    units_total : float, optional
        Units that the task now expects to have, where that differs from what was planned.
    """
    if not context.operation:
        return
    key = progress_key(context.operation, context.task_id)
    now = time.monotonic()
    is_long = now - _first_report_s.setdefault(key, now) > _LONG_S
    interval_s = _LONG_INTERVAL_S if is_long else _INTERVAL_S
    if now - _last_report_s.get(key, -interval_s) < interval_s:
        return
    _last_report_s[key] = now
    content = {
        "units_done": units_done,
        "message": message,
        "figures": dict(figures or {}),
        "units_total": units_total,
    }
    try:
        _store(context.store_url).put(key, json.dumps(content).encode(), "application/json")
    except GranuloError as error:
        _log.warning("progress not stored", task=context.task_id, message=error.message)


def read_progress(
    store: ObjectStore, operation: str, task_ids: Collection[str]
) -> dict[str, TaskProgress]:
    """What each of the given tasks last reported, where that is something readable.

    Parameters
    ----------
    store : ObjectStore
    operation : str
    task_ids : collection of str
        Tasks that have not ended.
    """
    found: dict[str, TaskProgress] = {}
    # One listing, because most of a thousand waiting tasks have reported nothing.
    for key in store.list(f"{operation}/progress/"):
        task_id = key.rpartition("/")[2].removesuffix(".json")
        if task_id in task_ids:
            try:
                found[task_id] = TaskProgress(**json.loads(store.get(key)))
            except (GranuloError, ValueError, TypeError):
                continue
    return found


def progress_key(operation: str, task_id: str) -> str:
    """Key of a task's progress object."""
    return f"{operation}/progress/{task_id}.json"


@cache
def _store(url: str) -> ObjectStore:
    return open_store(url)
