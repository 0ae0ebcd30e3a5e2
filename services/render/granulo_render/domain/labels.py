# SPDX-License-Identifier: GPL-3.0-or-later
"""Ground truth of a scene: labels, the paper's eroded masks, and everything else in one place."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from granulo_core.imaging.appearance import Layers
from granulo_render.domain.amodal import AmodalMasks, as_rendered
from granulo_render.domain.occlusion import Occlusion, occlusion
from granulo_render.domain.particles import TrueParticle, true_particles
from granulo_render.domain.scanning import camera_matrices
from granulo_render.domain.scene import Scene
from granulo_render.domain.silhouettes import fragments

MIN_VISIBLE_PX = 12
"""An instance that shows less is background: nobody could see, or measure, a particle there."""
_EROSION = 1 / 512  # radius of M10's erosion in image sides


def visible_labels(instances: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Labels to deliver, (H, W): the instances of which at least `MIN_VISIBLE_PX` px show."""
    area = np.bincount(instances.ravel())
    keep = area >= MIN_VISIBLE_PX
    keep[0] = False
    labels: NDArray[np.uint16] = np.where(keep[instances], instances, 0).astype(np.uint16)
    return labels


def eroded_mask(labels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Binarise and erode labels (M10), so that touching particles come apart.

    Parameters
    ----------
    labels : (H, W) uint16
        Instance labels, 0 is background.

    Returns
    -------
    (H, W) uint8
        255 where every pixel within the erosion's radius, one 512th of the image's side and at
        least 1 px, belongs to the same particle; 0 elsewhere. The image's edge does not erode.
    """
    radius = max(1, round(max(labels.shape) * _EROSION))
    offset = np.arange(-radius, radius + 1)
    disc = offset[:, None] ** 2 + offset[None, :] ** 2 <= radius**2
    lowest = ndimage.minimum_filter(labels, footprint=disc, mode="nearest")
    highest = ndimage.maximum_filter(labels, footprint=disc, mode="nearest")
    alone = (labels > 0) & (lowest == highest)
    mask: NDArray[np.uint8] = np.where(alone, 255, 0).astype(np.uint8)
    return mask


@dataclass(frozen=True, eq=False)
class Truth:
    """Everything that is known of one image, without error."""

    labels: NDArray[np.uint16]
    """(H, W) visible instances, 0 is background."""
    mask: NDArray[np.uint8]
    """(H, W) 0 or 255: binarised and eroded (M10)."""
    depth_nm: NDArray[np.float32]
    """(H, W) height above the substrate of what is seen."""
    amodal: AmodalMasks
    order: Occlusion
    particles: tuple[TrueParticle, ...]
    """All of which any part lies in the image, labelled or not."""


def truth(scene: Scene, layers: Layers, covered: NDArray[np.bool_] | None = None) -> Truth:
    """Tell all that is known of an image.

    Parameters
    ----------
    scene : Scene
    layers : Layers
        Rendered from the scene; its instance ``i + 1`` is particle ``i``.
    covered : (H, W) bool, optional
        Pixels that a burned-in bar hides. Background in labels and mask, and no visible area;
        amodal masks, order and depth keep them.

    Returns
    -------
    Truth
    """
    found = as_rendered(fragments(scene), layers.instances)
    masks = AmodalMasks(scene.size_px, found.pixel, found.offsets)
    order = occlusion(found, camera_matrices(scene)[1][:, 2])
    shown = layers.instances if covered is None else np.where(covered, 0, layers.instances)
    labels = visible_labels(shown.astype(np.uint16, copy=False))
    seen = np.bincount(shown.ravel(), minlength=scene.count + 1)[1:]
    return Truth(
        labels=labels,
        mask=eroded_mask(labels),
        depth_nm=layers.height_nm.astype(np.float32),
        amodal=masks,
        order=order,
        particles=true_particles(scene, seen, seen >= MIN_VISIBLE_PX, masks, order),
    )
