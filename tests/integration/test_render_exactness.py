# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers from the real Blender against formulas, and the same bytes whatever came before."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from granulo_core.imaging.layers import Layers
from granulo_render.domain.recipe import Shading
from granulo_render.domain.scene import Scene
from granulo_render.domain.shapes.icosphere import icosphere
from granulo_render.domain.shapes.template import Level, Template, make_template

Render = Callable[[Scene], Layers]
PIXEL_NM = 2.0
SIZE_PX = 120


def _render(scene: Scene) -> Layers:
    from granulo_render.blender.layers import render_layers

    return render_layers(scene)


def _resident_kib(_: int) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0])


def _blender() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """One process with its Blender for all tests: bpy shares no process with TensorFlow."""
    with _blender() as pool:
        yield pool


@pytest.fixture
def render(pool: ProcessPoolExecutor) -> Render:
    return lambda scene: pool.submit(_render, scene).result(timeout=300)


def _sphere_template() -> Template:
    vertices, faces = icosphere(5)
    return make_template([Level(vertices, faces, 0.0)], convex=True, smooth=True)


def _cube_template() -> Template:
    corners = np.array([(x, y, z) for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [f for a, b, c, d in quads for f in ((a, b, c), (a, c, d))]
    level = Level(corners, np.array(faces, dtype=np.int32), 0.0)
    return make_template([level], convex=True, smooth=False)


SPHERE, CUBE = _sphere_template(), _cube_template()


def _scene(
    centres_nm: list[tuple[float, float, float]],
    scales_nm: list[tuple[float, float, float]],
    **others: object,
) -> Scene:
    count = len(centres_nm)
    scale = np.array(scales_nm, dtype=np.float64).reshape(-1, 3)
    scene = Scene(
        size_px=SIZE_PX,
        pixel_size_nm=PIXEL_NM,
        upsampling=1,
        occlusion_nm=40.0,
        tilt_deg=0.0,
        shading=Shading.LAYERS,
        transparency=0.0,
        templates=(SPHERE, CUBE),
        template=np.zeros(count, dtype=np.int32),
        kind=np.zeros(count, dtype=np.int32),
        radius_nm=np.cbrt(scale.prod(axis=1)),
        scale_nm=scale,
        rotation=np.tile(np.eye(3), (count, 1, 1)),
        position_nm=np.array(centres_nm, dtype=np.float64).reshape(-1, 3),
        brightness=np.ones(count),
        core_ratio=np.zeros(count),
        core_brightness=np.ones(count),
        cluster=np.zeros(count, dtype=np.int32),
        unplaced=0,
    )
    return replace(scene, **others)  # type: ignore[arg-type]


def _spheres(**others: object) -> Scene:
    radii = (17.0, 33.0, 54.0)  # 8.5, 16.5 and 27 px
    centres = [(-95.3, 40.1, radii[0]), (-37.4, -22.9, radii[1]), (59.7, 1.2, radii[2])]
    return _scene(centres, [(r, r, r) for r in radii], **others)


def _grid(scene: Scene) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Camera coordinates of the pixels' centres, in nm."""
    along = (np.arange(scene.size_px) + 0.5 - scene.size_px / 2) * scene.pixel_size_nm
    x, y = np.meshgrid(along, -along)
    return x, y


@pytest.mark.parametrize("tilt_deg", [0.0, 35.0, 60.0])
def test_spheres_are_seen_as_their_discs(render: Render, tilt_deg: float) -> None:
    scene = _spheres(tilt_deg=tilt_deg)
    layers = render(scene)
    x, y = _grid(scene)
    centres = np.einsum("ik,nk->ni", scene.view, scene.position_nm)
    for i, radius in enumerate(scene.radius_nm):
        seen = layers.instances == i + 1
        disc = (x - centres[i, 0]) ** 2 + (y - centres[i, 1]) ** 2 <= radius**2
        assert (seen & disc).sum() / (seen | disc).sum() >= 0.98
        radius_px = np.sqrt(seen.sum() / np.pi)
        assert abs(radius_px - radius / PIXEL_NM) < 0.5
        assert abs(x[seen].mean() - centres[i, 0]) < 0.25 * PIXEL_NM
        assert abs(y[seen].mean() - centres[i, 1]) < 0.25 * PIXEL_NM


@pytest.mark.parametrize("tilt_deg", [0.0, 35.0, 60.0])
def test_heights_and_normals_are_those_of_the_sphere(render: Render, tilt_deg: float) -> None:
    scene = _spheres(tilt_deg=tilt_deg)
    layers = render(scene)
    x, y = _grid(scene)
    centres = np.einsum("ik,nk->ni", scene.view, scene.position_nm)
    for i, radius in enumerate(scene.radius_nm):
        dx, dy = x - centres[i, 0], y - centres[i, 1]
        inner = (layers.instances == i + 1) & (dx**2 + dy**2 < (0.85 * radius) ** 2)
        dz = np.sqrt(np.where(inner, radius**2 - dx**2 - dy**2, 1.0))
        up = scene.view[:, 2]
        height = scene.position_nm[i, 2] + up[0] * dx + up[1] * dy + up[2] * dz
        assert np.abs(layers.height_nm - height)[inner].max() < 0.1 * PIXEL_NM
        normal = np.stack([dx, -dy, dz], axis=-1) / radius * 127
        assert np.abs(layers.normals - normal)[inner].max() < 3


@pytest.mark.parametrize("tilt_deg", [0.0, 60.0])
def test_the_substrate_fills_the_frame_at_height_zero(render: Render, tilt_deg: float) -> None:
    scene = _scene([], [], tilt_deg=tilt_deg)
    layers = render(scene)
    assert not layers.instances.any()
    assert np.abs(layers.height_nm).max() < 0.05
    # The specimen's far side is up: seen by the camera, its normal leans towards the far side.
    tilt = np.deg2rad(tilt_deg)
    expected = np.rint([0.0, -np.sin(tilt) * 127, np.cos(tilt) * 127])
    assert np.abs(layers.normals - expected).max() <= 1
    assert layers.occlusion.min() > 250


def test_scales_along_axes_and_flat_faces(render: Render) -> None:
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x of the particle is up in the image
    scene = _scene([(0, 0, 40.0)], [(90.0, 30.0, 20.0)], template=np.array([1], dtype=np.int32))
    scene = replace(scene, rotation=turn[None])
    seen = render(scene)
    half = CUBE.half_sizes[0]
    rows, columns = np.nonzero(seen.instances)
    assert np.ptp(rows) + 1 == pytest.approx(2 * half * 90 / PIXEL_NM, abs=1.5)
    assert np.ptp(columns) + 1 == pytest.approx(2 * half * 30 / PIXEL_NM, abs=1.5)
    inside = seen.instances == 1
    assert (seen.normals[inside] == (0, 0, 127)).all()
    assert np.allclose(seen.height_nm[inside], 40 + half * 20, atol=0.1)


def test_occlusion_darkens_gaps_and_nothing_else(render: Render) -> None:
    layers = render(_scene([(-41.0, 0, 40.0), (41.0, 0, 40.0)], [(40.0,) * 3] * 2))
    middle = SIZE_PX // 2
    assert layers.occlusion[middle, middle] < 100  # between two spheres
    assert layers.occlusion[:10].mean() > 235  # open substrate
    assert layers.occlusion[middle, middle - 20] > 245  # on top of one


def test_cycles_shading_keeps_ids_and_heights_and_lets_the_lower_shine_through(
    render: Render,
) -> None:
    places = [(-40.0, 0, 40.0), (0.0, 0, 125.0)]
    plain = _scene(places, [(40.0,) * 3, (45.0,) * 3])
    opaque = render(replace(plain, shading=Shading.CYCLES))
    clear = render(replace(plain, shading=Shading.CYCLES, transparency=0.6))
    layers = render(plain)
    assert layers.shaded is None
    assert opaque.shaded is not None
    assert clear.shaded is not None
    for shaded in (opaque, clear):
        assert np.array_equal(shaded.instances, layers.instances)
        assert np.array_equal(shaded.height_nm, layers.height_nm)
        assert np.array_equal(shaded.normals, layers.normals)
    top, middle = opaque.shaded.astype(float), SIZE_PX // 2
    below = clear.shaded.astype(float)
    # The ground makes the upper sphere darker, the lower sphere less so.
    left, right = (middle, middle - 10), (middle, middle + 10)
    assert top[left] == pytest.approx(top[right], rel=0.1)
    assert below[right] < 0.8 * top[right]
    assert below[left] > 1.08 * below[right]
    # Bright edges on a dark ground.
    assert top[middle, middle + 21] > 1.2 * top[middle, middle] > 2 * top[5, 5]


def test_ids_are_all_of_the_foreground(render: Render) -> None:
    layers = render(_spheres())
    foreground = layers.height_nm > 0.5
    assert np.array_equal(foreground, layers.instances > 0)
    assert set(np.unique(layers.instances)) == {0, 1, 2, 3}


def test_layers_are_byte_identical_whatever_was_rendered_before(
    pool: ProcessPoolExecutor, render: Render
) -> None:
    scene = _spheres(shading=Shading.CYCLES, tilt_deg=20.0)
    first = render(scene).save()
    render(_scene([(0, 0, 30.0)], [(30.0,) * 3], occlusion_nm=90.0, transparency=0.5, size_px=64))
    assert render(scene).save() == first
    with _blender() as fresh:
        assert fresh.submit(_render, scene).result(timeout=300).save() == first


def test_many_scenes_take_no_more_memory_than_a_few(
    pool: ProcessPoolExecutor, render: Render
) -> None:
    few, many = _resident_after(pool, render, 10, 40)
    assert many < 1.1 * few


@pytest.mark.long
def test_500_scenes_take_no_more_memory_than_a_few(
    pool: ProcessPoolExecutor, render: Render
) -> None:
    few, many = _resident_after(pool, render, 20, 500)
    assert many < 1.1 * few


def _resident_after(
    pool: ProcessPoolExecutor, render: Render, few: int, many: int
) -> tuple[int, int]:
    """Resident memory of the worker in KiB after few and after many scenes."""
    rng = np.random.default_rng(0)
    resident: dict[int, int] = {}
    for number in range(1, many + 1):
        places = [(*rng.uniform(-100, 100, 2), 12.0) for _ in range(60)]
        render(_scene(places, [(12.0,) * 3] * 60, size_px=64))
        if number in (few, many):
            resident[number] = pool.submit(_resident_kib, 0).result()
    return resident[few], resident[many]
