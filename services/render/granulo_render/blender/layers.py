# SPDX-License-Identifier: GPL-3.0-or-later
"""Geometry layers of a scene, rendered by Cycles in one pass."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.appearance import Layers
from granulo_render.blender.exr import read_passes
from granulo_render.blender.stage import CAMERA_HEIGHT, PX, stage
from granulo_render.domain.scene import Scene

_FLOAT16_MAX = 65504.0
_SAMPLES = 2


def render_layers(scene: Scene) -> Layers:
    """Render a scene's geometry: one shot for everything that image and labels are made of.

    Parameters
    ----------
    scene : Scene
        What to render; equal scenes give byte-identical layers in every worker.

    Returns
    -------
    Layers
        At the delivered size. Instance ``i + 1`` is particle ``i`` of the scene. Ids and heights
        are exact at pixel centres; occlusion and normals are averages over the pixel.
    """
    with _memory_file() as path:
        stage().render(scene, path, _SAMPLES)
        passes = read_passes(path)
    instances = np.rint(passes["IndexOB.X"]).astype(np.uint16)
    normals = np.stack([passes["Normal.X"], -passes["Normal.Y"], passes["Normal.Z"]], axis=-1)
    length = np.sqrt((normals * normals).sum(axis=-1, keepdims=True))
    normals = np.where(length > 1e-6, normals / np.maximum(length, 1e-6), (0.0, 0.0, 1.0))
    height = np.clip(_heights(scene, passes["Depth.Z"]), 0, _FLOAT16_MAX)
    openness = _smooth_inside(np.clip(passes["Combined.R"], 0, 1), instances)
    return Layers(
        occlusion=np.rint(openness * 255).astype(np.uint8),
        normals=np.rint(normals * 127).astype(np.int8),
        height_nm=height.astype(np.float16),
        instances=instances,
        pixel_size_nm=scene.pixel_size_nm,
    )


def _heights(scene: Scene, depth: NDArray[np.float32]) -> NDArray[np.float64]:
    """Heights above the substrate of what the pixels' centres show, in nm."""
    towards_nm = (CAMERA_HEIGHT - depth.astype(np.float64)) / PX * scene.pixel_size_nm
    up_nm = (scene.size_px / 2 - np.arange(scene.size_px) - 0.5) * scene.pixel_size_nm
    normal = scene.view[:, 2]  # of the substrate, as the camera sees it
    heights: NDArray[np.float64] = normal[1] * up_nm[:, None] + normal[2] * towards_nm
    return heights


@contextlib.contextmanager
def _memory_file() -> Iterator[Path]:
    """Give the path of a file in memory, which leaves nothing behind when the worker is killed."""
    descriptor = os.memfd_create("granulo-passes")
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _smooth_inside(
    image: NDArray[np.float32], instances: NDArray[np.uint16]
) -> NDArray[np.float32]:
    """Average over 5 x 5 px of the same instance: few rays per pixel are noisy."""
    height, width = image.shape
    padded = np.pad(image, 2, mode="edge")
    ids = np.pad(instances, 2, mode="edge")
    weights = np.array([1, 4, 6, 4, 1], dtype=np.float32)
    total = np.zeros_like(image)
    norm = np.zeros_like(image)
    for dy in range(5):
        for dx in range(5):
            weight = (ids[dy : dy + height, dx : dx + width] == instances) * (
                weights[dy] * weights[dx]
            )
            total += weight * padded[dy : dy + height, dx : dx + width]
            norm += weight
    smooth: NDArray[np.float32] = total / norm
    return smooth
