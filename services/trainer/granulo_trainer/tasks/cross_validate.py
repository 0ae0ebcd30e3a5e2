# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry point that the engine runs for one fold of a cross-validation (M19)."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_core.engine.port import TaskContext
from granulo_core.imaging.labels import encode_tiff
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.reporting import report
from granulo_core.store import manifest as manifests
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore, StoredObject
from granulo_trainer import annotated, datasets
from granulo_trainer.domain import metrics
from granulo_trainer.domain.annotation import AnnotatedImage
from granulo_trainer.domain.cross_validation import FoldJob, best_epoch, means
from granulo_trainer.domain.run import StepReport, ValidationImage
from granulo_trainer.fold_checkpoints import FoldCheckpoints


def run_fold(context: TaskContext, payload: bytes) -> bytes:
    """Train on the images of the other folds, and score those left out at the best epoch.

    Parameters
    ----------
    context : TaskContext
    payload : bytes
        A :class:`FoldJob`.

    Returns
    -------
    bytes
        Receipt with the predicted labels, the figures of all epochs, and those of the images.
    """
    # TensorFlow takes seconds to import and belongs to workers, not to servers.
    from granulo_trainer.unet import train as loop
    from granulo_trainer.unet.image_loss import image_loss
    from granulo_trainer.unet.predict import predictor

    job = FoldJob.from_bytes(payload)
    store = open_store(context.store_url)
    images = _left_out(store, job)
    training, validation = _scenes(store, job, images)
    kept = FoldCheckpoints(store, job.folder)
    network = _train(context, job, store, training, validation, kept)

    history = kept.history()
    epoch = best_epoch(history)
    loop.load_weights(network, kept.weights(epoch))
    predict = predictor(network, job.config.stride)
    objects = [
        store.put(f"{job.folder}/history.json", json.dumps(history).encode(), "application/json")
    ]
    scores = []
    for facts, image in zip(images, validation, strict=True):
        assert image.labels is not None  # every annotated image has some
        outputs = predict(image.pixels)
        labels = metrics.to_labels(outputs, job.config.predicts_instances, image.pixels)
        scored = metrics.score(image.labels, labels)
        scored["loss"] = image_loss(job.config, outputs, image.labels)
        scores.append(scored)
        objects.append(_put_prediction(store, job, facts, labels))
    result = {
        "epoch": epoch,
        "metrics": means(scores),
        "images": [
            {"name": facts.name, "metrics": scored}
            for facts, scored in zip(images, scores, strict=True)
        ],
    }
    return Receipt(objects=tuple(objects), facts=result).to_bytes()


def _train(
    context: TaskContext,
    job: FoldJob,
    store: ObjectStore,
    training: Sequence[datasets.SceneObjects],
    validation: Sequence[ValidationImage],
    kept: FoldCheckpoints,
) -> Any:
    """The one call of the training loop; it goes on from the fold's last checkpoint."""
    from granulo_trainer.unet import train as loop

    config = job.config

    def on_step(step: StepReport) -> None:
        epoch = (step.step - 1) // config.steps_per_epoch + 1
        report(
            context,
            units_done=float(step.step),
            message=f"fold {job.fold + 1} of {job.folds}, epoch {epoch} of {config.epochs}, "
            f"loss {step.loss:.3f}",
            figures={"loss": step.loss, "steps_per_second": step.steps_per_second},
        )

    names = (job.dataset, *job.datasets)
    weights = dict(zip(names, job.weights, strict=False))
    source = datasets.training_scenes(store, training, config, weights)
    return loop.train(config, source, validation, kept, on_step=on_step)


def _left_out(store: ObjectStore, job: FoldJob) -> list[AnnotatedImage]:
    images = annotated.images_of(manifests.load(store, job.dataset))
    return [image for image in images if image.stem in job.left_out]


def _scenes(
    store: ObjectStore, job: FoldJob, images: Sequence[AnnotatedImage]
) -> tuple[list[datasets.SceneObjects], list[ValidationImage]]:
    """What is trained on, and the images left out in their order."""
    scenes = datasets.list_scenes(store, (job.dataset, *job.datasets))
    left_out = {f"{job.dataset}/{image.stem}" for image in images}
    training = [scene for scene in scenes if scene.name not in left_out]
    kept_back = [scene for scene in scenes if scene.name in left_out]
    names = [image.name for image in images]
    return training, datasets.left_out_images(store, kept_back, names, job.config)


def _put_prediction(
    store: ObjectStore, job: FoldJob, image: AnnotatedImage, labels: NDArray[np.int32]
) -> StoredObject:
    size = image.pixel_size_nm
    data = encode_tiff(
        labels.astype(np.uint32), (size[0], size[1]) if size is not None else None, kind="labels"
    )
    return store.put(f"{job.folder}/predictions/{image.stem}.tif", data, "image/tiff")
