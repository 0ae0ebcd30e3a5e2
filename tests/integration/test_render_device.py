# SPDX-License-Identifier: GPL-3.0-or-later
"""Which device renders: the setting, what the machine has, and what is said when it has it not."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from granulo_core.errors import GranuloError, Reason


def _choose(wanted: str, found: dict[str, list[str]]) -> tuple[str, tuple[str, ...]]:
    from granulo_render.blender.device import choose

    device = choose(wanted, found)
    return device.kind, device.names


def _start(wanted: str, store: str) -> tuple[str, str, bool]:
    """Kind of device, Cycles' own setting and whether kernels are kept beside the store."""
    from granulo_render.blender.device import configure
    from granulo_render.blender.stage import bpy

    os.environ.pop("CUDA_CACHE_PATH", None)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    device = configure(scene, wanted, store)
    kept = os.environ.get("CUDA_CACHE_PATH", "").startswith(str(Path(store).parent / "cache"))
    return device.kind, scene.cycles.device, kept


@pytest.fixture(scope="module")
def pool() -> object:
    """A process for bpy, which shares none with TensorFlow."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize(
    ("wanted", "found", "kind"),
    [
        ("cpu", {"optix": ["A"]}, "cpu"),
        ("auto", {}, "cpu"),
        ("auto", {"optix": [], "cuda": []}, "cpu"),
        ("auto", {"cuda": ["A"], "optix": ["A"]}, "optix"),
        ("auto", {"metal": ["M"]}, "metal"),
        ("cuda", {"cuda": ["A"], "optix": ["A"]}, "cuda"),
        ("hip", {"hip": ["R1", "R2"]}, "hip"),
        ("oneapi", {"oneapi": ["X"]}, "oneapi"),
    ],
)
def test_the_setting_chooses_among_what_is_there(
    pool: ProcessPoolExecutor, wanted: str, found: dict[str, list[str]], kind: str
) -> None:
    chosen, names = pool.submit(_choose, wanted, found).result()
    assert chosen == kind
    assert names == (() if kind == "cpu" else tuple(found[kind]))


@pytest.mark.parametrize(
    ("found", "named"),
    [({}, "no GPU, only the CPU"), ({"cuda": ["Card A", "Card B"]}, "cuda (Card A, Card B)")],
)
def test_an_absent_gpu_is_an_error_that_names_what_was_found(
    pool: ProcessPoolExecutor, found: dict[str, list[str]], named: str
) -> None:
    with pytest.raises(GranuloError) as caught:
        pool.submit(_choose, "hip", found).result()
    assert caught.value.reason is Reason.FIELD_INVALID
    assert "GRANULO_RENDER_DEVICE" in str(caught.value)
    assert "hip" in str(caught.value)
    assert named in str(caught.value)


def test_blender_takes_the_device(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    assert pool.submit(_start, "cpu", store).result() == ("cpu", "CPU", False)
    kind, used, kept = pool.submit(_start, "auto", store).result()
    assert used == ("CPU" if kind == "cpu" else "GPU")
    assert kept


def test_blender_refuses_a_gpu_that_no_linux_machine_has(
    pool: ProcessPoolExecutor, tmp_path: Path
) -> None:
    with pytest.raises(GranuloError, match="asks for metal, but Cycles found"):
        pool.submit(_start, "metal", str(tmp_path / "store")).result()
