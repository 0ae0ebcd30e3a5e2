# SPDX-License-Identifier: GPL-3.0-or-later
"""What is predicted and scored after every epoch (M17)."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_trainer.domain import metrics
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.run import ValidationImage
from granulo_trainer.unet.image_loss import image_loss
from granulo_trainer.unet.predict import Predict


def validate(
    config: TrainingConfig, predict: Predict, images: Sequence[ValidationImage]
) -> tuple[dict[str, float], dict[str, bytes]]:
    """Predict and score the validation images.

    Returns
    -------
    figures : dict
        ``validation_…`` over the user's annotated images, ``heldout_…`` over kept-back renders.
    overlays : dict
        PNG of each of the user's images with the outlines of the predicted particles.
    """
    scores: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    overlays = {}
    for image in images:
        outputs = predict(image.pixels)
        labels = metrics.to_labels(outputs, config.predicts_instances, image.pixels)
        if image.labels is not None:
            scored = metrics.score(image.labels, labels)
            scored["loss"] = image_loss(config, outputs, image.labels)
            scores[image.held_out_render].append(scored)
        if not image.held_out_render:
            overlays[image.name] = _overlay_png(image.pixels, labels)
    figures = metrics.mean_scores(scores[False], "validation")
    figures.update(metrics.mean_scores(scores[True], "heldout"))
    return figures, overlays


def _overlay_png(pixels: NDArray[np.uint8], labels: NDArray[np.int32]) -> bytes:
    values = labels.astype(np.float32)
    outline = cv2.dilate(values, np.ones((3, 3), np.uint8)) != values
    picture = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    picture[outline] = (60, 220, 60)
    written, data = cv2.imencode(".png", picture)
    if not written:
        raise ValueError("the overlay could not be encoded as PNG")
    return bytes(data)
