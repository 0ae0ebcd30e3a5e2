# SPDX-License-Identifier: GPL-3.0-or-later
"""Brightness of the particles' materials, pixel by pixel."""

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.scanning import Array
from granulo_render.domain.scene import Scene
from granulo_render.domain.silhouettes import fragments


def contrast_layer(scene: Scene, instances: NDArray[np.uint16]) -> NDArray[np.float16] | None:
    """Relative brightness of the material that each pixel shows.

    Parameters
    ----------
    scene : Scene
    instances : (H, W) uint16
        Rendered; id ``i + 1`` is particle ``i``.

    Returns
    -------
    (H, W) float16 or None
        1 on the substrate; the particle's brightness times, where it has a core, the mean of
        shell and core weighted by the lengths of the beam's path through them. ``None`` where all
        particles are as bright as the substrate's 1.
    """
    cored = (scene.core_ratio > 0) & (scene.core_brightness != 1)
    if not cored.any() and (scene.brightness == 1).all():
        return None
    layer = np.concatenate([[1.0], scene.brightness])[instances]
    if cored.any():
        gain = np.concatenate([[0.0], np.where(cored, scene.core_brightness - 1, 0.0)])[instances]
        whole = _paths(scene, instances, cored.astype(np.float64))
        core = _paths(scene, instances, np.where(cored, scene.core_ratio, 0.0))
        share = np.clip(core / np.maximum(whole, 1e-6), 0, 1)
        layer = layer * (1 + gain * share)
    result: NDArray[np.float16] = layer.astype(np.float16)
    return result


def _paths(scene: Scene, instances: NDArray[np.uint16], shrink: Array) -> Array:
    """Length of the beam's path through each pixel's particle (H, W), scaled by ``shrink``; nm."""
    found = fragments(scene, shrink, lower=True)
    assert found.bottom_nm is not None  # asked for
    seen = instances.ravel()[found.pixel] == found.particle + 1
    paths = np.zeros(instances.size)
    paths[found.pixel[seen]] = (found.top_nm - found.bottom_nm)[seen]
    return paths.reshape(instances.shape)
