# SPDX-License-Identifier: GPL-3.0-or-later
"""What the networks learn: foreground, and the distance to the outline of each own particle."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.consistency import extremes, relative_distance
from granulo_trainer.domain.config import TrainingConfig

_CONTACT_REACH_PX = 3


def targets_of(
    config: TrainingConfig, labels: NDArray[Any], known: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """What the preset's network shall learn of a label image, (H, W, C) uint8, 255 = 1."""
    if config.predicts_instances:
        return instance_targets(labels, known)
    return mask_target(eroded_mask(labels))


def instance_targets(
    labels: NDArray[Any], known: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Foreground, per-instance normalised distance, contacts and validity of a label image.

    Parameters
    ----------
    labels : (H, W) integer array
        Instances, 0 is background. The frame is no outline: particles go on beyond it.
    known : (H, W) bool array, optional
        Where the labels tell the truth; everywhere by default.

    Returns
    -------
    (H, W, 4) uint8
        Channel 0 is 255 on particles. Channel 1 is the distance to the own outline (towards the
        background or another instance), divided by its maximum over the instance, times 255.
        Channel 2 is 255 where two particles meet: no output, but a weight in the loss, because
        these few pixels decide whether two particles are one. It reaches three pixels, so that
        particles that a person drew with a gap of one or two pixels meet as well.
        Channel 3 is 255 where ``known``: nothing is learnt elsewhere.
    """
    foreground = labels > 0
    contacts = foreground & _has_other_particle_near(labels)
    return np.dstack(
        [
            foreground.astype(np.uint8) * np.uint8(255),
            np.rint(relative_distance(labels) * np.float32(255.0)).astype(np.uint8),
            contacts.astype(np.uint8) * np.uint8(255),
            np.full(labels.shape, 255, np.uint8)
            if known is None
            else known.astype(np.uint8) * np.uint8(255),
        ]
    )


def mask_target(mask: NDArray[Any]) -> NDArray[np.uint8]:
    """The paper's target: the binarised and eroded mask (M10) as (H, W, 1) uint8, 0 or 255."""
    return ((mask > 0).astype(np.uint8) * np.uint8(255))[..., None]


def eroded_mask(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """M10 from instances: binarise and take one pixel off every outline, also between particles.

    Parameters
    ----------
    labels : (H, W) integer array

    Returns
    -------
    (H, W) uint8, 0 or 255
    """
    return ((labels > 0) & ~_outlines(labels)).astype(np.uint8) * np.uint8(255)


def _outlines(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels with an 8-neighbour of another label; the frame does not count."""
    highest, lowest = extremes(labels)
    result: NDArray[np.bool_] = highest != lowest
    return result


def _has_other_particle_near(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels with another particle than their own up to `_CONTACT_REACH_PX` away."""
    window = np.ones((2 * _CONTACT_REACH_PX + 1,) * 2, dtype=np.uint8)
    highest = cv2.dilate(labels.astype(np.float32), window, borderType=cv2.BORDER_REPLICATE)
    # Background must not count as the lowest label.
    particles = np.where(labels > 0, labels, np.float32(2**24)).astype(np.float32)
    lowest = cv2.erode(particles, window, borderType=cv2.BORDER_REPLICATE)
    result: NDArray[np.bool_] = (highest != labels) | (lowest != labels)
    return result
