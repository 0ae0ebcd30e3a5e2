# SPDX-License-Identifier: GPL-3.0-or-later
"""Silhouettes: every pixel centre that a particle covers, and measures of whole projections."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from granulo_render.domain.material import contrast_layer
from granulo_render.domain.measures import feret_diameters, measure
from granulo_render.domain.recipe import ParticleClass, Polyhedron, Shading, Shape, Sphere, Value
from granulo_render.domain.scanning import camera_matrices, project
from granulo_render.domain.scene import Scene
from granulo_render.domain.shapes import Level, ParticleSource, Template, random_rotation
from granulo_render.domain.shapes.template import make_template
from granulo_render.domain.silhouettes import fragments

Mask = NDArray[np.bool_]
Heights = NDArray[np.float64]


def _template(shape: Shape, seed: int) -> Template:
    kind = ParticleClass(shape, Value(1.0))
    return ParticleSource((kind,), {}, np.random.default_rng(seed)).templates[0]


PIXEL_NM = 2.0
_BALL = _template(Sphere(), 0)


def _box(*sides: float) -> Template:
    corners = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * sides
    faces = [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1)]
    faces += [(2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3)]
    level = Level(corners.astype(float), np.array(faces, dtype=np.int32), 0.0)
    return make_template([level], convex=True, smooth=False)


def _cross() -> Template:
    """Two bars of 6 x 2 that cross: 20 of area from above, in a hull of 36 - 4 * 2."""
    outline = [(1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1), (-1, -3), (1, -3)]
    outline += [(1, -1), (3, -1), (3, 1), (1, 1)]
    ring = np.array(outline, dtype=float)
    n = len(ring)
    corners = np.vstack([np.c_[ring, np.zeros(n)], np.c_[ring, np.ones(n)], (0, 0, 0), (0, 0, 1)])
    faces = []
    for i in range(n):
        j = (i + 1) % n
        faces += [(2 * n, j, i), (2 * n + 1, n + i, n + j), (i, j, n + j), (i, n + j, n + i)]
    level = Level(corners.astype(float), np.array(faces, dtype=np.int32), 0.0)
    return make_template([level], convex=False, smooth=False)


def _scene(
    template: Template | Sequence[Template],
    places: Sequence[tuple[float, float, float]],
    radius_px: float | Sequence[float] = 10.0,
    *,
    size: int = 64,
    tilt: float = 0.0,
    turned: int | None = None,
    stretch: tuple[float, float, float] = (1, 1, 1),
) -> Scene:
    """Particles at places in pixels, their rotations drawn from the seed ``turned``."""
    templates = (template,) if isinstance(template, Template) else tuple(template)
    n = len(places)
    radius = np.broadcast_to(np.asarray(radius_px, dtype=float) * PIXEL_NM, (n,)).copy()
    rng = np.random.default_rng(turned)
    turns = [np.eye(3) if turned is None else random_rotation(rng, lying=False) for _ in places]
    return Scene(
        size_px=size,
        pixel_size_nm=PIXEL_NM,
        upsampling=1,
        occlusion_nm=50.0,
        tilt_deg=tilt,
        shading=Shading.LAYERS,
        transparency=0.0,
        templates=templates,
        template=np.arange(n, dtype=np.int32) % len(templates),
        kind=np.zeros(n, dtype=np.int32),
        radius_nm=radius,
        scale_nm=radius[:, None] * np.array(stretch),
        rotation=np.array(turns).reshape(-1, 3, 3),
        position_nm=np.array(places, dtype=float).reshape(-1, 3) * PIXEL_NM,
        brightness=np.ones(n),
        core_ratio=np.zeros(n),
        core_brightness=np.ones(n),
        cluster=np.zeros(n, dtype=np.int32),
        unplaced=0,
    )


def _mask(scene: Scene, particle: int = 0) -> Mask:
    found = fragments(scene)
    mask = np.zeros(scene.size_px**2, dtype=bool)
    mask[found.pixel[found.offsets[particle] : found.offsets[particle + 1]]] = True
    return mask.reshape(scene.size_px, scene.size_px)


def _by_rays(scene: Scene, particle: int) -> tuple[Heights, Heights]:
    """Heights where the rays of all pixels enter and leave a mesh, one triangle after the other."""
    matrix, shift = camera_matrices(scene)
    scale_px = scene.scale_nm[particle].max() / scene.pixel_size_nm
    vertices, faces = scene.templates[scene.template[particle]].mesh(float(scale_px))
    points = project(vertices, matrix[particle], shift[particle])
    top = np.full((scene.size_px, scene.size_px), -np.inf)
    bottom = np.full_like(top, np.inf)
    row, column = np.mgrid[: scene.size_px, : scene.size_px]
    for face in faces:
        x, y, z = points[:, face]
        area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
        if area == 0:
            continue
        a = ((x[1] - column) * (y[2] - row) - (x[2] - column) * (y[1] - row)) / area
        b = ((x[2] - column) * (y[0] - row) - (x[0] - column) * (y[2] - row)) / area
        inside = (a >= 0) & (b >= 0) & (a + b <= 1)
        height = a * z[0] + b * z[1] + (1 - a - b) * z[2]
        top[inside] = np.maximum(top, height)[inside]
        bottom[inside] = np.minimum(bottom, height)[inside]
    return top, bottom


@pytest.mark.parametrize("tilt", [0.0, 35.0])
@pytest.mark.parametrize("template", [_box(4, 2, 1), _cross()], ids=["box", "cross"])
def test_fragments_of_meshes_are_where_rays_through_pixel_centres_hit(
    template: Template, tilt: float
) -> None:
    places = [(0.3, 0.2, 8), (-9.1, 4.7, 12), (28.0, -30.5, 9)]  # the last one leaves the frame
    scene = _scene(template, places, turned=3, tilt=tilt)
    found = fragments(scene, lower=True)
    assert found.bottom_nm is not None
    for particle in range(scene.count):
        own = slice(found.offsets[particle], found.offsets[particle + 1])
        top, bottom = _by_rays(scene, particle)
        np.testing.assert_array_equal(found.pixel[own], np.flatnonzero(top > -np.inf))
        np.testing.assert_allclose(found.top_nm[own], top.ravel()[found.pixel[own]], atol=1e-3)
        np.testing.assert_allclose(
            found.bottom_nm[own], bottom.ravel()[found.pixel[own]], atol=1e-3
        )


@pytest.mark.parametrize("shape", [Sphere(), Polyhedron()])
def test_fragments_of_fine_meshes_are_where_rays_through_pixel_centres_hit(shape: Shape) -> None:
    template = _template(shape, 1)
    scene = _scene(template, [(0.3, 0.2, 8)], 5.0, size=20, turned=4, stretch=(1.4, 1, 0.7))
    top, _ = _by_rays(scene, 0)
    np.testing.assert_array_equal(_mask(scene), top > -np.inf)


@pytest.mark.parametrize("radius_px", [8.0, 12.7, 25.0])
def test_a_sphere_covers_the_analytic_disc(radius_px: float) -> None:
    scene = _scene(_BALL, [(0.37, -0.21, 30)], radius_px, turned=0)
    row, column = np.mgrid[:64, :64]
    apart = np.hypot(column - 31.5 - 0.37, row - 31.5 - 0.21)
    disc, mask = apart <= radius_px, _mask(scene)
    assert (disc & mask).sum() / (disc | mask).sum() >= 0.98
    assert mask.sum() == pytest.approx(disc.sum(), rel=0.01)
    assert not mask[apart > radius_px + 0.1].any()
    assert mask[apart < radius_px - 0.1].all()


def test_heights_of_a_tilted_ellipsoid_are_those_of_its_surface() -> None:
    scene = _scene(_BALL, [(1, 2, 15)], 9.0, tilt=30, turned=2, stretch=(1.6, 1, 0.5))
    found = fragments(scene, lower=True)
    assert found.bottom_nm is not None
    matrix, shift = camera_matrices(scene)
    row, column = np.divmod(found.pixel, scene.size_px)
    for height in (found.top_nm, found.bottom_nm):
        point = np.stack([column, row, height.astype(float)]) - shift[0][:, None]
        apart = np.linalg.norm(np.linalg.solve(matrix[0], point), axis=0)
        assert np.median(np.abs(apart - _BALL.extent)) < 1e-5
        assert apart.max() < 1.02
    assert (found.top_nm >= found.bottom_nm).all()


@settings(max_examples=20, deadline=None)
@given(
    right=st.integers(-12, 12),
    up=st.integers(-12, 12),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["ball", "box", "cross"]),
)
def test_a_particle_shifted_by_whole_pixels_covers_the_shifted_pixels(
    right: int, up: int, seed: int, kind: str
) -> None:
    template = {"ball": _BALL, "box": _box(3, 2, 1), "cross": _cross()}[kind]
    here = _mask(_scene(template, [(0.123, 0.456, 9)], 6.0, turned=seed))
    there = _mask(_scene(template, [(right + 0.123, up + 0.456, 9)], 6.0, turned=seed))
    np.testing.assert_array_equal(np.roll(here, (-up, right), axis=(0, 1)), there)


def test_particles_outside_of_the_image_and_empty_scenes_have_no_fragments() -> None:
    far = fragments(_scene([_BALL, _box(1, 1, 1)], [(60, 0, 9), (0, -60, 9)]))
    assert len(far.pixel) == 0
    assert far.offsets.tolist() == [0, 0, 0]
    assert fragments(_scene(_BALL, [])).offsets.tolist() == [0]


def test_fragments_come_by_particle_and_then_by_pixel() -> None:
    places = [(x, y, 9.0) for x in (-20, 0, 20) for y in (-10, 10)]
    found = fragments(_scene([_BALL, _cross()], places, turned=1))
    assert (np.diff(found.particle) >= 0).all()
    for i in range(6):
        own = slice(found.offsets[i], found.offsets[i + 1])
        assert (found.particle[own] == i).all()
        assert (np.diff(found.pixel[own]) > 0).all()


def test_a_particle_shrunk_by_half_covers_a_quarter_and_one_by_nothing_none() -> None:
    scene = _scene(_cross(), [(0, 0, 9), (0, 0, 9)], 20.0, turned=1)
    found = fragments(scene, np.array([0.5, 0.0]))
    assert found.offsets[1] == pytest.approx(_mask(scene).sum() / 4, rel=0.03)
    assert found.offsets[2] == found.offsets[1]


def test_feret_diameters_of_known_polygons() -> None:
    square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], dtype=float).T
    assert feret_diameters(square) == pytest.approx((1, np.sqrt(2)), rel=1e-6)
    triangle = np.array([(0, 0), (4, 0), (0, 3)], dtype=float).T
    assert feret_diameters(triangle) == pytest.approx((12 / 5, 5), rel=1e-6)
    assert feret_diameters(np.array([(0, 0), (3, 4)], dtype=float).T) == pytest.approx((0, 5))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 40), st.floats(0.01, 1))
def test_feret_diameters_are_the_extremes_over_all_pairs(
    seed: int, count: int, flat: float
) -> None:
    points = np.random.default_rng(seed).normal(size=(2, count)) * [[1], [flat]]
    apart = points[:, :, None] - points[:, None]
    most = np.sqrt((apart**2).sum(axis=0)).max()
    # The least width lies across the line of two points that have all others on one side.
    least = np.inf
    for i in range(count):
        for j in range(i):
            x, y = apart[:, i, j]
            beside = (x * apart[1, :, j] - y * apart[0, :, j]) / np.hypot(x, y)
            if (beside < 1e-9).all() or (beside > -1e-9).all():
                least = min(least, np.abs(beside).max())
    assert feret_diameters(points) == pytest.approx((least, most), rel=1e-5, abs=1e-6)


def test_long_meshes_that_leave_the_image_lose_no_pixel_in_it() -> None:
    scene = _scene(_box(60, 2, 1), [(3, 5, 9), (-20, 9, 12)], 30.0, turned=8)
    for particle in range(2):
        top, _ = _by_rays(scene, particle)
        np.testing.assert_array_equal(_mask(scene, particle), top > -np.inf)


def test_projections_of_known_solids() -> None:
    templates = [_BALL, _box(3, 2, 1), _cross()]
    # Unit volume of the ball: a box of 3 x 2 x 1 and a cross of 20 x 1 are scaled to 4/3 pi.
    scene = _scene(templates, [(0, 0, 0), (0, 0, 0), (0, 30, 0)], 10.0)
    found = measure(scene, np.arange(3))
    box, cross = ((4 * np.pi / 3 / volume) ** (1 / 3) * 20 for volume in (6, 20))
    areas = [np.pi * 20**2, 6 * box**2, 20 * cross**2]
    np.testing.assert_allclose(found.area_nm2, areas, rtol=5e-3)
    np.testing.assert_allclose(found.area_nm2[:2], areas[:2], rtol=1e-6)
    np.testing.assert_allclose(
        found.feret_max_nm, [40, box * np.sqrt(13), cross * np.sqrt(40)], rtol=1e-6
    )
    # The cross between two of the hull's long edges: 8 / sqrt(2).
    np.testing.assert_allclose(found.feret_min_nm, [40, 2 * box, cross * 8 / np.sqrt(2)], rtol=1e-6)
    assert found.cut.tolist() == [False, False, True]


@pytest.mark.parametrize("template", [_box(5, 2, 1), _cross()], ids=["box", "cross"])
def test_projected_areas_from_any_side_agree_with_a_fine_raster(template: Template) -> None:
    places = [(0.0, 0.0, 0.0)] * 4
    scene = _scene(template, places, 100.0, size=512, turned=5, tilt=20)
    pixels = np.diff(fragments(scene).offsets) * PIXEL_NM**2
    np.testing.assert_allclose(measure(scene, np.arange(4)).area_nm2, pixels, rtol=5e-3)


def test_projections_of_an_ellipsoid_follow_from_its_axes() -> None:
    scene = _scene(_BALL, [(0, 0, 0)], 10.0, stretch=(2, 1, 0.5))
    found = measure(scene, np.array([0]))
    assert found.feret_max_nm[0] == pytest.approx(80)
    assert found.feret_min_nm[0] == pytest.approx(40)
    assert found.area_nm2[0] == pytest.approx(np.pi * 40 * 20)


def test_materials_of_one_brightness_need_no_layer_and_others_get_theirs() -> None:
    scene = _scene(_BALL, [(-15, 0, 9), (15, 0, 9)])
    instances = np.zeros((64, 64), dtype=np.uint16)
    instances[_mask(scene, 0)], instances[_mask(scene, 1)] = 1, 2
    assert contrast_layer(scene, instances) is None
    scene.brightness[:] = 1.5, 0.5
    layer = contrast_layer(scene, instances)
    assert layer is not None
    assert layer.dtype == np.float16
    expected = np.array([1, 1.5, 0.5])[instances]
    np.testing.assert_array_equal(layer, expected)


def test_a_core_counts_by_its_share_of_the_beams_path() -> None:
    scene = _scene(_BALL, [(0.5, 0.5, 20)], 20.0)
    scene.core_ratio[:], scene.core_brightness[:], scene.brightness[:] = 0.5, 3.0, 2.0
    layer = contrast_layer(scene, _mask(scene).astype(np.uint16))
    assert layer is not None
    assert layer[31, 32] == pytest.approx(2 * (1 + 2 * 0.5), rel=2e-3)
    at = np.sqrt((10**2 - 8**2) / (20**2 - 8**2))  # 8 px from the middle
    assert layer[31, 40] == pytest.approx(2 * (1 + 2 * at), rel=2e-3)
    assert layer[31, 45] == 2
    assert layer[0, 0] == 1
