# SPDX-License-Identifier: GPL-3.0-or-later
"""How far drawn layers are from the truth, beside plain Cycles passes of few samples.

Noise-free pictures of `sio2` scenes. The layers' truth is the picture of a scene rendered and drawn
at four times the size and averaged, about 1,000 rays per pixel; that of a plain pass is one of 512
samples. Run it by hand, it takes minutes: ``python benchmarks/render_quality.py``.
"""

import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.appearance import Layers, Look, draw
from granulo_render.blender.exr import read_passes
from granulo_render.blender.layers import render_layers
from granulo_render.blender.stage import SHADED, stage
from granulo_render.domain.compose import compose
from granulo_render.domain.coverage import coverage_layer
from granulo_render.domain.scene import Scene
from granulo_render.presets import presets

SCENES = 3
SIZE_PX = 254
FINER = 4
SAMPLES = (2, 4, 8, 16)
TRUE_SAMPLES = 512
# Edges and occlusion alone: no noise, no texture, no blur.
LOOK = replace(
    Look(),
    **dict.fromkeys(
        ("particle_spread", "substrate_texture", "gaussian_noise", "dose", "psf_sigma_px"), 0.0
    ),
    upsampling=1.0,
)


def main() -> None:
    found: dict[str, list[float]] = {}
    recipe = presets()["sio2"].recipe
    for index in range(SCENES):
        scene = compose(recipe, 1, index, SIZE_PX)
        finer = replace(scene, size_px=FINER * SIZE_PX, pixel_size_nm=scene.pixel_size_nm / FINER)
        true = cv2.resize(
            _drawn(render_layers(finer)), (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA
        )
        layers = render_layers(scene)
        found.setdefault("edges guessed", []).append(_psnr_db(_drawn(layers), true))
        layers = replace(layers, coverage=coverage_layer(scene, layers.instances))
        found.setdefault("layers", []).append(_psnr_db(_drawn(layers), true))
        true = _plain(scene, TRUE_SAMPLES)
        for samples in SAMPLES:
            quality = _psnr_db(_plain(scene, samples), true)
            found.setdefault(f"plain, {samples} samples", []).append(quality)
    for name, values in found.items():
        shown = " ".join(f"{value:.1f}" for value in values)
        sys.stdout.write(f"{name:18} {statistics.median(values):5.1f} dB ({shown})\n")


def _drawn(layers: Layers) -> NDArray[np.float32]:
    return draw(layers, LOOK, np.random.default_rng(0))


def _plain(scene: Scene, samples: int) -> NDArray[np.float32]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.exr"
        stage().render(scene, path, replace(SHADED, samples=samples))
        return np.clip(read_passes(path)["Combined.R"], 0, 1)


def _psnr_db(image: NDArray[np.float32], true: NDArray[np.float32]) -> float:
    return float(-10 * np.log10(((image - true) ** 2).mean()))


if __name__ == "__main__":
    main()
