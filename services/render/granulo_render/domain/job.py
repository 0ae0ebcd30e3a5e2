# SPDX-License-Identifier: GPL-3.0-or-later
"""What is rendered: a dataset's definition, its shards, and what one scene delivers."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.appearance import Layers
from granulo_render.domain.labels import Truth, truth
from granulo_render.domain.look import choose_look, draw_micrograph
from granulo_render.domain.material import contrast_layer
from granulo_render.domain.recipe import Recipe
from granulo_render.domain.scene import Scene

RENDERER_VERSION = 2
"""Raised whenever the same recipe, seed and index would give other pixels."""
_FINE_SHARDS = 256
_MOST_PER_SHARD = 16


@dataclass(frozen=True)
class DatasetPlan:
    """Everything that determines the content of a dataset."""

    recipe: Recipe
    seed: int
    image_count: int
    size_px: int


@dataclass(frozen=True)
class Shard:
    """Scenes that one task renders, one after the other."""

    first: int
    count: int


def plan_shards(image_count: int) -> tuple[Shard, ...]:
    """Cut a dataset into shards: single scenes, and a few at a time in large datasets.

    A killed worker costs its shard, so small shards are better as long as there are not too many.
    """
    size = min(_MOST_PER_SHARD, -(-image_count // _FINE_SHARDS))
    return tuple(
        Shard(first, min(size, image_count - first)) for first in range(0, image_count, size)
    )


@dataclass(frozen=True, eq=False)
class Delivery:
    """The image and the truth of one scene, all of the same side."""

    micrograph: NDArray[np.uint8]
    """(H, W)."""
    layers: Layers
    """The geometry with its materials: new looks are drawn from it."""
    truth: Truth
    unplaced: int
    """Particles asked for that found no place."""

    @property
    def labelled(self) -> int:
        """Number of particles in the labels."""
        return sum(item.labelled for item in self.truth.particles)


def deliver(recipe: Recipe, seed: int, index: int, scene: Scene, layers: Layers) -> Delivery:
    """Make everything of scene ``index`` from its rendered layers (M7: one scene, both images)."""
    layers = replace(layers, contrast=contrast_layer(scene, layers.instances))
    look = choose_look(recipe, seed, index, scene.upsampling)
    micrograph, covered = draw_micrograph(layers, look, seed, index)
    return Delivery(micrograph, layers, truth(scene, layers, covered), scene.unplaced)
