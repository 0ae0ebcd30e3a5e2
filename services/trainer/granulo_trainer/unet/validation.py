# SPDX-License-Identifier: GPL-3.0-or-later
"""What is predicted and scored after every epoch (M17), with labels and without (X3)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from granulo_trainer.domain import label_free, metrics
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.pictures import encode_label_png
from granulo_trainer.domain.run import ValidationImage
from granulo_trainer.unet.image_loss import image_loss
from granulo_trainer.unet.predict import Predict


def validate(
    config: TrainingConfig, predict: Predict, images: Sequence[ValidationImage]
) -> tuple[dict[str, float], list[tuple[str, bytes]]]:
    """Predict and score the validation images.

    Returns
    -------
    figures : dict
        ``validation_…`` over the user's annotated images, ``heldout_…`` over kept-back renders;
        ``label_free…`` over all of the user's images, or over kept-back renders without any.
    predictions : list of (name, bytes)
        16-bit label PNG of each of the user's images, in their order.
    """

    def segment(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
        return metrics.to_labels(predict(pixels), config.predicts_instances, pixels)

    found = []
    scores: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for image in images:
        outputs = predict(image.pixels)
        labels = metrics.to_labels(outputs, config.predicts_instances, image.pixels)
        found.append(labels)
        if image.labels is not None:
            scored = metrics.score(image.labels, labels)
            scored["loss"] = image_loss(config, outputs, image.labels)
            scores[image.held_out_render].append(scored)
    figures = metrics.mean_scores(scores[False], "validation")
    figures.update(metrics.mean_scores(scores[True], "heldout"))

    users = [not image.held_out_render for image in images]
    agreements = [
        label_free.self_agreement(image.pixels, labels, segment)
        for image, labels, is_users in zip(images, found, users, strict=True)
        if is_users or not any(users)
    ]
    figures.update(label_free.combine(agreements, figures.get("heldout_ap50")))
    predictions = [
        (image.name, encode_label_png(labels))
        for image, labels, is_users in zip(images, found, users, strict=True)
        if is_users
    ]
    return figures, predictions
