# SPDX-License-Identifier: GPL-3.0-or-later
"""Training steps per second of the default network, with the real input pipeline and without."""

import time

from scenes import sphere_layers
from stopwatch import Stopwatch, emit

from granulo_trainer.domain.config import preset_config
from granulo_trainer.unet.data import CachedScenes, PatchStream
from granulo_trainer.unet.steps import Learner
from granulo_trainer.unet.views import Scene, median_diameter_px

STEPS = 20


def main() -> None:
    config = preset_config("small")
    scenes = [_scene(seed) for seed in range(8)]
    source = CachedScenes(len(scenes), scenes.__getitem__)
    learner = Learner(config)
    stream = PatchStream(source, config)
    batches = iter(stream)
    batch = next(batches)
    learner.step(*batch, config.learning_rate)  # traced here
    watch, alone = Stopwatch(), Stopwatch()
    for _ in range(STEPS):
        started = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter()
        learner.step(*batch, config.learning_rate)
        watch.add("wait for data", waited - started)
        watch.add("network", time.perf_counter() - waited)
    stream.close()
    for _ in range(STEPS):
        with alone.stage("network"):
            learner.step(*batch, config.learning_rate)
    stages = watch.medians()
    rate = 1.0 / sum(stages.values())
    share = rate * alone.medians()["network"]
    note = (
        f"{rate:.2f} steps/s of {config.batch_size} patches of {config.patch_px} px, "
        f"{share:.2f} x the rate on data in memory"
    )
    emit("train small", "s per step", stages, note)


def _scene(seed: int) -> Scene:
    layers = sphere_layers(512, 40, seed)
    return Scene(layers.instances, layers, None, None, median_diameter_px(layers.instances))


if __name__ == "__main__":
    main()
