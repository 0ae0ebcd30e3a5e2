# SPDX-License-Identifier: GPL-3.0-or-later
"""Geometry layers of a scene, rendered by Cycles in one pass."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.appearance import Layers
from granulo_render.blender.device import CPU
from granulo_render.blender.exr import read_passes
from granulo_render.blender.stage import CAMERA_HEIGHT, LAYERS, PX, SHADED, Shot, stage
from granulo_render.domain.recipe import Shading
from granulo_render.domain.scene import Scene

_FLOAT16_MAX = 65504.0
_SIGMA_OF_RADIUS = 0.1
_SIGMA_PX = (1.0, 3.0)
"""Smoothing of the occlusion: what measured best for the rays of `LAYERS`. Less is noisy, more
blurs gaps, which are as wide as the particles are large."""


def render_layers(scene: Scene, device: str = CPU) -> Layers:
    """Render a scene's geometry: one shot for everything that image and labels are made of.

    Parameters
    ----------
    scene : Scene
        What to render; equal scenes give byte-identical layers in every worker that renders on
        the same device and kind of processor. Another processor gives the same instances, and
        other last digits of openness, heights and normals (docs/performance.md).
    device : str
        A value of the setting ``render_device``.

    Returns
    -------
    Layers
        At the delivered size. Instance ``i + 1`` is particle ``i`` of the scene. Ids, heights and
        normals are exact at pixel centres; heights are above the substrate, normals in the
        camera's frame. ``shaded`` is there when the scene asks for shading by Cycles.

    Raises
    ------
    GranuloError
        FIELD_INVALID when a GPU is asked for that is absent.
    """
    stage().use(device)
    passes = _shoot(scene, LAYERS)
    instances = np.rint(passes["IndexOB.X"]).astype(np.uint16)
    normals = np.stack([passes["Normal.X"], -passes["Normal.Y"], passes["Normal.Z"]], axis=-1)
    openness = _smooth_inside(np.clip(passes["Combined.R"], 0, 1), instances, _sigma_px(scene))
    height = np.clip(_heights(scene, passes["Depth.Z"]), 0, _FLOAT16_MAX)
    shaded = None
    if scene.shading is Shading.CYCLES:
        shaded = np.clip(_shoot(scene, SHADED)["Combined.R"], 0, _FLOAT16_MAX).astype(np.float16)
    return Layers(
        occlusion=np.rint(openness * 255).astype(np.uint8),
        normals=np.rint(normals * 127).astype(np.int8),
        height_nm=height.astype(np.float16),
        instances=instances,
        pixel_size_nm=scene.pixel_size_nm,
        shaded=shaded,
    )


def _shoot(scene: Scene, shot: Shot) -> dict[str, NDArray[np.float32]]:
    """Passes by name, read from a file in memory that a killed worker cannot leave behind."""
    with _memory_file() as path:
        stage().render(scene, path, shot)
        return read_passes(path)


def _heights(scene: Scene, depth: NDArray[np.float32]) -> NDArray[np.float64]:
    """Heights above the substrate of what the pixels' centres show, in nm."""
    towards_nm = (CAMERA_HEIGHT - depth.astype(np.float64)) / PX * scene.pixel_size_nm
    up_nm = (scene.size_px / 2 - np.arange(scene.size_px) - 0.5) * scene.pixel_size_nm
    normal = scene.view[:, 2]  # of the substrate, as the camera sees it
    heights: NDArray[np.float64] = normal[1] * up_nm[:, None] + normal[2] * towards_nm
    return heights


@contextlib.contextmanager
def _memory_file() -> Iterator[Path]:
    descriptor = os.memfd_create("granulo-passes")
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _sigma_px(scene: Scene) -> float:
    """Smoothing that suits the scene's particles, by half of their shortest side."""
    if not scene.count:
        return _SIGMA_PX[1]
    half_sizes = np.array([template.half_sizes[2] for template in scene.templates])
    radius_nm = float(np.median(half_sizes[scene.template] * scene.scale_nm[:, 2]))
    return float(np.clip(_SIGMA_OF_RADIUS * radius_nm / scene.pixel_size_nm, *_SIGMA_PX))


def _smooth_inside(
    image: NDArray[np.float32], instances: NDArray[np.uint16], sigma_px: float
) -> NDArray[np.float32]:
    """Average along rows and then columns over the same instance: few rays per pixel are noisy."""
    along_rows = _smooth_rows(image, instances, sigma_px)
    turned = np.ascontiguousarray(instances.T)
    smooth: NDArray[np.float32] = _smooth_rows(
        np.ascontiguousarray(along_rows.T), turned, sigma_px
    ).T
    return smooth


def _smooth_rows(
    image: NDArray[np.float32], instances: NDArray[np.uint16], sigma_px: float
) -> NDArray[np.float32]:
    total = image.copy()
    norm = np.ones_like(image)
    reach_px = min(int(np.ceil(2.4 * sigma_px)), image.shape[1] - 1)
    for offset in range(1, reach_px + 1):
        weight = np.float32(np.exp(-0.5 * (offset / sigma_px) ** 2))
        same = (instances[:, offset:] == instances[:, :-offset]) * weight
        norm[:, offset:] += same
        norm[:, :-offset] += same
        total[:, offset:] += same * image[:, :-offset]
        total[:, :-offset] += same * image[:, offset:]
    smooth: NDArray[np.float32] = total / norm
    return smooth
