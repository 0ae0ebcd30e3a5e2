# SPDX-License-Identifier: GPL-3.0-or-later
"""Training with real TensorFlow at tiny sizes: resuming, export, divergence, parameter counts."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from granulo_core.errors import GranuloError, Reason
from granulo_core.imaging.appearance import Layers
from granulo_core.store import LocalStore
from granulo_trainer import registry
from granulo_trainer.checkpoints import StoreCheckpoints
from granulo_trainer.domain.config import METADATA_NAME, TrainingConfig, preset_config
from granulo_trainer.domain.pictures import decode_png
from granulo_trainer.domain.run import Checkpoint, ValidationImage
from granulo_trainer.unet import network, train
from granulo_trainer.unet.data import CachedScenes
from granulo_trainer.unet.export import export_saved_model
from granulo_trainer.unet.predict import predictor
from granulo_trainer.unet.views import Scene, median_diameter_px


def disc_scene(seed: int, side: int = 128) -> Scene:
    """Analytic hemispheres on a flat substrate."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    height = np.zeros((side, side), np.float32)
    ids = np.zeros((side, side), np.uint16)
    for number in range(1, 9):
        row, column = rng.uniform(0, side, 2)
        cap = 14.0**2 - (y - row) ** 2 - (x - column) ** 2
        surface = np.sqrt(np.clip(cap, 0, None))
        ids[(cap > 0) & (surface > height)] = number
        height = np.maximum(height, surface)
    slope_y, slope_x = np.gradient(height)
    normals = np.dstack([-slope_x, -slope_y, np.ones_like(height)])
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    layers = Layers(
        occlusion=np.full(ids.shape, 255, np.uint8),
        normals=np.rint(normals * 127).astype(np.int8),
        height_nm=height.astype(np.float16),
        instances=ids,
        pixel_size_nm=1.0,
    )
    return Scene(ids, layers, None, None, median_diameter_px(ids))


SCENES = CachedScenes(3, disc_scene)


def tiny(**changes: Any) -> TrainingConfig:
    values: dict[str, Any] = {
        "filters": (4, 6, 8), "patch_px": 64, "batch_size": 2, "epochs": 2, "steps_per_epoch": 4,
        "patches_per_block": 8, "seed": 5,
    }  # fmt: skip
    return preset_config("small", **{**values, **changes})


def checkpoints(store: LocalStore) -> StoreCheckpoints:
    return StoreCheckpoints(store, registry.claim(store, "m", "sha256:0"))


def arrays(data: bytes) -> list[np.ndarray]:
    with np.load(io.BytesIO(data)) as archive:
        return [archive[name] for name in sorted(archive.files)]


def test_parameter_counts_of_the_paper() -> None:
    model = network.build_network(preset_config("paper"))
    normalisations = [
        layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    in_normalisations = sum(layer.count_params() for layer in normalisations)
    assert model.count_params() - in_normalisations == 31_030_593
    assert trainable == 31_042_369
    assert model.count_params() == 31_054_145


def test_fused_normalisation_learns_what_keras_own_learns() -> None:
    rng = np.random.default_rng(0)
    values = tf.constant(rng.normal(3.0, 2.0, (4, 8, 8, 5)), tf.float32)
    weight = tf.constant(rng.normal(0.0, 1.0, (4, 8, 8, 5)), tf.float32)
    found = []
    for kind in (keras.layers.BatchNormalization, network.FusedBatchNormalization):
        layer = kind(momentum=0.9)
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = tf.reduce_sum(weight * layer(values, training=True))
        gradients = tape.gradient(loss, [values, *layer.trainable_weights])
        found.append([loss, *gradients, *layer.get_weights(), layer(values, training=False)])
    for own, fused in zip(*found, strict=True):
        np.testing.assert_allclose(own, fused, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("preset", "most_bytes"), [("small", 10.7e6), ("base", 15e6)])
def test_networks_of_make_default_model_fit_into_the_package(
    preset: str, most_bytes: float
) -> None:
    assert network.build_network(preset_config(preset)).count_params() * 4 < most_bytes


class StopAfter(StoreCheckpoints):
    """Stands for a process that is killed: nothing happens after its epoch's checkpoint."""

    def save(self, checkpoint: Checkpoint) -> None:
        super().save(checkpoint)
        raise KeyboardInterrupt


def test_interrupted_and_resumed_training_equals_undisturbed(tmp_path: Path) -> None:
    config = tiny()
    whole = checkpoints(LocalStore(tmp_path / "a"))
    train.train(config, SCENES, [], whole)

    store = LocalStore(tmp_path / "b")
    version = registry.claim(store, "m", "sha256:0")
    with pytest.raises(KeyboardInterrupt):
        train.train(config, SCENES, [], StopAfter(store, version))
    resumed = StoreCheckpoints(store, version)
    assert resumed.latest().epoch == 1
    train.train(config, SCENES, [], resumed)

    first, second = arrays(whole.weights(2)), arrays(resumed.weights(2))
    untrained = network.build_network(config).get_weights()
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(first, untrained, strict=True))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert [figures["steps"] for figures in resumed.history()] == [4.0, 8.0]


