# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the stages of the work take: the rows of docs/performance.md, measured in use."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from granulo_core.telemetry.metrics import record
from granulo_core.telemetry.traces import span

T = TypeVar("T")


class Stage(StrEnum):
    """Every stage that is measured."""

    COMPOSE = "render.compose"
    CYCLES = "render.cycles"
    LABELS = "render.labels"
    STORE_SCENE = "render.store"
    TRAIN_DATA = "train.data"
    TRAIN_NETWORK = "train.network"
    EXPORT_SAVED_MODEL = "export.saved_model"
    EXPORT_ONNX = "export.onnx"
    READ = "segment.read"
    NETWORK = "segment.network"
    INSTANCES = "segment.instances"
    WRITE = "segment.write"
    MEASURE = "analyze.measure"
    OVERLAY = "analyze.overlay"
    EXPORT_SHAPES = "analyze.export"
    STATISTICS = "analyze.statistics"
    REPORT = "analyze.report"


@dataclass
class _Inside:
    """Seconds of a stage that belong to stages inside it."""

    seconds: float = 0.0


_outer: ContextVar[_Inside | None] = ContextVar("stage", default=None)


@contextmanager
def stage(name: Stage, *, is_traced: bool = True) -> Iterator[None]:
    """Measure the block as a stage, and show it in the trace.

    Stages may lie in one another; each counts its own time only, so that those of one unit of work
    add up to the whole. A block that fails counts, too: it has taken its time.

    Parameters
    ----------
    name : Stage
    is_traced : bool
        Make a span of it; not of what is done a hundred thousand times.
    """
    outer, inside = _outer.get(), _Inside()
    token = _outer.set(inside)
    started_s = time.perf_counter()
    try:
        with span(name.value) if is_traced else nullcontext():
            yield
    finally:
        seconds = time.perf_counter() - started_s
        _outer.reset(token)
        if outer is not None:
            outer.seconds += seconds
        record("granulo_stage_seconds", max(0.0, seconds - inside.seconds), stage=name.value)


def in_stage(name: Stage, items: Iterator[T]) -> Iterator[T]:
    """Measure the making of items as one stage, without what is done between them.

    Parameters
    ----------
    name : Stage
    items : iterator
        Taken in one thread.

    Yields
    ------
    T
        The items.
    """
    outer, total_s = _outer.get(), 0.0
    try:
        while True:
            started_s = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                seconds = time.perf_counter() - started_s
                total_s += seconds
                if outer is not None:
                    outer.seconds += seconds
            yield item
    finally:
        record("granulo_stage_seconds", total_s, stage=name.value)
