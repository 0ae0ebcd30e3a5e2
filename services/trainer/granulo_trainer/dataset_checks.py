# SPDX-License-Identifier: GPL-3.0-or-later
"""What datasets must be to be trained on, told before any work."""

import io
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import tifffile
from numpy.typing import NDArray

from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.imaging.appearance import Layers
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore
from granulo_trainer import annotated
from granulo_trainer.datasets import SceneObjects
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.job import ValidationPair


def check_trainable(
    store: ObjectStore, scenes: Sequence[SceneObjects], config: TrainingConfig, path: str
) -> None:
    """Refuse datasets from which nothing can be learnt.

    Of a rendered dataset as many label images are read as it takes to see a particle and
    background: mostly one. Annotated images were looked at when they were imported.

    Parameters
    ----------
    store : ObjectStore
    scenes : sequence of SceneObjects
        Those of one dataset follow one another.
    config : TrainingConfig
    path : str
        The request's field of the configuration.

    Raises
    ------
    GranuloError
        FIELD_INVALID for datasets without any particle or with nothing but particles, and for
        patches larger than an image; DIGEST_MISMATCH for damaged objects.
    """
    violations = []
    for dataset, group in groupby(scenes, lambda scene: scene.dataset):
        if dataset.startswith(f"{annotated.COLLECTION}/"):
            shape, fault = _smallest_image(store, dataset), ""
        else:
            shape, fault = _look_at_labels(store, list(group))
        if fault:
            violations.append(FieldViolation(f"{path}.datasets", f"{dataset} {fault}"))
        if config.patch_px > min(shape):
            violations.append(
                FieldViolation(f"{path}.patch_px", _too_large(dataset, shape, config))
            )
    if violations:
        raise invalid_fields(violations)


def check_validation(
    store: ObjectStore, pairs: Sequence[ValidationPair], datasets: Sequence[str], path: str
) -> None:
    """Refuse validation images that are trained on (M17).

    Raises
    ------
    GranuloError
        FIELD_INVALID naming every such image and its dataset.
    """
    violations = []
    for dataset in datasets:
        manifest = manifests.load(store, dataset)
        known = {stored.digest for stored in manifest.objects}
        known |= {source.digest for source in manifest.inputs}
        for number, pair in enumerate(pairs):
            digest = pair.image.digest or store.stat(pair.image.key).digest
            if digest in known:
                text = (
                    f"{pair.image.name} is an image of {dataset}, which is trained on; a "
                    "validation image must not be. Leave one of the two out"
                )
                violations.append(FieldViolation(f"{path}.validation[{number}].image", text))
    if violations:
        raise invalid_fields(violations)


def _smallest_image(store: ObjectStore, dataset: str) -> tuple[int, int]:
    images = annotated.images_of(manifests.load(store, dataset))
    return min(((image.height_px, image.width_px) for image in images), key=min)


def _look_at_labels(
    store: ObjectStore, scenes: Sequence[SceneObjects]
) -> tuple[tuple[int, int], str]:
    """Size of a rendered dataset's images, and which class none of them has."""
    has_particle = has_background = False
    for scene in scenes:
        labels = _labels(store, scene)
        has_particle |= bool((labels > 0).any())
        has_background |= bool((labels == 0).any())
        if has_particle and has_background:
            break
    height, width = labels.shape
    if not has_particle:
        return (height, width), (
            "holds no particle in any scene, so that there is nothing to learn; render it with more"
        )
    if not has_background:
        return (height, width), (
            "holds no background: every pixel of every scene belongs to a particle; render it with "
            "a larger field of view or fewer particles"
        )
    return (height, width), ""


def _labels(store: ObjectStore, scene: SceneObjects) -> NDArray[np.uint16]:
    stored = scene.parts.get("labels")
    if stored is None:
        layers = scene.parts["layers"]
        return Layers.load(store.get(layers.key, layers.digest)).instances
    labels: NDArray[np.uint16] = tifffile.imread(io.BytesIO(store.get(stored.key, stored.digest)))
    return labels


def _too_large(dataset: str, shape: tuple[int, int], config: TrainingConfig) -> str:
    most = min(shape) // config.stride * config.stride
    remedy = "use larger images"
    if most >= 2 * config.stride:
        remedy = f"give {most} or less, or use larger images"
    return (
        f"{config.patch_px} px is more than the {shape[1]} × {shape[0]} px of an image of "
        f"{dataset}; {remedy}"
    )
