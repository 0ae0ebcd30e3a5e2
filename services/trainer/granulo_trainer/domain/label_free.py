# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a checkpoint can be trusted on an image whose particles nobody has labelled (X3).

A network that has understood an image finds the same particles when the image is turned, relit or
resized; one that guesses does not. docs/selection.md has the formula and what it is worth.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.matching import evaluate
from granulo_core.imaging.scale import rescaled

Labels = NDArray[np.int32]
Segment = Callable[[NDArray[np.uint8]], Labels]

_GAMMA = 0.7
"""Exponent of the relit view: clearly brighter, and nothing is lost."""
_SCALE = 0.8
"""Of the smaller view: within what trained patches vary by, and 0.64 of the cost."""


def self_agreement(image: NDArray[np.uint8], labels: Labels, segment: Segment) -> float:
    """How far a checkpoint agrees with itself on one image.

    Parameters
    ----------
    image : (H, W) uint8
        As the network sees it.
    labels : (H, W) int32
        What the checkpoint finds in it.
    segment : callable
        Finds instances in an image of any size with the same checkpoint; called twice, on
        1.64 times the pixels of the image in all.

    Returns
    -------
    float
        Mean of :func:`agreement` with what is found in the image turned and relit, and in a
        smaller copy; 0 to 1.
    """
    views = (_turned_and_relit(image, segment), _smaller(image, segment))
    return float(np.mean([agreement(labels, view) for view in views]))


def agreement(labels: Labels, view: Labels) -> float:
    """How far two segmentations of one image show the same particles.

    Parameters
    ----------
    labels, view : (H, W) int32

    Returns
    -------
    float
        Mean of TP / (TP + FP + FN) at IoU 0.50 to 0.95, which does not depend on which of the two
        counts as true. Two empty ones agree on nothing: 0.
    """
    if not labels.any() and not view.any():
        return 0.0
    return float(evaluate(labels, view)["ap"])


def combine(agreements: Sequence[float], heldout_ap50: float | None) -> dict[str, float]:
    """The score of a checkpoint.

    Parameters
    ----------
    agreements : sequence of float
        Of each image, from :func:`self_agreement`.
    heldout_ap50 : float, optional
        AP50 on held-out renders, where scenes were kept back.

    Returns
    -------
    dict
        ``label_free_agreement``, the mean over the images; ``label_free_held_out_ap50``, where
        it is known; and ``label_free``, their geometric mean: a network that is steadily wrong has
        the one, a network that only knows renders the other. Empty without an image.
    """
    if not agreements:
        return {}
    mean = float(np.mean(agreements))
    if heldout_ap50 is None:
        return {"label_free": mean, "label_free_agreement": mean}
    return {
        "label_free": float(np.sqrt(mean * heldout_ap50)),
        "label_free_agreement": mean,
        "label_free_held_out_ap50": heldout_ap50,
    }


def _turned_and_relit(image: NDArray[np.uint8], segment: Segment) -> Labels:
    levels = np.rint(255.0 * np.linspace(0.0, 1.0, 256) ** _GAMMA).astype(np.uint8)
    view = np.ascontiguousarray(np.rot90(levels[image])[:, ::-1])
    return np.ascontiguousarray(np.rot90(segment(view)[:, ::-1], -1))


def _smaller(image: NDArray[np.uint8], segment: Segment) -> Labels:
    height, width = image.shape
    found = segment(rescaled(image, _SCALE))
    enlarged = cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(enlarged, dtype=np.int32)
