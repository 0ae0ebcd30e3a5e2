# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels and truth of an image: exact, consistent with each other, and the same in all files."""

import csv
import io

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from granulo_core.imaging.appearance import Layers
from granulo_core.imaging.labels import encode_tiff
from granulo_render.domain.amodal import amodal_masks, amodal_pages
from granulo_render.domain.coco import coco_scene
from granulo_render.domain.labels import MIN_VISIBLE_PX, Truth, truth
from granulo_render.domain.occlusion import occlusion
from granulo_render.domain.particles import particle_table
from granulo_render.domain.recipe import (
    Ellipsoid,
    ParticleClass,
    Polyhedron,
    Shading,
    Shape,
    Sphere,
    Value,
)
from granulo_render.domain.scene import Scene
from granulo_render.domain.shapes import ParticleSource, Template, random_rotation
from granulo_render.domain.silhouettes import Fragments, fragments


def _template(shape: Shape, seed: int) -> Template:
    kind = ParticleClass(shape, Value(1.0))
    return ParticleSource((kind,), {}, np.random.default_rng(seed)).templates[0]


_SIZE = 96
_PIXEL_NM = 2.0
_TEMPLATES = tuple(_template(shape, 0) for shape in (Sphere(), Polyhedron()))
_CLASSES = (
    ParticleClass(Sphere(), Value(40), label="ball"),
    ParticleClass(Ellipsoid(Value(2)), Value(40)),
)


def _scene(places: object, radius_px: object = 8.0, seed: int = 0) -> Scene:
    """Balls and polyhedra by turns at (N, 3) places in pixels."""
    place = np.asarray(places, dtype=float).reshape(-1, 3)
    n, rng = len(place), np.random.default_rng(seed)
    radius = np.broadcast_to(np.asarray(radius_px, dtype=float) * _PIXEL_NM, (n,)).copy()
    return Scene(
        size_px=_SIZE,
        pixel_size_nm=_PIXEL_NM,
        upsampling=1,
        occlusion_nm=50.0,
        tilt_deg=0.0,
        shading=Shading.LAYERS,
        transparency=0.0,
        templates=_TEMPLATES,
        template=np.arange(n, dtype=np.int32) % 2,
        kind=np.arange(n, dtype=np.int32) % 2,
        radius_nm=radius,
        scale_nm=np.repeat(radius[:, None], 3, axis=1),
        rotation=np.array([random_rotation(rng, lying=False) for _ in place]).reshape(-1, 3, 3),
        position_nm=place * _PIXEL_NM,
        brightness=np.ones(n),
        core_ratio=np.zeros(n),
        core_brightness=np.ones(n),
        cluster=np.arange(n, dtype=np.int32),
        unplaced=0,
    )


def _crowd(seed: int, count: int = 30) -> Scene:
    rng = np.random.default_rng(seed)
    places = np.c_[rng.uniform(-55, 55, (count, 2)), rng.uniform(8, 60, count)]
    return _scene(places, rng.uniform(4, 14, count), seed)


def _layers(scene: Scene) -> Layers:
    """What a renderer would give: in each pixel the highest surface."""
    found = fragments(scene)
    instances = np.zeros(_SIZE**2, dtype=np.uint16)
    height = np.zeros(_SIZE**2, dtype=np.float16)
    order = np.lexsort((-found.particle, found.top_nm))
    instances[found.pixel[order]] = found.particle[order] + 1
    height[found.pixel[order]] = found.top_nm[order]
    return Layers(
        occlusion=np.full((_SIZE, _SIZE), 255, dtype=np.uint8),
        normals=np.zeros((_SIZE, _SIZE, 3), dtype=np.int8),
        height_nm=height.reshape(_SIZE, _SIZE),
        instances=instances.reshape(_SIZE, _SIZE),
        pixel_size_nm=_PIXEL_NM,
    )


def _truth(scene: Scene) -> Truth:
    return truth(scene, _layers(scene))


