# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be rendered: a dataset's definition and its shards."""

from dataclasses import dataclass

from granulo_render.domain.recipe import Recipe

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
