# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenes: shapes of unit volume, particles that touch and stack but never hang or overlap."""

from dataclasses import replace

import numpy as np
import pytest

from granulo_render.domain.compose import compose
from granulo_render.domain.labels import (
    MIN_VISIBLE_PX,
    eroded_mask,
    visible_labels,
)
from granulo_render.domain.plan import plan_shards
from granulo_render.domain.recipe import (
    Arrangement,
    Imaging,
    ParticleClass,
    Patterns,
    Recipe,
    Sphere,
    Uniform,
    Value,
)
from granulo_render.domain.scene import Scene
from granulo_render.presets import presets


def _spheres(**arrangement: object) -> Recipe:
    placing = Arrangement(density_per_um2=Value(30), cluster_size=Value(8), stacking=Value(0))
    return Recipe(
        classes=(ParticleClass(Sphere(), Uniform(80, 160)),),
        imaging=Imaging(Value(4.0), 256),
        arrangement=replace(placing, **arrangement),  # type: ignore[arg-type]
    )


def _gaps(scene: Scene) -> np.ndarray:
    """Distance of every two spheres' surfaces in units of the smaller radius."""
    apart = np.linalg.norm(scene.position_nm[:, None] - scene.position_nm[None], axis=-1)
    radii = scene.radius_nm[:, None] + scene.radius_nm[None]
    smaller = np.minimum(scene.radius_nm[:, None], scene.radius_nm[None])
    return ((apart - radii) / smaller)[np.triu_indices(scene.count, 1)]


@pytest.mark.parametrize("index", range(3))
def test_spheres_of_a_single_layer_lie_on_the_substrate_and_barely_overlap(index: int) -> None:
    scene = compose(_spheres(), seed=1, index=index)
    assert scene.count > 10
    assert np.allclose(scene.position_nm[:, 2], scene.radius_nm)
    assert _gaps(scene).min() > -0.1


def test_clusters_touch() -> None:
    scene = compose(_spheres(), seed=1, index=0)
    assert (np.abs(_gaps(scene)) < 0.06).sum() > scene.count / 3


def test_stacked_particles_rest_on_others() -> None:
    recipe = _spheres(stacking=Value(0.8), density_per_um2=Value(60))
    scene = compose(recipe, seed=1, index=0)
    raised = scene.position_nm[:, 2] > 1.3 * scene.radius_nm
    assert raised.mean() > 0.2
    apart = np.linalg.norm(scene.position_nm[:, None] - scene.position_nm[None], axis=-1)
    gap = apart - scene.radius_nm[:, None] - scene.radius_nm[None]
    np.fill_diagonal(gap, np.inf)
    inside = np.abs(scene.position_nm[:, :2]).max(axis=1) < 400  # neighbours outside are dropped
    assert (gap.min(axis=1)[raised & inside] < 1.0).all()


def test_what_finds_no_place_is_counted_and_ends() -> None:
    recipe = _spheres(density_per_um2=Value(3000))
    scene = compose(recipe, seed=1, index=0, size_px=64)
    assert scene.unplaced > scene.count


def test_irregular_particles_agglomerate() -> None:
    scene = compose(presets()["tio2"].recipe, seed=2, index=1, size_px=256)
    assert scene.count > 5
    assert np.bincount(scene.cluster).max() >= 3
    assert len(np.unique(scene.template)) <= 4


def test_rows_are_denser_along_one_direction_than_random_ones() -> None:
    recipe = replace(
        _spheres(patterns=Patterns(rafts=1.0)), classes=(ParticleClass(Sphere(), Value(100)),)
    )
    scene = compose(recipe, seed=5, index=0)
    apart = np.linalg.norm(scene.position_nm[:, None] - scene.position_nm[None], axis=-1)
    neighbours = (apart < 125).sum(axis=1) - 1
    assert np.median(neighbours) >= 2


def test_a_scene_depends_on_seed_and_index_only() -> None:
    recipe = presets()["sio2"].recipe
    first = compose(recipe, 3, 7, 128)
    compose(recipe, 3, 8, 128)
    again, other = compose(recipe, 3, 7, 128), compose(recipe, 4, 7, 128)
    assert np.array_equal(first.position_nm, again.position_nm)
    assert first.pixel_size_nm == again.pixel_size_nm != other.pixel_size_nm


def test_erosion_separates_touching_particles_and_spares_the_images_edge() -> None:
    labels = np.zeros((32, 32), dtype=np.uint16)
    labels[:, 4:10], labels[:, 10:20] = 1, 2
    mask = eroded_mask(labels)
    assert set(np.unique(mask)) == {0, 255}
    row = np.zeros(32, dtype=np.uint8)
    row[5:9], row[11:19] = 255, 255
    assert np.array_equal(mask, np.tile(row, (32, 1)))


def test_slivers_of_hidden_particles_are_no_labels() -> None:
    instances = np.zeros((16, 16), dtype=np.uint16)
    instances[0, :MIN_VISIBLE_PX] = 5
    instances[8, : MIN_VISIBLE_PX - 1] = 6
    assert set(np.unique(visible_labels(instances))) == {0, 5}


@pytest.mark.parametrize("count", [1, 5, 256, 257, 5000])
def test_shards_cover_every_scene_once(count: int) -> None:
    scenes = [i for s in plan_shards(count) for i in range(s.first, s.first + s.count)]
    assert scenes == list(range(count))
    assert plan_shards(200) == plan_shards(200)
    assert all(shard.count == 1 for shard in plan_shards(200))
