# SPDX-License-Identifier: GPL-3.0-or-later
"""Accuracy of a checkpoint on labelled images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected_components

from granulo_core.imaging.instances import InstanceParams, decode
from granulo_core.imaging.matching import evaluate


def to_labels(
    outputs: NDArray[np.float32], predicts_instances: bool, image: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """Instances of a prediction.

    Parameters
    ----------
    outputs : (H, W, C) float32
        Probabilities, channels of the network.
    predicts_instances : bool
        Whether there is a distance channel.
    image : (H, W) uint8
        What was predicted.

    Returns
    -------
    (H, W) int32
        The paper's single mask is divided into connected components only: its watershed belongs
        to the segmenter.
    """
    if predicts_instances:
        return decode(outputs[..., 0], outputs[..., 1], InstanceParams(), image)
    components: NDArray[np.int32] = connected_components(outputs[..., 0] > 0.51, connectivity=1)
    return components.astype(np.int32)


def score(truth: NDArray[Any], predicted: NDArray[np.int32]) -> dict[str, float]:
    """Figures of one image: ``dsc``, ``ap50``, ``ap75`` and ``count_error``."""
    figures: Mapping[str, Any] = evaluate(truth, predicted)
    return {
        "dsc": float(figures["f1"]),
        "ap50": float(figures["ap50"]),
        "ap75": float(figures["ap75"]),
        "count_error": float(figures["count_error"]),
    }


def mean_scores(scores: Sequence[Mapping[str, float]], prefix: str) -> dict[str, float]:
    """Mean of each figure over images; its name becomes ``<prefix>_<name>``."""
    if not scores:
        return {}
    return {
        f"{prefix}_{name}": float(np.mean([image[name] for image in scores])) for name in scores[0]
    }
