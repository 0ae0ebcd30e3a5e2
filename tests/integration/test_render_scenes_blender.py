# SPDX-License-Identifier: GPL-3.0-or-later
"""Rendering with the real Blender in real worker processes, at tiny sizes."""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from granulo_core.engine.local import LocalEngine
from granulo_core.engine.port import Resources, Task
from granulo_core.imaging.appearance import Layers
from granulo_core.imaging.labels import decode_labels
from granulo_core.imaging.read import read_micrograph
from granulo_core.operations.receipts import Receipt
from granulo_core.store import LocalStore
from granulo_render.convert import ShardJob
from granulo_render.domain.labels import eroded_mask, visible_labels
from granulo_render.domain.plan import DatasetPlan, Shard
from granulo_render.domain.recipe import (
    Arrangement,
    Imaging,
    ParticleClass,
    Recipe,
    Sphere,
    Uniform,
    Value,
)
from granulo_render.presets import presets

SPHERES = Recipe(
    classes=(ParticleClass(Sphere(), Uniform(70, 140)),),
    arrangement=Arrangement(Value(25), cluster_size=Value(1), stacking=Value(0)),
    imaging=Imaging(Value(4.0), 160, Value(1.0)),
)
# Nothing but geometry and occlusion reaches the image, so that its sharpness can be judged.
PLAIN = dict.fromkeys(
    (
        "particle_spread", "bright_fraction", "height_gain", "surface_texture", "dose",
        "substrate_texture", "ridge_strength", "scratches", "specks", "dirt_strength",
        "halo_strength", "bloom_strength", "drift_strength", "psf_sigma_px", "gaussian_noise",
        "line_noise", "sharpening", "detector_strength", "rim_strength", "brightness",
    ),
    Value(0.0),
) | {"particle_level": Value(0.7), "substrate_level": Value(0.1)}  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    """One worker that keeps its Blender for all tests of this file."""
    engine = LocalEngine(cpus=1)
    yield engine
    engine.close()


def _render(
    engine: LocalEngine, store: LocalStore, recipe: Recipe, size_px: int, shards: list[Shard]
) -> dict[str, str]:
    """Render and give digests by the object's name below the dataset."""
    plan = DatasetPlan(recipe, seed=11, image_count=9, size_px=size_px)
    tasks = [
        Task(
            id=f"s{number}",
            entry_point="granulo_render.tasks:render_shard",
            payload=ShardJob(plan, "datasets/t", shard, "cpu").to_bytes(),
            resources=Resources(pool="render"),
            timeout_s=300,
        )
        for number, shard in enumerate(shards)
    ]
    digests: dict[str, str] = {}
    for outcome in engine.submit(tasks, store.url).as_completed():
        assert outcome is not None
        if outcome.error is not None:
            raise outcome.error
        for item in Receipt.from_bytes(outcome.receipt or b"").objects:
            digests[item.key.removeprefix("datasets/t/")] = item.digest
    return digests


def _one(engine: LocalEngine, store: LocalStore, recipe: Recipe, size_px: int) -> Layers:
    _render(engine, store, recipe, size_px, [Shard(0, 1)])
    return Layers.load(store.get("datasets/t/layers/000000.npz"))


def test_a_scene_is_byte_identical_in_another_process_and_order(
    engine: LocalEngine, tmp_path: Path
) -> None:
    recipe = presets()["tio2"].recipe
    together = _render(engine, LocalStore(tmp_path / "a"), recipe, 96, [Shard(0, 3)])
    other = LocalEngine(cpus=1)
    try:
        shards = [Shard(2, 1), Shard(0, 1)]
        alone = _render(other, LocalStore(tmp_path / "b"), recipe, 96, shards)
    finally:
        other.close()
    assert len(together) == 24
    assert len(alone) == 16
    assert alone == {name: together[name] for name in alone}
    assert together["images/000000.tif"] != together["images/000001.tif"]


