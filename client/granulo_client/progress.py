# SPDX-License-Identifier: Apache-2.0
"""Progress on standard error: bars on a terminal, a line now and then elsewhere, or nothing."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from google.protobuf.message import Message
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from granulo.type.v1 import progress_pb2
from granulo_client.jobs import Job

T = TypeVar("T", bound=Message)

_LINE_INTERVAL_S = 5.0
_STATE = progress_pb2.Progress.State


class Stage(Protocol):
    """One piece of work whose progress is shown."""

    def update(
        self, *, done: float, total: float | None = None, unit: str = "", note: str = ""
    ) -> None:
        """Show how far it is; a total of ``None`` means unknown."""


class Reporter:
    """Shows stages; this one shows nothing."""

    @contextmanager
    def stage(self, title: str, *, total: float | None = None, unit: str = "") -> Iterator[Stage]:
        """Show a piece of work for the duration of a ``with`` block."""
        del title, total, unit
        yield _SilentStage()

    def note(self, text: str) -> None:
        """Tell the user something that is no result."""

    def follow(self, job: Job[T], title: str) -> T:
        """Wait for a job and show its progress; its result or its error."""
        if job.operation.done:
            return job.result()
        with self.stage(title) as stage:
            return job.result(lambda progress: show_progress(progress, stage))

    def counter(self, stage: Stage, total: float, unit: str) -> Callable[[int], None]:
        """Make a function that advances a stage by the number it is given."""
        done = 0

        def advance(amount: int) -> None:
            nonlocal done
            done += amount
            stage.update(done=done, total=total, unit=unit)

        return advance


class _SilentStage:
    def update(
        self, *, done: float, total: float | None = None, unit: str = "", note: str = ""
    ) -> None:
        """Show nothing."""


class LineReporter(Reporter):
    """For logs and pipes: a line at the start, every few seconds and at the end."""

    @contextmanager
    def stage(self, title: str, *, total: float | None = None, unit: str = "") -> Iterator[Stage]:
        """Show a piece of work for the duration of a ``with`` block."""
        stage = _LineStage(title, total, unit)
        self.note(f"{title} ...")
        yield stage
        self.note(f"{title}: {stage.summary()}done in {stage.elapsed_s:.1f} s")

    def note(self, text: str) -> None:
        """Write a line."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class _LineStage:
    def __init__(self, title: str, total: float | None, unit: str) -> None:
        self._title = title
        self._done, self._total, self._unit = 0.0, total, unit
        self._start_s = self._last_s = time.monotonic()
        # What was done before, e.g. by an interrupted run, says nothing about the pace.
        self._first: tuple[float, float] | None = None

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start_s

    def summary(self) -> str:
        return f"{amount(self._done, self._total, self._unit)}, " if self._done else ""

    def update(
        self, *, done: float, total: float | None = None, unit: str = "", note: str = ""
    ) -> None:
        self._done, self._unit = done, unit or self._unit
        self._total = total if total is not None else self._total
        now_s = time.monotonic()
        self._first = self._first or (now_s, done)
        if now_s - self._last_s < _LINE_INTERVAL_S:
            return
        self._last_s = now_s
        parts = [amount(self._done, self._total, self._unit), *self._pace(now_s)]
        text = ", ".join([*parts, note] if note else parts)
        sys.stderr.write(f"{self._title}: {text} ({self.elapsed_s:.0f} s)\n")
        sys.stderr.flush()

    def _pace(self, now_s: float) -> list[str]:
        """Speed and time left, once there is something to tell them from."""
        first_s, first_done = self._first or (now_s, self._done)
        if self._done <= first_done or now_s <= first_s:
            return []
        speed = (self._done - first_done) / (now_s - first_s)
        if self._total is None or self._done >= self._total:
            return [pace(speed, self._unit)]
        left_s = (self._total - self._done) / speed
        return [pace(speed, self._unit), f"{_time(left_s)} left"]


class BarReporter(Reporter):
    """For terminals: bars."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    @contextmanager
    def stage(self, title: str, *, total: float | None = None, unit: str = "") -> Iterator[Stage]:
        """Show a piece of work for the duration of a ``with`` block."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<22}", style="bold"),
            BarColumn(bar_width=28),
            _AmountColumn(),
            _PaceColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(title, total=total, unit=unit, note="")
            yield _BarStage(progress, task)
            shown = progress.tasks[0]
            end = shown.total if shown.total is not None else max(shown.completed, 1)
            progress.update(task, total=end, completed=end, note="")

    def note(self, text: str) -> None:
        """Write a line above the bars."""
        self._console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)


class _BarStage:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def update(
        self, *, done: float, total: float | None = None, unit: str = "", note: str = ""
    ) -> None:
        self._progress.update(self._task, completed=done, total=total, unit=unit, note=note)


class _AmountColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = str(task.fields["unit"])
        return Text(amount(task.completed, task.total, unit) if unit else "", style="green")


class _PaceColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit, speed = str(task.fields["unit"]), task.finished_speed or task.speed
        return Text(pace(speed, unit) if unit and speed else "", style="cyan")


def make_reporter(quiet: bool) -> Reporter:
    """Reporter for this process' standard error."""
    if quiet:
        return Reporter()
    return BarReporter() if sys.stderr.isatty() else LineReporter()


def amount(done: float, total: float | None, unit: str) -> str:
    """Write ``3 of 6 scenes`` or ``1.5 of 20.0 MB``."""
    if unit == "byte":
        if max(done, total or 0) < 1e6:
            return f"{max(done, total or 0) / 1e3:.0f} kB"
        whole = "" if total is None else f" of {total / 1e6:.1f}"
        return f"{done / 1e6:.1f}{whole} MB"
    whole = "" if total is None else f" of {total:g}"
    plural = f"{unit}s" if unit and (total if total is not None else done) != 1 else unit
    return f"{done:g}{whole} {plural}".strip()


def pace(speed: float, unit: str) -> str:
    """Write a speed: ``1.6 scenes/s``, ``12 s/scene`` or ``3.5 MB/s``.

    Parameters
    ----------
    speed : float
        Units a second, above 0.
    unit : str
    """
    if unit == "byte":
        return f"{speed / 1e6:.1f} MB/s"
    if speed < 0.2:
        return f"{1 / speed:.0f} s/{unit}"
    return f"{speed:.2g} {unit}s/s" if speed < 10 else f"{speed:.0f} {unit}s/s"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def show_progress(progress: progress_pb2.Progress, stage: Stage) -> None:
    """Show an operation's progress on a stage."""
    note = progress.message
    if progress.state == _STATE.STATE_QUEUED:
        note = note or "waiting for other operations"
    elif progress.state == _STATE.STATE_CANCELLING:
        note = "stopping"
    elif not note:
        note = ", ".join(f"{name} {value:.3g}" for name, value in sorted(progress.figures.items()))
    if progress.units_failed:
        note = f"{progress.units_failed} failed; {note}".rstrip("; ")
    stage.update(
        done=progress.units_done,
        total=progress.units_total or None,
        unit=progress.unit,
        note=note,
    )
