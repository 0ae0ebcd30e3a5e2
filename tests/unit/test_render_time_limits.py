# SPDX-License-Identifier: GPL-3.0-or-later
"""Time that a rendering task has: a GPU's driver may have to compile Blender's kernels first."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from granulo.render.v1 import render_service_pb2 as pb
from granulo_core.engine.port import Task, TaskOutcome
from granulo_core.operations.runner import OperationContext
from granulo_core.store import open_store
from granulo_render import workflow
from granulo_render.domain.plan import DatasetPlan
from granulo_render.presets import presets
from granulo_render.settings import RenderSettings

COMPILATION_S = 470.0
"""Blender 4.5's kernels for compute capability 9.0, by ptxas on one core: docs/performance.md."""
SCENE_S = 2.0

LimitsOf = Callable[[str, Path], list[float]]


class SubmittedError(Exception):
    """Ends a workflow where it would wait for workers."""


class _Recorder:
    """An engine whose tasks never end, and the part of an operation that hands them out."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []

    def submit(self, tasks: Sequence[Task], store_url: str, operation: str = "") -> "_Recorder":
        self.tasks += tasks
        return self

    def as_completed(self, poll_s: float | None = None) -> Iterator[TaskOutcome | None]:
        yield None

    def run_tasks(self, tasks: Sequence[Task], **_options: object) -> None:
        self.tasks += tasks
        raise SubmittedError

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        pass


def _limits_of_previews(device: str, folder: Path) -> list[float]:
    recorder = _Recorder()
    plan = DatasetPlan(presets()["tio2"].recipe, seed=1, image_count=2, size_px=512)
    next(workflow.preview(recorder, open_store(str(folder)), plan, device, sheet=False))
    return [task.timeout_s or 0.0 for task in recorder.tasks]


def _limits_of_datasets(device: str, folder: Path) -> list[float]:
    recorder = _Recorder()
    dataset = pb.Dataset(preset="tio2", image_count=2, size_px=512)
    context = SimpleNamespace(
        request=pb.CreateDatasetRequest(dataset=dataset),
        store=open_store(str(folder)),
        target="datasets/limits",
        run_tasks=recorder.run_tasks,
    )
    settings = RenderSettings.model_validate({"render_device": device})
    with pytest.raises(SubmittedError):
        workflow.create_dataset(settings).run(cast("OperationContext", context))
    return [task.timeout_s or 0.0 for task in recorder.tasks]


@pytest.mark.parametrize("limits_of", [_limits_of_previews, _limits_of_datasets])
@pytest.mark.parametrize("device", ["auto", "optix", "cuda", "hip", "oneapi", "metal"])
def test_the_smallest_task_on_a_gpu_outlasts_the_compilation_of_kernels(
    limits_of: LimitsOf, device: str, tmp_path: Path
) -> None:
    limits = limits_of(device, tmp_path)
    assert len(limits) == 2
    assert min(limits) > 2 * (COMPILATION_S + SCENE_S)  # a processor half as fast


@pytest.mark.parametrize("limits_of", [_limits_of_previews, _limits_of_datasets])
def test_a_task_on_the_cpu_that_hangs_is_stopped_within_five_minutes(
    limits_of: LimitsOf, tmp_path: Path
) -> None:
    limits = limits_of("cpu", tmp_path)
    assert len(limits) == 2
    assert 100 * SCENE_S < min(limits) <= max(limits) <= 300
