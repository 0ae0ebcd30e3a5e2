# SPDX-License-Identifier: GPL-3.0-or-later
"""ONNX against the SavedModel that it was made from, on random and on drawn images."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

from granulo_core.imaging import appearance
from granulo_core.imaging.appearance import Layers
from granulo_core.imaging.normalise import to_network_input
from granulo_trainer.domain.config import TrainingConfig, preset_config
from granulo_trainer.unet import network as networks
from granulo_trainer.unet.export import export_saved_model
from granulo_trainer.unet.onnx_file import OPSET, convert_saved_model

# Both compute in float32 and round to float16, whose steps below 1 are 5e-4: one or two of them.
TOLERANCE = 1.5e-3
TINY = [
    pytest.param(preset_config("small", filters=(4, 6)), id="small"),
    pytest.param(preset_config("paper", filters=(4, 6)), id="paper"),
]
WHOLE = [
    pytest.param(preset_config("small"), id="small"),
    pytest.param(preset_config("paper"), id="paper"),
]


@pytest.mark.parametrize("config", TINY)
def test_onnx_and_saved_model_agree_at_every_size(config: TrainingConfig, tmp_path: Path) -> None:
    assert largest_difference(config, tmp_path) <= TOLERANCE


@pytest.mark.long
@pytest.mark.parametrize("config", WHOLE)
def test_onnx_and_saved_model_agree_at_full_width(config: TrainingConfig, tmp_path: Path) -> None:
    assert largest_difference(config, tmp_path) <= TOLERANCE


def largest_difference(config: TrainingConfig, folder: Path) -> float:
    """Of any output on any image, after checking that the two have the same interface."""
    export_saved_model(trained_weights(config), config, folder / "1")
    target = folder / "model.onnx"
    convert_saved_model(folder / "1", target)

    model = onnx.load(str(target))
    onnx.checker.check_model(model)
    assert {item.domain: item.version for item in model.opset_import}[""] == OPSET
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    assert [item.type for item in session.get_inputs()] == ["tensor(uint8)"]
    assert {item.name for item in session.get_outputs()} == set(networks.outputs_of(config))
    assert {item.type for item in session.get_outputs()} == {"tensor(float16)"}

    serve = tf.saved_model.load(str(folder / "1")).signatures["serving_default"]
    rng = np.random.default_rng(1)
    differences = []
    for batch, height, width in ((1, 64, 96), (2, 128, 64)):
        shape = (batch, height, width, 1)
        for image in (rng.integers(0, 256, shape, dtype=np.uint8), drawn(shape, config, rng)):
            expected = serve(image=tf.constant(image))
            names = [item.name for item in session.get_outputs()]
            for name, found in zip(names, session.run(None, {"image": image}), strict=True):
                wanted = expected[name].numpy().astype(np.float32)
                assert found.shape == (batch, height, width)
                # Where all pixels were alike, agreement would say nothing.
                assert float(wanted.std()) > 0.01
                differences.append(np.abs(found.astype(np.float32) - wanted).max())
    return float(np.max(differences))


def trained_weights(config: TrainingConfig) -> list[np.ndarray]:
    """Fresh weights, with statistics as a training leaves them instead of zeros and ones."""
    # Weights of one in six seeds give a flat output, which could not tell anything.
    keras.utils.set_random_seed(0)
    network = networks.build_network(config)
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if type(layer).__name__ == "BatchNormalization":
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights(
                [
                    gamma * rng.uniform(0.5, 1.5, gamma.shape),
                    beta + rng.normal(0, 0.3, beta.shape),
                    mean + rng.normal(0, 0.3, mean.shape),
                    variance * rng.uniform(0.5, 2.0, variance.shape),
                ]
            )
    weights: list[np.ndarray] = network.get_weights()
    return weights


def drawn(shape: tuple[int, ...], config: TrainingConfig, rng: np.random.Generator) -> Any:
    """Micrographs of half spheres, as the trainer draws them for its patches."""
    batch, height, width, _ = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    cap = 100.0 - (y % 32 - 16) ** 2 - (x % 32 - 16) ** 2
    surface = np.sqrt(np.clip(cap, 0, None))
    slope_y, slope_x = np.gradient(surface)
    normals = np.dstack([-slope_x, -slope_y, np.ones_like(surface)])
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    numbers = 1 + y // 32 * 100 + x // 32
    layers = Layers(
        occlusion=np.full((height, width), 255, np.uint8),
        normals=np.rint(normals * 127).astype(np.int8),
        height_nm=surface.astype(np.float16),
        instances=np.where(cap > 0, numbers, 0).astype(np.uint16),
        pixel_size_nm=1.0,
    )
    images = [appearance.draw(layers, appearance.random_look(rng), rng) for _ in range(batch)]
    return np.stack(
        [
            to_network_input(np.rint(image * 255).astype(np.uint8), config.convention)
            for image in images
        ]
    )[..., None]
