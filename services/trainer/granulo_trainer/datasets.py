# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads rendered and annotated datasets and validation images from the object store."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, get_args

import numpy as np
import tifffile
from numpy.typing import NDArray

from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.imaging.appearance import Layers, ModalityName
from granulo_core.imaging.labels import decode_labels
from granulo_core.imaging.normalise import InputConvention, to_network_input
from granulo_core.imaging.read import read_micrograph
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore, StoredObject
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.job import StoredImage, ValidationPair
from granulo_trainer.domain.mixture import Mixture
from granulo_trainer.domain.run import ValidationImage
from granulo_trainer.unet.data import CachedScenes
from granulo_trainer.unet.targets import eroded_mask
from granulo_trainer.unet.views import Scene, median_diameter_px

_PART = re.compile(r"/(images|labels|masks|layers)/([^/]+)\.(?:tif|npz)$")
_MODALITIES: Mapping[str, ModalityName] = {
    f"MODALITY_{name.upper()}": name for name in get_args(ModalityName)
}
"""By what manifests call them."""
_MAX_HELD_OUT = 4
_SCENES_PER_HELD_OUT = 16
_MIN_SCENES_TO_GIVE = 8
_SIXTEEN_TO_EIGHT_BITS = InputConvention(
    low_percentile=0.05, high_percentile=99.95, white_level=250
)


@dataclass(frozen=True)
class SceneObjects:
    """The stored parts of one scene by folder: images, labels, masks, layers."""

    name: str
    """``datasets/<id>/<stem>`` or ``annotated/<id>/<stem>``."""
    parts: dict[str, StoredObject]
    modality: ModalityName = "any"
    """Of the recipe; training draws the looks of this kind of microscope."""

    @property
    def dataset(self) -> str:
        """Resource name of the dataset that the scene belongs to."""
        return self.name.rpartition("/")[0]


def list_scenes(
    store: ObjectStore,
    datasets: Sequence[str],
    field: str = "model_version.config.datasets",
) -> list[SceneObjects]:
    """The scenes of datasets, in a fixed order.

    Parameters
    ----------
    store : ObjectStore
    datasets : sequence of str
        Resource names, ``datasets/<id>`` or ``annotated/<id>``.
    field : str
        The request's field that names them.

    Raises
    ------
    GranuloError
        RESOURCE_NOT_FOUND for a dataset that does not exist, FIELD_INVALID for one without a
        single usable scene.
    """
    scenes = []
    for dataset in datasets:
        found: dict[str, dict[str, StoredObject]] = {}
        manifest = manifests.load(store, dataset)
        for stored in manifest.objects:
            match = _PART.search(stored.key)
            if match:
                found.setdefault(match.group(2), {})[match.group(1)] = stored
        modality = _MODALITIES.get(manifest.facts.get("recipe", {}).get("modality", ""), "any")
        usable = [
            SceneObjects(f"{dataset}/{stem}", parts, modality)
            for stem, parts in sorted(found.items())
            if "layers" in parts or {"images", "labels"} <= set(parts)
        ]
        if not usable:
            raise invalid_fields(
                [
                    FieldViolation(
                        field,
                        f"{dataset} holds no scene with layers or with an image and labels; "
                        "render or import it again",
                    )
                ]
            )
        scenes += usable
    return scenes