def test_visible_spheres_are_their_analytic_discs(
    engine: LocalEngine, local_store: LocalStore
) -> None:
    _render(engine, local_store, SPHERES, 160, [Shard(0, 1)])
    labels = decode_labels(local_store.get("datasets/t/labels/000000.tif"), "instances")
    table = csv.DictReader(io.StringIO(local_store.get("datasets/t/particles/000000.csv").decode()))
    y, x = np.mgrid[:160, :160] + 0.5
    checked = 0
    for row in table:
        radius = float(row["diameter_nm"]) / 2 / 4.0
        dx, dy = x - float(row["x_px"]), y - float(row["y_px"])
        disc = dx**2 + dy**2 <= radius**2
        if radius < 8 or (disc & (labels != int(row["id"])) & (labels > 0)).any():
            continue  # hidden in part
        seen = labels == int(row["id"])
        assert (disc & seen).sum() / (disc | seen).sum() >= 0.98
        assert int(row["visible_px"]) == seen.sum()
        checked += 1
    assert checked >= 4


def test_layers_describe_the_same_sphere(engine: LocalEngine, local_store: LocalStore) -> None:
    layers = _one(engine, local_store, SPHERES, 160)
    table = csv.DictReader(io.StringIO(local_store.get("datasets/t/particles/000000.csv").decode()))
    for row in table:
        column, line = int(float(row["x_px"])), int(float(row["y_px"]))
        inside = 3 <= column < 157 and 3 <= line < 157
        if not inside or layers.instances[line, column] != int(row["id"]):
            continue
        # The top of a lying sphere is one diameter above the substrate and faces the viewer.
        assert layers.height_nm[line, column] == pytest.approx(float(row["diameter_nm"]), rel=0.02)
        assert layers.normals[line, column, 2] > 120
        # A little to the right the surface faces right; a little below, down (towards +y).
        offset = int(float(row["diameter_nm"]) / 2 / 4.0 * 0.6)
        if column + offset < 160 and layers.instances[line, column + offset] == int(row["id"]):
            assert layers.normals[line, column + offset, 0] > 50
        if line + offset < 160 and layers.instances[line + offset, column] == int(row["id"]):
            assert layers.normals[line + offset, column, 1] > 50
    substrate = layers.instances == 0
    assert np.abs(layers.height_nm[substrate]).max() < 0.5
    assert layers.occlusion[substrate].max() > 240 > layers.occlusion[substrate].min() + 20


def test_image_labels_and_masks_have_the_delivered_size_and_show_the_same(
    engine: LocalEngine, local_store: LocalStore
) -> None:
    recipe = replace(
        SPHERES, appearance=PLAIN, imaging=replace(SPHERES.imaging, upsampling=Value(4.0))
    )
    layers = _one(engine, local_store, recipe, 130)  # no multiple of the upsampling
    micrograph = read_micrograph(local_store.get("datasets/t/images/000000.tif"), max_px=10**6)
    labels = decode_labels(local_store.get("datasets/t/labels/000000.tif"), "instances")
    mask = decode_labels(local_store.get("datasets/t/masks/000000.tif"), "binary")
    assert micrograph.pixels.shape == labels.shape == mask.shape == layers.shape == (130, 130)
    assert micrograph.pixel_size_nm == pytest.approx((4.0, 4.0))
    assert np.array_equal(labels, visible_labels(layers.instances))
    assert np.array_equal(mask > 0, eroded_mask(visible_labels(layers.instances)) > 0)
    assert micrograph.pixels[labels > 0].mean() > 2 * micrograph.pixels[labels == 0].mean()


def test_upsampling_coarsens_the_image_and_not_the_labels(
    engine: LocalEngine, local_store: LocalStore
) -> None:
    sharpness, labels = {}, {}
    for factor in (1.0, 4.0):
        imaging = replace(SPHERES.imaging, upsampling=Value(factor))
        _one(engine, local_store, replace(SPHERES, appearance=PLAIN, imaging=imaging), 160)
        image = read_micrograph(local_store.get("datasets/t/images/000000.tif"), max_px=10**6)
        pixels = image.pixels.astype(float)
        sharpness[factor] = np.abs(np.diff(pixels, axis=1)).max()
        labels[factor] = decode_labels(local_store.get("datasets/t/labels/000000.tif"), "instances")
    assert sharpness[4.0] < 0.5 * sharpness[1.0]
    assert np.array_equal(labels[1.0], labels[4.0])
