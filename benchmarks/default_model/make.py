# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a default model anew: ``make.py FOLDER``, an hour or two on two cores; resumable.

Writes FOLDER/layers (once), FOLDER/checkpoints and FOLDER/1, a SavedModel that may replace
`services/segmenter/granulo_segmenter/models/default/1`. Judge it on images before that.
"""

import sys
from pathlib import Path

from closed_form import closed_form_scene
from recipes import AGGLOMERATES, SPHERES

from granulo_core.imaging.appearance import Layers
from granulo_core.store import LocalStore
from granulo_trainer import registry
from granulo_trainer.checkpoints import StoreCheckpoints
from granulo_trainer.domain.config import preset_config
from granulo_trainer.unet import train
from granulo_trainer.unet.data import CachedScenes
from granulo_trainer.unet.export import export_saved_model
from granulo_trainer.unet.views import Scene, median_diameter_px

RENDER_SEED, RENDERED_PER_FAMILY = 7, 140
CLOSED_FORM_SEEDS = (1, 7, 11)
CLOSED_FORM_SCENES = (12, 150, 150)
CONFIG = preset_config(
    "small", epochs=90, steps_per_epoch=50, batch_size=4, learning_rate=0.0015, seed=1
)


def main(folder: Path) -> None:
    files = make_layers(folder / "layers")

    def load(index: int) -> Scene:
        layers = Layers.load(files[index].read_bytes())
        ids = layers.instances
        return Scene(ids, layers, None, None, median_diameter_px(ids))

    store = LocalStore(folder / "checkpoints")
    kept = StoreCheckpoints(store, registry.claim(store, "default", "sha256:0"))
    network = train.train(CONFIG, CachedScenes(len(files), load), [], kept)
    export_saved_model(network.get_weights(), CONFIG, folder / "1")


def make_layers(folder: Path) -> list[Path]:
    # Rendering needs Blender; training alone, from layers that exist, does not.
    from granulo_render.blender.layers import render_layers
    from granulo_render.domain.compose import compose

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index in range(RENDERED_PER_FAMILY):
        for name, recipes in (("sio2", SPHERES), ("tio2", AGGLOMERATES)):
            path = folder / f"{name}_{index:04d}.npz"
            files.append(path)
            if not path.exists():
                scene = compose(recipes[index % len(recipes)], RENDER_SEED, index)
                keep(path, render_layers(scene))
    for seed, count in zip(CLOSED_FORM_SEEDS, CLOSED_FORM_SCENES, strict=True):
        for index in range(count):
            path = folder / f"closed_{seed}_{index:04d}.npz"
            files.append(path)
            if not path.exists():
                keep(path, closed_form_scene(seed, index))
    return files


def keep(path: Path, layers: Layers) -> None:
    # Written whole or not at all, so that an interrupted run can be repeated.
    part = path.with_suffix(".part")
    part.write_bytes(layers.save())
    part.replace(path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make.py FOLDER")
    main(Path(sys.argv[1]))
