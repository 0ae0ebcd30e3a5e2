# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads rendered datasets and validation images from the object store."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tifffile
from numpy.typing import NDArray

from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.imaging.appearance import Layers
from granulo_core.imaging.labels import decode_labels
from granulo_core.imaging.normalise import to_network_input
from granulo_core.imaging.read import read_micrograph
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore, StoredObject
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.job import StoredImage, ValidationPair
from granulo_trainer.domain.run import ValidationImage
from granulo_trainer.unet.views import Scene, median_diameter_px

_PART = re.compile(r"/(images|labels|masks|layers)/([^/]+)\.(?:tif|npz)$")
_MAX_HELD_OUT = 4
_SCENES_PER_HELD_OUT = 16


@dataclass(frozen=True)
class SceneObjects:
    """The stored parts of one scene by folder: images, labels, masks, layers."""

    name: str
    parts: dict[str, StoredObject]


def list_scenes(store: ObjectStore, datasets: Sequence[str]) -> list[SceneObjects]:
    """The scenes of datasets, in a fixed order.

    Raises
    ------
    GranuloError
        RESOURCE_NOT_FOUND for a dataset that does not exist, FIELD_INVALID for one without a
        single usable scene.
    """
    scenes = []
    for dataset in datasets:
        found: dict[str, dict[str, StoredObject]] = {}
        for stored in manifests.load(store, dataset).objects:
            match = _PART.search(stored.key)
            if match:
                found.setdefault(match.group(2), {})[match.group(1)] = stored
        usable = [
            SceneObjects(f"{dataset}/{stem}", parts)
            for stem, parts in sorted(found.items())
            if "layers" in parts or {"images", "labels"} <= set(parts)
        ]
        if not usable:
            raise invalid_fields(
                [
                    FieldViolation(
                        "model_version.config.datasets",
                        f"{dataset} holds no scene with layers or with an image and labels; "
                        "render it again",
                    )
                ]
            )
        scenes += usable
    return scenes


def split_held_out(
    scenes: Sequence[SceneObjects],
) -> tuple[list[SceneObjects], list[SceneObjects]]:
    """Keep every sixteenth scene back (four at most) to score checkpoints on.

    Returns
    -------
    training, held_out : list of SceneObjects
        Fewer than sixteen scenes are all trained on.
    """
    count = min(_MAX_HELD_OUT, len(scenes) // _SCENES_PER_HELD_OUT)
    chosen = {(2 * i + 1) * len(scenes) // (2 * count) for i in range(count)}
    training = [scene for i, scene in enumerate(scenes) if i not in chosen]
    return training, [scene for i, scene in enumerate(scenes) if i in chosen]


def load_scene(store: ObjectStore, scene: SceneObjects, config: TrainingConfig) -> Scene:
    """Read what the preset trains on: layers where there are any and it can, else images."""
    parts = scene.parts
    if config.predicts_instances and "layers" in parts:
        layers = Layers.load(_read(store, parts["layers"]))
        return Scene(
            instances=layers.instances,
            layers=layers,
            image=None,
            mask=None,
            median_diameter_px=median_diameter_px(layers.instances),
        )
    instances = _read_labels(store, parts["labels"])
    return Scene(
        instances=instances,
        layers=None,
        image=_read_image(store, parts["images"]),
        mask=_read_image(store, parts["masks"]) if "masks" in parts else None,
        median_diameter_px=median_diameter_px(instances),
    )


def held_out_images(
    store: ObjectStore, scenes: Sequence[SceneObjects], config: TrainingConfig
) -> list[ValidationImage]:
    """The kept-back scenes as their delivered images, prepared for the network."""
    return [
        ValidationImage(
            name=scene.name,
            pixels=to_network_input(_read_image(store, scene.parts["images"]), config.convention),
            labels=_read_labels(store, scene.parts["labels"]),
            held_out_render=True,
        )
        for scene in scenes
        if {"images", "labels"} <= set(scene.parts)
    ]


def validation_image(
    store: ObjectStore, pair: ValidationPair, config: TrainingConfig, max_px: int
) -> ValidationImage:
    """Read a user's validation image, without its data bar.

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE and its kin; FIELD_INVALID when the labels differ from the image in size.
    """
    micrograph = read_micrograph(
        _read_upload(store, pair.image), max_px=max_px, name=pair.image.name
    )
    rows = micrograph.content_height_px
    labels: NDArray[np.uint32] | None = None
    if pair.labels is not None:
        labels = decode_labels(_read_upload(store, pair.labels), name=pair.labels.name)
        if labels.shape != micrograph.pixels.shape:
            raise invalid_fields(
                [
                    FieldViolation(
                        "model_version.config.validation.labels",
                        f"{pair.labels.name} has {labels.shape[1]} × {labels.shape[0]} pixels and "
                        f"{pair.image.name} has {micrograph.pixels.shape[1]} × "
                        f"{micrograph.pixels.shape[0]}; labels must be as large as their image",
                    )
                ]
            )
        labels = labels[:rows]
    return ValidationImage(
        name=pair.image.name,
        pixels=to_network_input(micrograph.content, config.convention),
        labels=labels,
    )


def _read(store: ObjectStore, stored: StoredObject) -> bytes:
    return store.get(stored.key, stored.digest)


def _read_upload(store: ObjectStore, image: StoredImage) -> bytes:
    return store.get(image.key, image.digest or None)


def _read_image(store: ObjectStore, stored: StoredObject) -> NDArray[np.uint8]:
    # Our own renders: no data bar to look for, no foreign format.
    pixels: NDArray[np.uint8] = tifffile.imread(io.BytesIO(_read(store, stored)))
    return pixels


def _read_labels(store: ObjectStore, stored: StoredObject) -> NDArray[np.uint16]:
    labels: NDArray[np.uint16] = tifffile.imread(io.BytesIO(_read(store, stored)))
    return labels.astype(np.uint16)
