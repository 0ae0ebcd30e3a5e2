# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds per rendered scene: 512 px `sio2` and `tio2`, one thread, image, labels and layers."""

import tempfile
from pathlib import Path

from stopwatch import Stopwatch, emit

from granulo_core.imaging.labels import encode_tiff
from granulo_core.store import open_store
from granulo_render.blender.layers import render_layers
from granulo_render.domain.job import deliver
from granulo_render.domain.compose import compose
from granulo_render.presets import presets

SCENES = 6
SIZE_PX = 512


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(str(Path(folder) / "store"))
        for preset in ("sio2", "tio2"):
            recipe = presets()[preset].recipe
            watch = Stopwatch()
            render_layers(compose(recipe, 0, 0, SIZE_PX))  # Blender starts
            particles = 0
            for index in range(1, SCENES + 1):
                with watch.stage("compose"):
                    scene = compose(recipe, 0, index, SIZE_PX)
                with watch.stage("Cycles"):
                    layers = render_layers(scene)
                with watch.stage("draw and label"):
                    delivery = deliver(recipe, 0, index, scene, layers)
                with watch.stage("encode and store"):
                    size = (layers.pixel_size_nm, layers.pixel_size_nm)
                    image = encode_tiff(delivery.micrograph, size, kind="micrograph")
                    labels = encode_tiff(delivery.labels, size, kind="labels")
                    mask = encode_tiff(delivery.mask, size, kind="mask")
                    store.put(f"bench/{index}_image.tif", image)
                    store.put(f"bench/{index}_labels.tif", labels)
                    store.put(f"bench/{index}_mask.tif", mask)
                    store.put(f"bench/{index}.npz", layers.save())
                particles += len(delivery.particles)
            note = f"{SIZE_PX} px, {particles / SCENES:.0f} particles, one thread"
            emit(f"render {preset}", "s per scene", watch.medians(), note)


if __name__ == "__main__":
    main()
