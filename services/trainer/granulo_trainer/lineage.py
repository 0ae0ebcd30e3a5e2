# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a version comes from, as its card tells it: its datasets, their recipes, a few pictures."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile

from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore
from granulo_trainer import datasets
from granulo_trainer.domain.contact_sheet import Example, median_diameter_px

_MOST_EXAMPLES = 12
_MODALITIES = {
    "MODALITY_SEM_IN_LENS": "SEM, in-lens detector",
    "MODALITY_SEM_SIDE_DETECTOR": "SEM, detector at the side",
    "MODALITY_HIM": "helium ion microscope",
    "MODALITY_TEM": "transmission",
}
ANY_MODALITY = "any microscope"
ANNOTATED = "annotated real images"
_SHAPES = ("sphere", "ellipsoid", "polyhedron", "rod", "wire", "platelet", "mesh")


@dataclass(frozen=True)
class Source:
    """One dataset of a training."""

    name: str
    digest: str
    """Of its manifest."""
    recipe: str
    """Label of the recipe, or what else it is."""
    seed: int
    images: int
    particles: int | None
    modality: str
    """Empty for real images."""
    shapes: tuple[str, ...]
    maker: str
    """Service, version and renderer that made it."""


@dataclass(frozen=True)
class Pictures:
    """A few images of the training data and how large their particles are."""

    examples: tuple[Example, ...]
    diameters_px: tuple[float, ...]
    """Median diameter in each of the examples."""


def sources(store: ObjectStore, names: Sequence[str]) -> tuple[Source, ...]:
    """Describe the datasets that were trained on."""
    return tuple(_source(store, name) for name in names)


def pictures(store: ObjectStore, names: Sequence[str]) -> Pictures:
    """Choose and read examples, evenly from all datasets.

    Annotated real images are left out: nobody's micrographs become part of a model.
    """
    rendered = [name for name in names if name.startswith("datasets/")]
    examples = []
    if rendered:
        each = max(1, min(4, _MOST_EXAMPLES // len(rendered)))
        for name in rendered[:_MOST_EXAMPLES]:
            examples += list(_examples(store, name, each))
    sizes = [median_diameter_px(example.labels) for example in examples]
    return Pictures(tuple(examples), tuple(size for size in sizes if size > 0))


def _source(store: ObjectStore, name: str) -> Source:
    manifest = manifests.load(store, name)
    recipe: Mapping[str, Any] = manifest.facts.get("recipe", {})
    rendered = name.startswith("datasets/")
    producer = manifest.producer
    renderer = producer.packages.get("bpy", "") if rendered else ""
    maker = f"{producer.service} {producer.version}"
    maker += f", Blender {renderer}" if renderer else ""
    maker += f", revision {producer.git_revision[:12]}" if producer.git_revision else ""
    counted = manifest.facts.get("particle_count")
    classes = recipe.get("classes", [])
    return Source(
        name=name,
        digest=manifests.manifest_artifact(store, name).digest,
        recipe=str(recipe.get("label") or "unnamed recipe") if rendered else ANNOTATED,
        seed=producer.seed,
        images=len({scene.name for scene in datasets.list_scenes(store, [name])}),
        particles=None if counted is None else int(counted),
        modality=_MODALITIES.get(recipe.get("modality", ""), ANY_MODALITY) if rendered else "",
        shapes=tuple(dict.fromkeys(s for item in classes for s in _SHAPES if s in item)),
        maker=maker,
    )


def _examples(store: ObjectStore, name: str, count: int) -> Iterator[Example]:
    scenes = [
        scene
        for scene in datasets.list_scenes(store, [name])
        if {"images", "labels"} <= set(scene.parts)
    ]
    label = _source(store, name).recipe
    for number in range(min(count, len(scenes))):
        scene = scenes[(2 * number + 1) * len(scenes) // (2 * count)]
        pixels, labels = (
            tifffile.imread(io.BytesIO(store.get(part.key, part.digest)))
            for part in (scene.parts["images"], scene.parts["labels"])
        )
        stem = scene.name.rsplit("/", 1)[-1].lstrip("0") or "0"
        yield Example(f"{label}, scene {stem}", pixels.astype(np.uint8), labels)
