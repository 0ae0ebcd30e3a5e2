# SPDX-License-Identifier: GPL-3.0-or-later
"""The training loop with real TensorFlow: budgets, early ends, events, precision, devices."""

import io
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from granulo_core.errors import GranuloError, Reason
from granulo_core.imaging.appearance import Layers
from granulo_core.store import LocalStore
from granulo_trainer import registry
from granulo_trainer.checkpoints import StoreCheckpoints
from granulo_trainer.domain import budget
from granulo_trainer.domain.budget import End
from granulo_trainer.domain.config import TrainingConfig, preset_config
from granulo_trainer.domain.run import Checkpoint, StepReport
from granulo_trainer.unet import network, train
from granulo_trainer.unet.data import CachedScenes
from granulo_trainer.unet.steps import Learner
from granulo_trainer.unet.views import Scene, median_diameter_px


def grid_scene(_index: int) -> Scene:
    """Flat discs in rows."""
    y, x = np.mgrid[:128, :128]
    ids = (((y % 32 - 16) ** 2 + (x % 32 - 16) ** 2) < 144).astype(np.uint16)
    ids *= (1 + y // 32 * 4 + x // 32).astype(np.uint16)
    layers = Layers(
        occlusion=np.full(ids.shape, 255, np.uint8),
        normals=np.tile(np.array([0, 0, 127], np.int8), (128, 128, 1)),
        height_nm=np.zeros(ids.shape, np.float16),
        instances=ids,
        pixel_size_nm=2.0,
    )
    return Scene(ids, layers, None, None, median_diameter_px(ids))


SCENES = CachedScenes(1, grid_scene)


def tiny(**changes: Any) -> TrainingConfig:
    values: dict[str, Any] = {
        "filters": (4, 6), "patch_px": 32, "batch_size": 2, "epochs": 3, "steps_per_epoch": 4,
        "patches_per_block": 8, "seed": 5, "precision": "float32",
    }  # fmt: skip
    return preset_config("small", **{**values, **changes})


def checkpoints(folder: Path) -> StoreCheckpoints:
    store = LocalStore(folder)
    return StoreCheckpoints(store, registry.claim(store, "m", "sha256:0"))


def arrays(data: bytes) -> list[np.ndarray]:
    with np.load(io.BytesIO(data)) as archive:
        return [archive[name] for name in sorted(archive.files)]


def scalars(store: LocalStore, tag: str) -> list[tuple[int, float]]:
    """Steps and values of a tag over all event files, as another program reads them."""
    found = []
    for key in store.list("models/m/versions/1/tensorboard/"):
        for event in tf.compat.v1.train.summary_iterator(str(store.root / key)):
            found += [
                (event.step, float(tf.make_ndarray(value.tensor)))
                for value in event.summary.value
                if value.tag == tag
            ]
    return found


class KilledAt(StoreCheckpoints):
    """Stands for a process that is killed: before or after an epoch's checkpoint is complete."""

    def __init__(self, store: LocalStore, version: registry.VersionName, epoch: int) -> None:
        super().__init__(store, version)
        self._epoch = epoch

    def save(self, checkpoint: Checkpoint) -> None:
        if checkpoint.epoch == self._epoch:
            raise KeyboardInterrupt
        super().save(checkpoint)


def test_nothing_is_learnt_where_labels_are_not_known() -> None:
    rng = np.random.default_rng(0)
    targets = rng.uniform(size=(2, 16, 16, 4)).astype(np.float32)
    targets[..., 3] = np.arange(16) < 12
    logits = rng.normal(size=(2, 16, 16, 2)).astype(np.float32)
    loss = float(network.loss_of(tiny(), logits, targets))
    for inside, differs in ((False, False), (True, True)):
        changed = logits + (targets[..., 3:] == inside)
        assert (abs(float(network.loss_of(tiny(), changed, targets)) - loss) > 1e-4) == differs


def test_steps_end_the_last_epoch_early_and_it_is_kept(tmp_path: Path) -> None:
    config, kept, seen = tiny(max_steps=6), checkpoints(tmp_path), list[StepReport]()
    train.train(config, SCENES, [], kept, on_step=seen.append)
    history = kept.history()
    assert [figures["steps"] for figures in history] == [4.0, 6.0]
    assert budget.end_of(config, history) is End.STEPS
    assert [report.step for report in seen] == [1, 2, 3, 4, 5, 6]
    assert [report.epoch for report in seen] == [1] * 4 + [2] * 2
    assert {report.expected_steps for report in seen} == {6}
    assert seen[-1].time_left_s == 0.0
    assert seen[-1].loss == pytest.approx(sum(seen[-1].parts.values()))
    assert seen[-1].learning_rate < seen[3].learning_rate * 3
    assert kept.latest().epoch == 2

    before, done = kept.weights(2), len(seen)
    model = train.train(config, SCENES, [], kept, on_step=seen.append)
    assert len(seen) == done, "a finished training was trained on"
    assert train.weights_bytes(model) == before == kept.weights(2)


def test_minutes_end_the_training_and_count_on_over_interruptions(tmp_path: Path) -> None:
    """The clock is put forward through the checkpoint instead of waiting."""
    config = tiny(max_minutes=30.0, epochs=50)
    store = LocalStore(tmp_path)
    version = registry.claim(store, "m", "sha256:0")
    with pytest.raises(KeyboardInterrupt):
        train.train(config, SCENES, [], KilledAt(store, version, 3))
    key = f"{version}/checkpoints/000002/figures.json"
    content = json.loads(store.get(key))
    assert 0.0 < content["figures"]["elapsed_s"] < 600.0
    content["figures"]["elapsed_s"] = 30.0 * 60.0 - 0.001
    store.put(key, json.dumps(content).encode())

    resumed, seen = StoreCheckpoints(store, version), list[StepReport]()
    train.train(config, SCENES, [], resumed, on_step=seen.append)
    assert [report.step for report in seen] == [9]
    assert seen[0].learning_rate == pytest.approx(0.01 * config.learning_rate * 9 / 30, rel=0.01)
    history = resumed.history()
    assert [figures["steps"] for figures in history] == [4.0, 8.0, 9.0]
    assert budget.end_of(config, history) is End.MINUTES


def test_early_stopping_ends_a_run_that_gets_no_better(tmp_path: Path) -> None:
    config, kept = tiny(epochs=30, early_stopping_epochs=2), checkpoints(tmp_path)
    store = LocalStore(tmp_path)
    rising = iter(range(1, 30))

    class Worse(StoreCheckpoints):
        def save(self, checkpoint: Checkpoint) -> None:
            checkpoint.figures["loss"] = float(next(rising))  # type: ignore[index]
            super().save(checkpoint)

    train.train(config, SCENES, [], Worse(store, registry.VersionName("m", 1)))
    assert len(kept.history()) == 3
    assert budget.end_of(config, kept.history()) is End.EARLY_STOPPING


def test_every_scalar_is_in_the_event_files_once_also_after_an_interruption(
    tmp_path: Path,
) -> None:
    store = LocalStore(tmp_path)
    version = registry.claim(store, "m", "sha256:0")
    with pytest.raises(KeyboardInterrupt):
        train.train(tiny(), SCENES, [], KilledAt(store, version, 3))
    train.train(tiny(), SCENES, [], StoreCheckpoints(store, version))

    losses = scalars(store, "step/loss")
    assert [step for step, _ in losses] == list(range(1, 13))
    parts = [scalars(store, f"step/{name}") for name in ("cross_entropy", "dice", "distance")]
    for (_, loss), *values in zip(losses, *parts, strict=True):
        assert loss == pytest.approx(sum(value for _, value in values), rel=1e-5)
    kept = StoreCheckpoints(store, version).history()
    assert scalars(store, "epoch/loss") == [
        (4 * n, pytest.approx(figures["loss"])) for n, figures in enumerate(kept, start=1)
    ]
    names = {"steps_per_second", "images_per_second", "waiting_share", "learning_rate"}
    assert names <= set(kept[0])
    assert all(scalars(store, f"epoch/{name}") for name in names)
    objects = StoreCheckpoints(store, version).kept_objects()
    assert sum("/tensorboard/" in item.key for item in objects) == 3


def test_weights_that_are_no_numbers_are_never_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of the last step of epoch 2 is NaN; its loss is not."""
    kept, honest = checkpoints(tmp_path), Learner._gradients
    steps = tf.Variable(0)

    def spoilt(self: Learner, *arguments: Any) -> Any:
        gradients, parts = honest(self, *arguments)
        count = steps.assign_add(1)
        factor = tf.where(count == 8, np.float32(np.nan), np.float32(1))
        return [gradient * factor for gradient in gradients], parts

    monkeypatch.setattr(Learner, "_gradients", spoilt)
    with pytest.raises(GranuloError, match="epoch 2, step 8; the checkpoint of epoch 1") as caught:
        train.train(tiny(), SCENES, [], kept)
    assert caught.value.reason is Reason.TRAINING_DIVERGED
    assert kept.latest().epoch == 1
    assert all(np.isfinite(array).all() for array in arrays(kept.weights(1)))


def test_lack_of_memory_is_told_with_what_to_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow's own allocator refuses: 2 PiB."""
    honest: Callable[..., dict[str, Any]] = network.loss_parts

    def huge(*arguments: Any) -> dict[str, Any]:
        parts = honest(*arguments)
        size = tf.cast(2**24 + 0 * parts["dice"], tf.int32)
        return {**parts, "huge": 0.0 * tf.reduce_sum(tf.random.uniform([size, 2**25]))}

    monkeypatch.setattr(network, "loss_parts", huge)
    with pytest.raises(GranuloError, match="a batch_size of 1 or a smaller patch_px") as caught:
        train.train(tiny(), SCENES, [], checkpoints(tmp_path))
    assert caught.value.reason is Reason.TRAINING_OUT_OF_MEMORY


@pytest.mark.parametrize(
    "precision", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.long)]
)
def test_asked_for_precision_is_used_and_resumed(precision: str, tmp_path: Path) -> None:
    config = tiny(precision=precision)
    learner = Learner(config)
    assert learner.policy_name == precision
    assert {layer.compute_dtype for layer in learner.network.layers if "conv" in layer.name} == {
        precision.removeprefix("mixed_")
    }
    store = LocalStore(tmp_path)
    version = registry.claim(store, "m", "sha256:0")
    with pytest.raises(KeyboardInterrupt):
        train.train(config, SCENES, [], KilledAt(store, version, 2))
    kept = StoreCheckpoints(store, version)
    train.train(config, SCENES, [], kept)
    assert len(kept.history()) == 3
    final = arrays(kept.weights(3))
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in final)


