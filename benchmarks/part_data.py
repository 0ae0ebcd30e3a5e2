# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the input keep the network busy? Patches drawn from a store, beside patches in memory.

Seconds say how long the network waits, and how much slower its steps are beside the drawing; on a
machine with other work only the processor's time of both says the latter. Annotated images are
drawn ones: no real image is part of a benchmark.
"""

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scenes import micrograph
from stopwatch import Stopwatch, emit

from granulo_core.imaging.labels import encode_tiff
from granulo_core.store import LocalStore, ObjectStore
from granulo_core.store import manifest as manifests
from granulo_core.store.port import digest_of
from granulo_trainer import annotated, datasets
from granulo_trainer.domain.annotation import ImportPlan, SourcePair
from granulo_trainer.domain.config import Preset, preset_config
from granulo_trainer.domain.job import StoredImage
from granulo_trainer.unet.data import PatchStream, drawing_threads
from granulo_trainer.unet.steps import Learner

RENDERED, ANNOTATED = "datasets/bench", "annotated/bench"
SCENES = 24
SIDE_PX = 1024
STEPS = 32
"""Two blocks of patches are used and two are drawn in as many steps."""
WARM_UP = 3


def main() -> None:
    presets = sys.argv[1:] or ["small"]
    with tempfile.TemporaryDirectory(prefix="granulo-bench-") as folder:
        store = LocalStore(Path(folder))
        _put_rendered(store)
        _put_annotated(store)
        for preset in presets:
            for title, names, weights in (
                ("layers", [RENDERED], None),
                ("annotated images", [ANNOTATED], None),
                ("both, 1 to 3", [RENDERED, ANNOTATED], {RENDERED: 1.0, ANNOTATED: 3.0}),
            ):
                _measure(store, preset, title, names, weights)


def _measure(
    store: ObjectStore,
    preset: Preset,
    title: str,
    names: list[str],
    weights: Mapping[str, float] | None,
) -> None:
    config = preset_config(preset)
    learner = Learner(config)

    def take_step(images: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
        learner.step(images, target, config.learning_rate)

    scenes = datasets.list_scenes(store, names)
    source = datasets.training_scenes(store, scenes, config, weights)
    stream = PatchStream(source, config)
    batches = iter(stream)
    in_memory = [next(batches) for _ in range(WARM_UP)]
    for batch in in_memory:
        take_step(*batch)
    # With the drawing at work, and at rest: what the drawing takes from the network shows too.
    drawn, memory = Stopwatch(), Stopwatch()
    _wait_for_drawing(stream)
    cpu = [time.process_time()]
    for _ in range(STEPS):
        started = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter()
        take_step(*batch)
        drawn.add("wait for data", waited - started)
        drawn.add("network", time.perf_counter() - waited)
    _wait_for_drawing(stream)
    cpu.append(time.process_time())
    stream.close()
    cpu.append(time.process_time())
    for number in range(STEPS):
        with memory.stage("network"):
            take_step(*in_memory[number % WARM_UP])
    cpu.append(time.process_time())
    stages = drawn.medians()
    waiting = statistics.mean(drawn.values("wait for data"))
    step = statistics.mean(drawn.values("network")) + waiting
    note = (
        f"{1 / step:.2f} steps/s, waiting {waiting / step:.1%} of a step (mean), "
        f"{memory.medians()['network'] / sum(stages.values()):.2f} x the rate on data in memory by "
        f"the clock, {(cpu[3] - cpu[2]) / (cpu[1] - cpu[0]):.2f} x by the processor's time; "
        f"{drawing_threads()} threads, {len(scenes)} scenes"
    )
    emit(f"train {preset} on {title}", "s per step", stages, note)


def _wait_for_drawing(stream: PatchStream) -> None:
    wait([patch for block in stream._blocks.values() for patch in block])


def _put_rendered(store: ObjectStore) -> None:
    """A dataset as the renderer stores it: layers, images and labels."""
    objects = []
    for number in range(SCENES):
        image, layers = micrograph(SIDE_PX, 60, number)
        labels = io.BytesIO()
        tifffile.imwrite(labels, layers.instances, compression="zlib")
        tiff = encode_tiff(image, None, kind="micrograph")
        stem = f"{number:06d}"
        objects += [
            store.put(f"{RENDERED}/layers/{stem}.npz", layers.save()),
            store.put(f"{RENDERED}/images/{stem}.tif", tiff),
            store.put(f"{RENDERED}/labels/{stem}.tif", labels.getvalue()),
        ]
    producer = manifests.producer("render", 0)
    manifest = manifests.Manifest(RENDERED, "Dataset", tuple(objects), (), producer, {})
    manifests.commit(store, RENDERED, manifest)


def _put_annotated(store: ObjectStore) -> None:
    pairs = []
    for number in range(SCENES):
        image, layers = micrograph(SIDE_PX, 60, 1000 + number)
        files = []
        for kind, data in (
            ("image", encode_tiff(image, None, kind="micrograph")),
            ("labels", encode_tiff(layers.instances, None, kind="labels")),
        ):
            digest = digest_of(data)
            stored = store.put(f"uploads/{digest.removeprefix('sha256:')}", data)
            files.append(StoredImage(stored.key, stored.digest, f"{number}_{kind}.tif"))
        pairs.append(SourcePair(*files))
    plan = ImportPlan("bench", tuple(pairs), None, 0)
    images = annotated.check(store, plan, 1 << 24)
    objects = annotated.write(store, plan, 1 << 24)
    annotated.commit(store, plan, images, objects, {})


if __name__ == "__main__":
    main()
