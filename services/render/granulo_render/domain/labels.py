# SPDX-License-Identifier: GPL-3.0-or-later
"""Ground truth from the instance layer: labels, the paper's eroded masks, the particle table."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from granulo_render.domain.scene import Scene

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


@dataclass(frozen=True)
class TrueParticle:
    """What is known of one labelled particle."""

    id: int
    """Its value in the labels."""
    kind: int
    """Index of the recipe's class."""
    diameter_nm: float
    """Of the sphere of equal volume."""
    x_px: float
    """Centroid from the left edge of the image."""
    y_px: float
    """Centroid from the upper edge."""
    z_nm: float
    """Height of the centroid above the substrate."""
    visible_px: int
    """Area in the labels."""
    cluster: int


def true_particles(scene: Scene, labels: NDArray[np.uint16]) -> tuple[TrueParticle, ...]:
    """List the particles that ``labels`` shows, in the order of their ids."""
    area = np.bincount(labels.ravel(), minlength=scene.count + 1)
    centre = scene.size_px / 2
    x, y, z = scene.position_nm.T
    return tuple(
        TrueParticle(
            id=i + 1,
            kind=int(scene.kind[i]),
            diameter_nm=2 * float(scene.radius_nm[i]),
            x_px=centre + float(x[i]) / scene.pixel_size_nm,
            y_px=centre - float(y[i]) / scene.pixel_size_nm,
            z_nm=float(z[i]),
            visible_px=int(area[i + 1]),
            cluster=int(scene.cluster[i]),
        )
        for i in range(scene.count)
        if area[i + 1]
    )