def test_validation_images_are_predicted_and_scored_after_every_epoch(tmp_path: Path) -> None:
    scene = disc_scene(9)
    pixels = np.where(scene.instances > 0, 200, 30).astype(np.uint8)[:100, :90]
    images = [
        ValidationImage("a.tif", pixels, scene.instances[:100, :90]),
        ValidationImage("b.tif", pixels, None),
    ]
    kept = checkpoints(LocalStore(tmp_path))
    train.train(tiny(), SCENES, images, kept)
    assert all("validation_ap50" in figures for figures in kept.history())
    version = registry.VersionName("m", 1)
    records = registry.list_checkpoints(LocalStore(tmp_path), version)
    assert [len(record.predictions) for record in records] == [2, 2]
    assert records[1].names == ("a.tif", "b.tif")
    labels = decode_png(LocalStore(tmp_path).get(records[1].predictions[0].key))
    assert labels.dtype == np.uint16
    assert labels.shape == (100, 90)
    assert all(0 <= figures["label_free"] <= 1 for figures in kept.history())
    assert all("label_free_held_out_ap50" not in figures for figures in kept.history())


def test_only_the_last_optimizer_state_is_kept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    train.train(tiny(steps_per_epoch=1, epochs=3), SCENES, [], checkpoints(store))
    states = [key for key in store.list("models/") if key.endswith("optimizer.npz")]
    assert states == ["models/m/versions/1/checkpoints/000003/optimizer.npz"]


def test_a_loss_that_is_no_number_ends_the_training_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = checkpoints(LocalStore(tmp_path))
    honest: Callable[..., dict[str, Any]] = network.loss_parts
    steps = tf.Variable(0)

    def diverging(*arguments: Any) -> dict[str, Any]:
        steps.assign_add(1)
        factor = tf.where(steps > 5, np.float32(np.nan), np.float32(1))
        return {name: value * factor for name, value in honest(*arguments).items()}

    monkeypatch.setattr(network, "loss_parts", diverging)
    with pytest.raises(GranuloError, match="lower learning_rate") as caught:
        train.train(tiny(), SCENES, [], kept)
    assert caught.value.reason is Reason.TRAINING_DIVERGED
    assert kept.latest().epoch == 1


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_exported_model_gives_the_networks_outputs(preset: str, tmp_path: Path) -> None:
    config = preset_config(preset, filters=(4, 6, 8))
    model = network.build_network(config)
    metadata = export_saved_model(model.get_weights(), config, tmp_path / "1")
    assert (tmp_path / "1" / METADATA_NAME).is_file()
    assert metadata["stride"] == {"small": 8, "paper": 4}[preset]
    assert metadata["tile_px"] % metadata["stride"] == 0

    loaded = tf.saved_model.load(str(tmp_path / "1"))
    image = np.random.default_rng(0).integers(0, 256, (64, 72), dtype=np.uint8)
    outputs = loaded.signatures["serving_default"](image=tf.constant(image[None, ..., None]))
    assert set(outputs) == set(metadata["outputs"])
    expected = predictor(model, config.stride)(image)
    for channel, name in enumerate(metadata["outputs"]):
        assert outputs[name].dtype == tf.float16
        np.testing.assert_allclose(outputs[name][0], expected[..., channel], atol=2e-3)


def test_predictions_cover_images_of_any_size() -> None:
    config = tiny()
    predict = predictor(network.build_network(config), config.stride)
    for shape in [(64, 64), (61, 75), (5, 9)]:
        assert predict(np.zeros(shape, np.uint8)).shape == (*shape, 2)