def split_held_out(
    scenes: Sequence[SceneObjects],
) -> tuple[list[SceneObjects], list[SceneObjects]]:
    """Keep one in sixteen rendered scenes back (four at most) to score checkpoints on.

    Every rendered dataset gives its share, and at least one scene where it has eight or more, so
    that in a mixture of many small datasets more than four may be kept back. Annotated images are
    no renders and are all trained on; what shall validate is named as validation.

    Returns
    -------
    training, held_out : list of SceneObjects
        Fewer than sixteen rendered scenes are all trained on.
    """
    rendered: dict[str, list[int]] = {}
    for place, scene in enumerate(scenes):
        if scene.dataset.startswith("datasets/"):
            rendered.setdefault(scene.dataset, []).append(place)
    total = sum(map(len, rendered.values()))
    wanted = min(_MAX_HELD_OUT, total // _SCENES_PER_HELD_OUT)
    chosen: set[int] = set()
    for places in rendered.values():
        if wanted and len(places) >= _MIN_SCENES_TO_GIVE:
            count = max(1, round(wanted * len(places) / total))
            chosen |= {places[(2 * i + 1) * len(places) // (2 * count)] for i in range(count)}
    training = [scene for place, scene in enumerate(scenes) if place not in chosen]
    return training, [scene for place, scene in enumerate(scenes) if place in chosen]


def training_scenes(
    store: ObjectStore,
    scenes: Sequence[SceneObjects],
    config: TrainingConfig,
    weights: Mapping[str, float] | None = None,
) -> CachedScenes:
    """Scenes that are read from the store when a patch needs them, mixed by weight.

    Parameters
    ----------
    store : ObjectStore
    scenes : sequence of SceneObjects
        Those of one dataset follow one another.
    config : TrainingConfig
    weights : mapping of str to float, optional
        Share of the patches by dataset; by default in proportion to the numbers of scenes.

    Returns
    -------
    CachedScenes
        Its reads verify digests: a damaged object ends the training with DIGEST_MISMATCH.
    """
    counts = {name: len(list(group)) for name, group in groupby(scenes, lambda s: s.dataset)}
    mixture = Mixture.in_proportion(list(counts.values()))
    if weights:
        mixture = Mixture(tuple(counts.values()), tuple(weights[name] for name in counts))
    return CachedScenes(len(scenes), lambda i: load_scene(store, scenes[i], config), mixture)


def load_scene(store: ObjectStore, scene: SceneObjects, config: TrainingConfig) -> Scene:
    """Read what the preset trains on.

    That is the layers, where there are any, for presets that tell instances apart; the delivered
    image with its labels otherwise. The paper's network learns from the delivered images (M7 to
    M9), and from layers only where a dataset has nothing else.
    """
    parts = scene.parts
    has_image = {"images", "labels"} <= set(parts)
    if "layers" in parts and (config.predicts_instances or not has_image):
        # The patches' own pixels lie elsewhere: the scene's coverage of pixels is of no use.
        layers = replace(Layers.load(_read(store, parts["layers"])), coverage=None)
        return Scene(
            instances=layers.instances,
            layers=layers,
            image=None,
            mask=None,
            median_diameter_px=median_diameter_px(layers.instances),
            modality=scene.modality,
        )
    instances = _read_labels(store, parts["labels"])
    image = _read_image(store, parts["images"])
    mask: NDArray[np.uint8] | None = None
    if not config.predicts_instances:
        # Once a scene instead of once a patch.
        image = to_network_input(image, config.convention)
        mask = _read_image(store, parts["masks"]) if "masks" in parts else eroded_mask(instances)
    return Scene(
        instances=instances,
        layers=None,
        image=_eight_bits(image),
        mask=mask,
        median_diameter_px=median_diameter_px(instances),
        prepared=not config.predicts_instances,
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


def left_out_images(
    store: ObjectStore,
    scenes: Sequence[SceneObjects],
    names: Sequence[str],
    config: TrainingConfig,
) -> list[ValidationImage]:
    """Annotated images that a fold does not train on, prepared for the network, by user's name."""
    return [
        ValidationImage(
            name=name,
            pixels=to_network_input(_read_image(store, scene.parts["images"]), config.convention),
            labels=_read_labels(store, scene.parts["labels"]),
        )
        for name, scene in zip(names, scenes, strict=True)
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


def _read_image(store: ObjectStore, stored: StoredObject) -> NDArray[Any]:
    # Written by Granulo: no data bar to look for, no foreign format.
    pixels: NDArray[Any] = tifffile.imread(io.BytesIO(_read(store, stored)))
    return pixels


def _eight_bits(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey levels of 16 bits as 8: outliers must not take the contrast of all others."""
    if image.dtype == np.uint8:
        return image
    return to_network_input(image, _SIXTEEN_TO_EIGHT_BITS)


def _read_labels(store: ObjectStore, stored: StoredObject) -> NDArray[np.uint16]:
    labels: NDArray[np.uint16] = tifffile.imread(io.BytesIO(_read(store, stored)))
    return labels.astype(np.uint16)
