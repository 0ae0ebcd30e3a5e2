# SPDX-License-Identifier: GPL-3.0-or-later
"""From trained weights to the first prediction: export, load, first and later tiles, ONNX."""

import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
from stopwatch import Stopwatch, emit

from granulo_trainer.domain.config import preset_config
from granulo_trainer.unet import network as networks
from granulo_trainer.unet.export import export_saved_model
from granulo_trainer.unet.onnx_file import convert_saved_model

ROUNDS = 3
TILE_PX = 1024


def main() -> None:
    for preset, width in (("small", 1.0), ("paper", 0.25)):
        config = preset_config(preset, width=width)
        weights = networks.build_network(config).get_weights()
        tile = np.random.default_rng(0).integers(0, 256, (1, TILE_PX, TILE_PX, 1), dtype=np.uint8)
        watch = Stopwatch()
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as name:
                size_mib = _round(watch, Path(name), config, weights, tile)
        stages = watch.medians()
        later = stages.pop("later tile")
        note = f"{size_mib:.1f} MiB; a later tile of {TILE_PX} px takes {later:.2f} s"
        emit(f"export {preset} (width {width:g})", "s per version", stages, note)


def _round(
    watch: Stopwatch, folder: Path, config: object, weights: object, tile: np.ndarray
) -> float:
    with watch.stage("export as SavedModel"):
        export_saved_model(weights, config, folder / "1")
    with watch.stage("load"):
        serve = tf.saved_model.load(str(folder / "1")).signatures["serving_default"]
    image = tf.constant(tile)
    for name in (f"first tile, {TILE_PX} px", "later tile"):
        with watch.stage(name):
            next(iter(serve(image=image).values())).numpy()
    with watch.stage("convert to ONNX"):
        convert_saved_model(folder / "1", folder / "model.onnx")
    return (folder / "model.onnx").stat().st_size / 2**20


if __name__ == "__main__":
    main()