def _whole(known: Truth) -> dict[int, NDArray[np.bool_]]:
    return dict(amodal_masks(amodal_pages(known.amodal, known.order.rank)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_visible_masks_are_parts_of_amodal_ones_and_together_the_foreground(seed: int) -> None:
    scene = _crowd(seed)
    layers = _layers(scene)
    known = truth(scene, layers)
    whole = _whole(known)
    for item in known.particles:
        visible = layers.instances == item.id
        assert not (visible & ~whole[item.id]).any()
        assert (item.visible_px, item.amodal_px) == (visible.sum(), whole[item.id].sum())
        assert item.visible_fraction == item.visible_px / item.amodal_px
        assert item.labelled == (item.visible_px >= MIN_VISIBLE_PX)
        np.testing.assert_array_equal(known.labels == item.id, visible & bool(item.labelled))
    drawn = np.isin(layers.instances, [p.id for p in known.particles if p.labelled])
    np.testing.assert_array_equal(known.labels > 0, drawn)
    assert set(whole) == {item.id for item in known.particles}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_agrees_with_the_heights_in_every_shared_pixel(seed: int) -> None:
    scene = _crowd(seed, 20)
    found, order = fragments(scene), _truth(scene).order
    top = np.full((scene.count, _SIZE**2), -np.inf)
    top[found.particle, found.pixel] = found.top_nm
    expected = {}
    for i in range(scene.count):
        for j in range(scene.count):
            hidden = int(((top[i] > top[j]) & (top[j] > -np.inf)).sum())
            if i != j and hidden:
                expected[i, j] = hidden
    pairs = zip(order.over.tolist(), order.under.tolist(), strict=True)
    assert dict(zip(pairs, order.hidden_px.tolist(), strict=True)) == expected
    for (i, j), hidden in expected.items():
        one_way = (j, i) not in expected
        if one_way and hidden:
            assert order.rank[i] < order.rank[j] or _in_ring(expected, i, j)


def _in_ring(pairs: dict[tuple[int, int], int], start: int, goal: int) -> bool:
    """A way down from ``goal`` leads back to ``start``."""
    seen, ahead = set(), [goal]
    while ahead:
        here = ahead.pop()
        seen.add(here)
        ahead += [j for i, j in pairs if i == here and j not in seen]
    return start in seen


def _fragments(*masks: dict[int, float]) -> Fragments:
    """Fragments of particles given as heights by pixel."""
    lengths = [len(mask) for mask in masks]
    return Fragments(
        particle=np.repeat(np.arange(len(masks), dtype=np.int32), lengths),
        pixel=np.array([p for mask in masks for p in mask], dtype=np.int64),
        top_nm=np.array([h for mask in masks for h in mask.values()], dtype=np.float32),
        bottom_nm=None,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
    )


def test_ranks_count_the_layers_above() -> None:
    found = _fragments({1: 3.0}, {1: 2.0, 2: 2.0}, {2: 1.0, 3: 5.0}, {3: 4.0}, {9: 1.0})
    order = occlusion(found, np.zeros(5))
    assert order.rank.tolist() == [0, 1, 2, 3, 0]
    assert (order.over.tolist(), order.under.tolist()) == ([0, 1, 2], [1, 2, 3])


def test_a_ring_is_broken_at_its_highest_particle() -> None:
    ring = _fragments({1: 2.0, 3: 1.0}, {1: 1.0, 2: 2.0}, {2: 1.0, 3: 2.0})
    assert occlusion(ring, np.array([0.0, 5.0, 0.0])).rank.tolist() == [2, 0, 1]
    assert occlusion(ring, np.array([5.0, 0.0, 0.0])).rank.tolist() == [0, 1, 2]


def test_particles_wound_around_each_other_are_ordered_by_the_larger_part() -> None:
    wound = _fragments({1: 2.0, 2: 1.0, 3: 1.0}, {1: 1.0, 2: 2.0, 3: 2.0})
    order = occlusion(wound, np.zeros(2))
    assert order.rank.tolist() == [1, 0]
    assert (order.over.tolist(), order.hidden_px.tolist()) == ([0, 1], [1, 2])


def test_an_isolated_particle_is_wholly_visible() -> None:
    known = _truth(_scene([(-20, 0, 8), (20, 0, 8)]))
    for item in known.particles:
        assert item.visible_fraction == 1
        assert item.order == 0
        np.testing.assert_array_equal(_whole(known)[item.id], known.labels == item.id)
    assert len(known.order.over) == 0


def test_a_particle_under_another_keeps_its_whole_mask() -> None:
    known = _truth(_scene([(0, 0, 8), (0, 0, 40), (30, 0, 8)], [8, 12, 8]))
    hidden, top, _ = known.particles
    assert (hidden.visible_px, hidden.labelled, hidden.order) == (0, 0, 1)
    assert (top.visible_fraction, top.order) == (1, 0)
    alone = _truth(_scene([(0, 0, 8), (90, 90, 40), (30, 0, 8)], [8, 12, 8]))
    np.testing.assert_array_equal(_whole(known)[1], _whole(alone)[1])


def test_pages_hold_what_lies_on_top_first_and_no_page_is_without_need() -> None:
    known = _truth(_crowd(3))
    pages = amodal_pages(known.amodal, known.order.rank)
    for item in known.particles:
        assert (pages == item.id).any(axis=(1, 2)).sum() == 1
        assert item.order > 0 or (pages[0] == item.id).any()
    assert (pages > 0).any(axis=(1, 2)).all()
    assert pages.shape[0] >= (np.bincount(known.amodal.pixel).max())
    assert amodal_pages(_truth(_scene([])).amodal, np.zeros(0, np.int64)).shape == (1, 96, 96)


def test_amodal_pages_and_depth_survive_their_files() -> None:
    known = _truth(_crowd(4))
    pages = amodal_pages(known.amodal, known.order.rank)
    data = encode_tiff(pages, (2.0, 2.0), kind="amodal")
    assert data == encode_tiff(pages.copy(), (2.0, 2.0), kind="amodal")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert len(file.pages) == len(pages)
        np.testing.assert_array_equal(file.asarray(), pages)
    depth = tifffile.imread(io.BytesIO(encode_tiff(known.depth_nm, kind="depth")))
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, known.depth_nm)
    for wrong in (pages[0], pages.astype(np.uint8)):
        with pytest.raises(ValueError, match="amodal"):
            encode_tiff(wrong, kind="amodal")


def test_pixels_on_outlines_follow_the_rendered_image() -> None:
    scene = _scene([(0, 0, 8)])
    layers = _layers(scene)
    row = layers.instances[48]
    first, last = np.flatnonzero(row)[[0, -1]]
    row[last + 1], row[first] = 1, 0
    known = truth(scene, layers)
    (item,) = known.particles
    np.testing.assert_array_equal(_whole(known)[1], layers.instances == 1)
    assert item.visible_fraction == 1


def test_where_surfaces_touch_the_one_that_is_seen_lies_above() -> None:
    scene = _scene([(0, 0, 8), (9, 0, 20)])
    layers = _layers(scene)
    shared = np.flatnonzero(_truth(scene).amodal.of(0) == 48 * _SIZE + 52)
    assert layers.instances[48, 52] == 2
    assert len(shared) == 1
    layers.instances[48, 52] = 1
    order = truth(scene, layers).order
    assert (order.over.tolist(), order.under.tolist()) == ([0, 1], [1, 0])
    assert order.hidden_px[0] == 1
    assert order.rank.tolist() == [1, 0]


def test_pixels_within_a_mask_stay_whatever_is_seen_there() -> None:
    scene = _scene([(0, 0, 8)])
    layers = _layers(scene)
    layers.instances[48, 48] = 0
    assert _whole(truth(scene, layers))[1][48, 48]


def test_a_burned_in_bar_hides_what_is_below() -> None:
    scene = _scene([(0, -40, 8), (0, 20, 8)])
    layers = _layers(scene)
    covered = np.zeros((_SIZE, _SIZE), dtype=bool)
    covered[-8:] = True
    known = truth(scene, layers, covered)
    assert not known.labels[covered].any()
    assert not known.mask[covered].any()
    below, above = known.particles
    assert below.visible_px == (layers.instances[:-8] == 1).sum()
    assert 0 < below.visible_fraction < 1
    assert below.amodal_px == (layers.instances == 1).sum()
    assert above.visible_fraction == 1


def test_the_table_tells_sizes_poses_and_what_is_cut() -> None:
    scene = _scene([(10, -5, 12), (48, 0, 8)], 10.0, seed=5)
    known = _truth(scene)
    rows = list(csv.DictReader(io.StringIO(particle_table(known.particles, _CLASSES).decode())))
    ball, edge = rows
    assert (ball["id"], ball["class"], ball["shape"]) == ("1", "ball", "sphere")
    assert (edge["class"], edge["shape"]) == ("1", "ellipsoid")
    for name in ("diameter_nm", "feret_min_nm", "feret_max_nm"):
        assert float(ball[name]) == pytest.approx(40, rel=1e-3)
    assert float(ball["length_nm"]) == pytest.approx(float(ball["thickness_nm"]), rel=1e-3)
    assert float(ball["projected_area_nm2"]) == pytest.approx(400 * np.pi, rel=1e-3)
    assert float(ball["volume_nm3"]) == pytest.approx(4 / 3 * np.pi * 20**3, rel=1e-4)
    assert (float(ball["x_px"]), float(ball["y_px"]), float(ball["z_nm"])) == (58, 53, 24)
    assert (ball["cut_by_frame"], edge["cut_by_frame"]) == ("0", "1")
    assert float(edge["length_nm"]) >= float(edge["width_nm"]) >= float(edge["thickness_nm"])
    # The quaternion turns the particle's axes as the scene did.
    w, x, y, z = (float(edge[name]) for name in ("qw", "qx", "qy", "qz"))
    assert w >= 0
    first = (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y))
    np.testing.assert_allclose(scene.rotation[1][:, 0], first, atol=1e-5)


def test_coco_holds_the_labelled_particles_and_who_hides_them() -> None:
    known = _truth(_crowd(6))
    document = coco_scene(known, _CLASSES, "000000.tif", _PIXEL_NM)
    records = {item["id"]: item for item in document["annotations"]}
    assert set(records) == set(np.unique(known.labels).tolist()) - {0}
    hides = set(zip((known.order.over + 1).tolist(), (known.order.under + 1).tolist(), strict=True))
    for item in records.values():
        assert item["occluded_by"] == [i for i in sorted(records) if (i, item["id"]) in hides]
    assert [item["name"] for item in document["categories"]] == ["ball", "1"]


def test_an_empty_scene_has_empty_truth() -> None:
    known = _truth(_scene([]))
    assert known.particles == ()
    assert not known.labels.any()
    assert not known.mask.any()
