# SPDX-License-Identifier: GPL-3.0-or-later
"""Training steps against plain Keras float32 `fit`, and how fast a network becomes a served one."""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from stopwatch import Stopwatch, emit

from granulo_trainer.domain.config import TrainingConfig, preset_config
from granulo_trainer.unet import network
from granulo_trainer.unet.export import export_saved_model
from granulo_trainer.unet.steps import Learner
from granulo_trainer.unet.targets import targets_of

ROUNDS = 5
STEPS = 3
CASES = {"paper": ("paper", 1.0), "paper, width 0.25": ("paper", 0.25), "small": ("small", 1.0)}


def main() -> None:
    """Each case in turn, so that the large networks are not in memory together."""
    for title in sys.argv[1:] or CASES:
        preset, width = CASES[title]
        compare_steps(title, preset_config(preset, width=width))
    serve("small", preset_config("small"))


def compare_steps(title: str, config: TrainingConfig) -> None:
    """One step of each in turn: whatever else the machine does, it does to both."""
    rng = np.random.default_rng(0)
    shape = (config.batch_size, config.patch_px, config.patch_px)
    images = rng.integers(0, 256, (*shape, 1), dtype=np.uint8)
    channels = targets_of(config, np.zeros((8, 8), np.uint16)).shape[-1]
    targets = 255 * rng.integers(0, 2, (*shape, channels), dtype=np.uint8)
    learner = Learner(config)

    def ours() -> None:
        for _ in range(STEPS):
            learner.step(images, targets, 1e-4)

    rivals = {
        "plain Keras fit, float32": plain_fit(config, images, targets, "auto"),
        "the same without XLA": plain_fit(config, images, targets, False),
        f"Granulo, {learner.policy_name}": ours,
    }
    for run in rivals.values():
        run()
    # Where others use the machine too, seconds of its cores say more than those of the clock.
    watch, cores = Stopwatch(), Stopwatch()
    for _ in range(ROUNDS):
        for name, run in rivals.items():
            started, used = time.perf_counter(), time.process_time()
            run()
            watch.add(name, (time.perf_counter() - started) / STEPS)
            cores.add(name, (time.process_time() - used) / STEPS)
    for what, measured in (("s per step", watch), ("core seconds per step", cores)):
        plain, without, own = measured.rounds()
        emit(
            f"train {title}, {config.batch_size} x {config.patch_px} px",
            what,
            measured.medians(),
            f"{_ratio(plain, own)} x plain fit, {_ratio(without, own)} x without XLA",
        )


def plain_fit(
    config: TrainingConfig, images: np.ndarray, targets: np.ndarray, jit_compile: bool | str
) -> Callable[[], None]:
    """The same network and loss as anybody would train them: `compile` and `fit`."""
    fused, network.FusedBatchNormalization = (
        network.FusedBatchNormalization,
        keras.layers.BatchNormalization,
    )
    model = network.build_network(config, "float32")
    network.FusedBatchNormalization = fused
    model.compile(
        optimizer=keras.optimizers.Adam(1e-4),
        loss=lambda truth, logits: network.loss_of(config, logits, truth),
        jit_compile=jit_compile,
    )
    x, y = images.astype(np.float32), targets.astype(np.float32) / 255.0
    data = tf.data.Dataset.from_tensors((x, y)).repeat()

    def steps() -> None:
        model.fit(data, steps_per_epoch=STEPS, epochs=1, verbose=0)

    return steps


def _ratio(slower: list[float], faster: list[float]) -> str:
    ratios = sorted(a / b for a, b in zip(slower, faster, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def serve(title: str, config: TrainingConfig) -> None:
    """Export, load, first and second prediction of 1024 x 1024 px."""
    weights = network.build_network(config, "float32").get_weights()
    image = tf.zeros((1, 1024, 1024, 1), tf.uint8)
    watch = Stopwatch()
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            with watch.stage("export"):
                export_saved_model(weights, config, Path(folder) / "1")
            started = time.perf_counter()
            serve = tf.saved_model.load(str(Path(folder) / "1")).signatures["serving_default"]
            watch.add("load", time.perf_counter() - started)
            for stage in ("first prediction, 1024 px", "second prediction"):
                with watch.stage(stage):
                    serve(image=image)
    emit(f"serve {title}", "s", watch.medians())


if __name__ == "__main__":
    main()
