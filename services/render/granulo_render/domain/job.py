# SPDX-License-Identifier: GPL-3.0-or-later
"""What is rendered: a dataset's definition, its shards, and what one scene delivers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.appearance import Layers
from granulo_render.domain.labels import truth
from granulo_render.domain.look import choose_look, draw_micrograph
from granulo_render.domain.particles import TrueParticle
from granulo_render.domain.recipe import Recipe
from granulo_render.domain.scene import Scene

RENDERER_VERSION = 1
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
    """The images and the truth of one scene, all of the same side."""

    micrograph: NDArray[np.uint8]
    """(H, W)."""
    labels: NDArray[np.uint16]
    """(H, W) instance ids, 0 is background."""
    mask: NDArray[np.uint8]
    """(H, W) 0 or 255: binarised and eroded (M10)."""
    particles: tuple[TrueParticle, ...]


def deliver(recipe: Recipe, seed: int, index: int, scene: Scene, layers: Layers) -> Delivery:
    """Make everything of scene ``index`` from its rendered layers (M7: one scene, both images)."""
    look = choose_look(recipe, seed, index, scene.upsampling)
    known = truth(scene, layers)
    return Delivery(
        micrograph=draw_micrograph(layers, look, seed, index),
        labels=known.labels,
        mask=known.mask,
        particles=tuple(item for item in known.particles if item.labelled),
    )
