# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds per rendered scene of `sio2`, 507 px, about 150 particles: everything that is stored.

Where the time of one thread goes, what a further look of a scene costs, and the whole product from
one and from two workers beside a plain Cycles pass of the same scenes.
"""

import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from stopwatch import Stopwatch, emit

from granulo_core.engine.local import LocalEngine
from granulo_core.engine.port import Resources, Task
from granulo_core.imaging.labels import encode_tiff
from granulo_core.store import open_store
from granulo_render import tasks
from granulo_render.convert import ShardJob
from granulo_render.domain.compose import compose
from granulo_render.domain.delivery import deliver
from granulo_render.domain.look import choose_look, draw_micrograph
from granulo_render.domain.plan import DatasetPlan, Shard
from granulo_render.domain.recipe import Recipe, Value
from granulo_render.domain.scene import Scene
from granulo_render.presets import presets

SCENES = 16
ROUNDS = 2
SIZE_PX = 507
PARTICLES = 160  # in the frame and its margin


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store_url = str(Path(folder) / "store")
        plan = DatasetPlan(_recipe(), seed=0, image_count=SCENES + 1, size_px=SIZE_PX)
        # Blender in a process of its own: whoever has loaded it cannot start workers.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as blender:
            blender.submit(in_stages, plan, store_url).result()
            in_workers(plan, store_url, blender)


def in_stages(plan: DatasetPlan, store_url: str) -> None:
    """Where the seconds of one thread go."""
    from granulo_render.blender.layers import render_layers

    store = open_store(store_url)
    job = ShardJob(plan, "datasets/bench", Shard(0, SCENES + 1), "cpu")
    watch, looks = Stopwatch(), Stopwatch()
    particles = 0
    render_layers(_scene(plan, 0))  # Blender starts
    for index in range(1, SCENES + 1):
        with watch.stage("compose"):
            scene = _scene(plan, index)
        with watch.stage("Cycles: geometry and occlusion"):
            layers = render_layers(scene)
        with watch.stage("image and labels"):
            delivery = deliver(plan.recipe, plan.seed, index, scene, layers)
        with watch.stage("encode and store"):
            tasks._put(store, job, index, delivery)
        with looks.stage("draw and encode"):
            look = choose_look(plan.recipe, plan.seed + 1, index, scene.upsampling)
            image, _ = draw_micrograph(delivery.layers, look, plan.seed + 1, index)
            encode_tiff(image, (layers.pixel_size_nm,) * 2, kind="micrograph")
        particles += delivery.labelled
    note = f"{SIZE_PX} px, {particles / SCENES:.0f} particles, one thread"
    emit("render sio2", "s per scene", watch.medians(), note)
    emit("a further look", "s per image", looks.medians(), "of a stored scene, one thread")


def in_workers(plan: DatasetPlan, store_url: str, blender: ProcessPoolExecutor) -> None:
    """The whole product by one and by two workers, in turns with a plain pass on two threads."""
    scenes = [_scene(plan, index) for index in range(1, SCENES + 1)]
    seconds: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, workers in (("one worker", 1), ("two workers", 2)):
            seconds.setdefault(name, []).append(_with_workers(plan, store_url, workers))
        seconds.setdefault("plain pass", []).append(blender.submit(_plain_pass, scenes).result())
    median = {name: statistics.median(values) for name, values in seconds.items()}
    faster = median["one worker"] / median["two workers"]
    share = median["two workers"] / median["plain pass"]
    notes = {
        "one worker": "whole product, one thread",
        "two workers": f"one thread each; {faster:.2f} x one worker, {share:.2f} x plain pass",
        "plain pass": "shaded in Cycles, 16 samples, image only, two threads",
    }
    for name, note in notes.items():
        emit(f"render sio2: {name}", "s per scene", {"all": median[name]}, note)


def _recipe() -> Recipe:
    recipe = presets()["sio2"].recipe
    arrangement = replace(
        recipe.arrangement, density_per_um2=None, coverage=None, count=Value(PARTICLES)
    )
    return replace(recipe, arrangement=arrangement)


def _scene(plan: DatasetPlan, index: int) -> Scene:
    return compose(plan.recipe, plan.seed, index, plan.size_px)


def _with_workers(plan: DatasetPlan, store_url: str, workers: int) -> float:
    """Seconds per scene, without the workers' start."""
    engine = LocalEngine(cpus=workers)
    try:
        _run(engine, plan, store_url, [0] * workers)
        started = time.perf_counter()
        _run(engine, plan, store_url, list(range(1, SCENES + 1)))
        return (time.perf_counter() - started) / SCENES
    finally:
        engine.close()


def _run(engine: LocalEngine, plan: DatasetPlan, store_url: str, scenes: list[int]) -> None:
    group = engine.submit(
        [
            Task(
                id=f"{number}",
                entry_point="granulo_render.tasks:render_shard",
                payload=ShardJob(plan, "datasets/bench", Shard(index, 1), "cpu").to_bytes(),
                resources=Resources(cpu=1, pool="render"),
                timeout_s=300,
            )
            for number, index in enumerate(scenes)
        ],
        store_url,
    )
    for outcome in group.as_completed():
        if outcome is not None and outcome.error is not None:
            raise outcome.error


def _plain_pass(scenes: list[Scene]) -> float:
    """Seconds per scene of what a script for Blender does: one picture, nothing else."""
    import bpy

    from granulo_render.blender.stage import SHADED, stage

    stage().use("cpu")
    context = bpy.context
    layer, render = context.view_layer, context.scene.render
    layer.use_pass_object_index = layer.use_pass_z = layer.use_pass_normal = False
    render.threads = 2
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        for scene in scenes:
            stage().render(scene, Path(folder) / "image.exr", SHADED)
        seconds = (time.perf_counter() - started) / len(scenes)
    layer.use_pass_object_index = layer.use_pass_z = layer.use_pass_normal = True
    render.threads = 1
    return seconds


if __name__ == "__main__":
    main()