def test_a_training_begins_with_the_weights_it_is_given(tmp_path: Path) -> None:
    first = checkpoints(tmp_path / "a")
    train.train(tiny(epochs=1), SCENES, [], first)
    given = first.weights(1)
    # A rate so small that the first epoch changes next to nothing.
    second = checkpoints(tmp_path / "b")
    slow = tiny(learning_rate=1e-9, epochs=1, seed=77)
    train.train(slow, SCENES, [], second, first_weights=given)
    trainable = [w for w in arrays(given) if w.ndim == 4]
    found = [w for w in arrays(second.weights(1)) if w.ndim == 4]
    for a, b in zip(trainable, found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


_TWO_DEVICES = """
    import sys
    import numpy as np, tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import keras
    from granulo_trainer.domain.config import preset_config
    from granulo_trainer.unet.steps import Learner

    config = preset_config("small", filters=(4, 6), patch_px=32, batch_size=4, precision="float32")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 4, 32, 32, 1), dtype=np.uint8)
    targets = rng.integers(0, 256, (3, 4, 32, 32, 4), dtype=np.uint8)

    def trained(devices):
        keras.utils.set_random_seed(1)
        learner = Learner(config, devices=devices)
        first = learner.weights()
        losses = [sum(learner.step(x, y, 0.01).values()) for x, y in zip(images, targets)]
        learner.restore_check = learner.optimizer_state()
        return learner.devices, first, learner.weights(), losses

    one, two = trained(["CPU:0"]), trained(["CPU:0", "CPU:1"])
    assert (one[0], two[0]) == (1, 2), (one[0], two[0])
    np.testing.assert_allclose(one[3], two[3], rtol=1e-4)
    moved = 0.0
    for start, a, b in zip(one[1], one[2], two[2]):
        moved = max(moved, float(np.abs(a - start).max()))
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    assert moved > 0.02, moved
    assert Learner(config, devices=["CPU:0", "CPU:1", "CPU:1"]).devices == 2
"""


def test_two_devices_learn_what_one_learns() -> None:
    """In a process of its own: devices are divided before TensorFlow starts."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_TWO_DEVICES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
