# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes: closed unit bodies in levels of detail, and particles that follow the recipe's laws."""

import sys
from collections.abc import Callable, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from granulo_render.domain.recipe import (
    Choice,
    Ellipsoid,
    Family,
    Platelet,
    Polyhedron,
    Rod,
    Shape,
    Sphere,
    Value,
    Wire,
)
from granulo_render.domain.shapes import (
    Template,
    random_rotation,
    rotate,
    volume,
)
from granulo_render.domain.shapes.crystals import crystal, regular_corners
from granulo_render.domain.shapes.icosphere import icosphere, refine
from granulo_render.domain.shapes.rounded import half_spaces
from granulo_render.domain.shapes.tubes import rod, wire

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from shape_sources import UNIT, drawn, size_nm, source_of

SHAPES: dict[str, Shape] = {
    "sphere": Sphere(),
    "rough sphere": Sphere(Value(0.08)),
    "ellipsoid": Ellipsoid(Value(3.0)),
    "rod": Rod(),
    "rod with flat ends": Rod(Value(3.0), Value(0.0)),
    "rod as short as thick": Rod(Value(1.0)),
    "wire": Wire(Value(3000.0)),
    "long wire": Wire(Value(50_000.0), Value(40.0)),
    "straight wire": Wire(Value(500.0), Value(0.0)),
    "platelet": Platelet(),
    "sharp triangle": Platelet(Value(0.05), Value(3.0), Value(0.0)),
    "round slab": Platelet(Value(0.9), Value(12.0), Value(1.0)),
    "sharp random hull": Polyhedron(
        families=(Family.RANDOM_HULL,), roughness=Value(0.0), bevel=Value(0.0)
    ),
    "rough octahedron": Polyhedron(
        templates=1, families=(Family.OCTAHEDRON,), roughness=Value(0.05)
    ),
    **{
        family.value: Polyhedron(templates=2, families=(family,), roughness=Value(0.0))
        for family in Family
    },
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@cache
def _templates(shape: Shape, seed: int = 0) -> Sequence[Template]:
    source = source_of(shape, seed=seed)
    source.draw(0, np.random.default_rng(seed))
    return source.templates


def _distance(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Distance of points (N, 3) from a triangle mesh, exact but for very slender triangles."""
    vertices, faces = refine(vertices, faces, 0.15)
    corners = vertices[faces]
    _, near = cKDTree(corners.mean(axis=1)).query(points, k=min(12, len(faces)))
    candidates = corners[near].reshape(-1, 3, 3)
    repeated = np.repeat(points, near.shape[1], axis=0)
    foot = trimesh.triangles.closest_point(candidates, repeated)
    return np.linalg.norm(foot - repeated, axis=1).reshape(near.shape).min(axis=1)


@every_shape
def test_every_level_is_closed_and_wound_outwards(shape: Shape) -> None:
    for template in _templates(shape):
        for level in template.levels:
            mesh = trimesh.Trimesh(level.vertices, level.faces, process=False)
            assert mesh.is_watertight
            assert mesh.is_winding_consistent
            assert mesh.volume > 0
            assert level.vertices.dtype == np.float64
            assert level.faces.dtype == np.int32
            assert np.isfinite(level.vertices).all()


@every_shape
def test_a_template_has_the_unit_spheres_volume_about_its_centroid(shape: Shape) -> None:
    for template in _templates(shape):
        finest = template.levels[-1]
        assert volume(finest.vertices, finest.faces) == pytest.approx(UNIT, rel=1e-9)
        # A shift leaves a closed mesh's volume; doubling about the centroid keeps the centroid.
        assert volume(finest.vertices + 1, finest.faces) == pytest.approx(UNIT, rel=1e-6)
        mesh = trimesh.Trimesh(finest.vertices, finest.faces, process=False)
        assert np.abs(mesh.center_mass).max() < 1e-6


@every_shape
def test_the_long_axis_is_x_and_the_short_one_z(shape: Shape) -> None:
    for template in _templates(shape):
        x, y, z = template.half_sizes
        rough = 0.2 if getattr(shape, "roughness", Value(0)) != Value(0) else 1e-3
        assert x >= y - rough
        # A platelet's template serves several thicknesses, with z across its faces always.
        assert y >= z - rough or isinstance(shape, Platelet)
        assert np.ptp(template.vertices, axis=0) / 2 == pytest.approx([x, y, z])
        assert template.extent == pytest.approx(np.linalg.norm(template.vertices, axis=1).max())


@every_shape
@pytest.mark.parametrize("radius_px", [3.0, 12.0])
def test_the_drawn_level_is_within_a_twentieth_of_a_pixel(shape: Shape, radius_px: float) -> None:
    template = _templates(shape)[0]
    vertices, faces = template.mesh(radius_px)
    finest = template.levels[-1]
    if len(vertices) == len(finest.vertices):
        return
    step = max(1, len(finest.vertices) // 2000)
    inwards = _distance(finest.vertices[::step], vertices, faces)
    outwards = _distance(vertices, finest.vertices, finest.faces)
    assert max(inwards.max(), outwards.max()) * radius_px <= 0.05


@pytest.mark.parametrize("name", ["sphere", "rod", "wire", "platelet", "cube"])
def test_small_particles_have_small_meshes(name: str) -> None:
    template = _templates(SHAPES[name])[0]
    sizes = [len(template.mesh(radius_px)[0]) for radius_px in (2.0, 8.0, 100.0, 1e9)]
    assert sizes == sorted(sizes)
    assert sizes[1] < sizes[3] / 3
    assert sizes[3] == len(template.vertices)


@every_shape
def test_meshes_are_bounded(shape: Shape) -> None:
    assert all(len(template.vertices) <= 21_000 for template in _templates(shape))


@every_shape
def test_the_same_seed_gives_the_same_bytes(shape: Shape) -> None:
    first, second = _templates(shape), _templates.__wrapped__(shape)
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.vertices.tobytes() == other.vertices.tobytes()
        assert one.levels[0].faces.tobytes() == other.levels[0].faces.tobytes()


@pytest.mark.parametrize("family", Family)
def test_a_family_gives_four_visibly_different_templates(family: Family) -> None:
    templates = _templates(Polyhedron(families=(family,)))
    assert len(templates) == 4
    for one, other in combinations(templates, 2):
        finest = other.levels[-1]
        apart = _distance(one.vertices[::9], finest.vertices, finest.faces).max()
        assert apart > 0.06  # more than a pixel at a radius of 17 px


def test_families_take_turns() -> None:
    solid = Polyhedron(
        templates=4,
        families=(Family.CUBE, Family.OCTAHEDRON),
        bevel=Value(0.0),
        roughness=Value(0.0),
        aspect_ratio=Value(1.0),
    )
    assert [len(t.vertices) for t in _templates(solid)] == [8, 6, 8, 6]


@pytest.mark.parametrize(
    ("family", "corners", "faces", "volume_by_edge"),
    [
        (Family.CUBE, 8, 6, 1.0),
        (Family.OCTAHEDRON, 6, 8, 2**0.5 / 3),
        (Family.TRUNCATED_OCTAHEDRON, 24, 14, 8 * 2**0.5),
        (Family.DODECAHEDRON, 20, 12, (15 + 7 * 5**0.5) / 4),
    ],
)
def test_regular_solids_are_regular(
    family: Family, corners: int, faces: int, volume_by_edge: float
) -> None:
    rng = np.random.default_rng(0)
    template = crystal(regular_corners(family, rng), 0.0, 0.0, rng)
    assert len(template.vertices) == corners
    # Volumes of the solids of edge 1: Coxeter, Regular Polytopes, table I.
    edge = (UNIT / volume_by_edge) ** (1 / 3)
    nearest = cKDTree(template.vertices).query(template.vertices, k=2)[0][:, 1]
    assert nearest == pytest.approx(np.full(corners, edge))
    mesh = trimesh.Trimesh(*template.mesh(1.0), process=False)
    normals = np.unique(mesh.face_normals.round(6), axis=0)
    assert len(normals) == faces
    # It lies on a face.
    assert normals[:, 2].min() == pytest.approx(-1)


def _planes(template: Template) -> set[tuple[float, ...]]:
    """Directions of the large flat parts of the surface."""
    finest = template.levels[-1]
    mesh = trimesh.Trimesh(finest.vertices, finest.faces, process=False)
    directions, inverse = np.unique(mesh.face_normals.round(4), axis=0, return_inverse=True)
    areas = np.bincount(inverse.ravel(), mesh.area_faces)
    return {tuple(n + 0.0) for n in directions[areas > 0.3]}


def test_a_bevel_rounds_the_edges_and_leaves_the_faces_directions() -> None:
    rng = np.random.default_rng(0)
    sharp, round_ = (crystal(regular_corners(Family.CUBE, rng), b, 0.0, rng) for b in (0.0, 0.3))
    assert _planes(sharp) == _planes(round_)
    assert round_.extent < 0.9 * sharp.extent
    assert sharp.convex
    assert round_.convex
    # Each of its spheres' and cylinders' points is one ball's radius off the inner cube.
    finest = round_.levels[-1]
    inner = np.sign(finest.vertices) * 1.0
    ratio = 0.7 * (UNIT**1) ** (1 / 3) / 2
    scale = round_.half_sizes[0] / (ratio + 0.3)
    inner *= ratio * scale
    corner = (np.abs(finest.vertices) > np.abs(inner) + 1e-6).all(axis=1)
    assert corner.sum() > 100
    apart = np.linalg.norm(finest.vertices[corner] - inner[corner], axis=1)
    assert apart == pytest.approx(np.full(corner.sum(), 0.3 * scale), rel=1e-6)


@pytest.mark.parametrize("make", [crystal, half_spaces])
def test_roughness_moves_the_surface_by_its_height_and_nothing_else(
    make: Callable[..., Template],
) -> None:
    def shape(roughness: float, rng: np.random.Generator) -> Template:
        if make is crystal:
            return crystal(regular_corners(Family.DODECAHEDRON, rng), 0.1, roughness, rng)
        return half_spaces(14, 6.0, np.ones(3), roughness, rng)

    plain, slight, strong = (
        shape(roughness, np.random.default_rng(3)) for roughness in (0.0, 0.02, 0.08)
    )
    moved = [
        _distance(rough.vertices[::5], plain.vertices, plain.levels[-1].faces).max()
        for rough in (slight, strong)
    ]
    assert 0.01 < moved[0] < 0.07
    assert 2.5 < moved[1] / moved[0] < 5.5


def test_a_smooth_sphere_is_one_template_and_rough_ones_are_four() -> None:
    assert len(_templates(Sphere())) == 1
    assert len(_templates(Sphere(Value(0.05)))) == 4


@pytest.mark.parametrize(("aspect", "axes"), [(3.0, (3, 1, 1)), (0.25, (4, 4, 1))])
def test_an_ellipsoid_has_the_size_and_volume_drawn(aspect: float, axes: tuple[float, ...]) -> None:
    source = source_of(Ellipsoid(Value(aspect)), Value(50.0))
    particle = source.draw(0, np.random.default_rng(0))
    size = size_nm(source, particle)
    assert size / size[2] == pytest.approx(axes, rel=1e-3)
    assert np.prod(size) == pytest.approx(50.0**3, rel=2e-3)
    assert particle.radius_nm == pytest.approx(25.0)


@pytest.mark.parametrize("rounding", [0.0, 0.5, 1.0])
def test_a_rod_has_the_length_and_thickness_drawn(rounding: float) -> None:
    source = source_of(Rod(Value(4.3), Value(rounding)), Value(30.0))
    particle = source.draw(0, np.random.default_rng(0))
    assert size_nm(source, particle) == pytest.approx([129.0, 30.0, 30.0])
    cylinder, ball = np.pi * 15**2, np.pi * 30**3 / 6
    exact = {0.0: cylinder * 129.0, 1.0: cylinder * 99.0 + ball}
    if rounding in exact:
        assert UNIT * particle.radius_nm**3 == pytest.approx(exact[rounding], rel=0.02)


def test_flat_ends_are_flat_and_round_ones_round() -> None:
    for rounding, share in ((0.0, 0.8), (1.0, 0.3)):
        template = rod(3.0, rounding)
        mesh = trimesh.Trimesh(*template.mesh(1e3), process=False)
        end = mesh.area_faces[mesh.face_normals[:, 0] > 0.99].sum()
        assert (end / (np.pi * template.half_sizes[1] ** 2) > share) == (rounding == 0.0)


def test_a_wire_has_the_length_and_thickness_drawn() -> None:
    for length, bending in ((2000.0, 0.0), (8000.0, 40.0)):
        template, unit = wire(44.0, length, bending, np.random.default_rng(2))
        exact = np.pi * 22.0**2 * length
        assert UNIT * unit**3 == pytest.approx(exact, rel=0.01)
        assert template.half_sizes[2] * 2 * unit < 2 * 44.0  # it stays in its plane
        if not bending:
            assert template.half_sizes[0] * 2 * unit == pytest.approx(length, rel=1e-3)


def test_a_wires_direction_changes_as_much_as_the_recipe_says() -> None:
    bending, changes = 25.0, []
    for seed in range(40):
        template, unit = wire(40.0, 6000.0, bending, np.random.default_rng(seed))
        # The first levels' rings are the path: eight vertices each, in order.
        level = template.levels[0]
        path = level.vertices[:-2].reshape(-1, 8, 3).mean(axis=1)[4:-4, :2] * unit
        step = np.diff(path, axis=0)
        along = np.cumsum(np.hypot(*step.T))
        angle = np.degrees(np.unwrap(np.arctan2(step[:, 1], step[:, 0])))
        ends = np.arange(500.0, along[-1] - 500.0, 1000.0)
        changes += list(np.diff(np.interp(ends, along, angle)))
    assert np.std(changes) == pytest.approx(bending, rel=0.15)


def test_a_bent_wire_is_smooth_at_a_pixel() -> None:
    template, unit = wire(40.0, 50_000.0, 40.0, np.random.default_rng(0))
    finest = template.levels[-1].vertices[:-2]
    sides = (template.levels[-1].faces == len(finest)).any(axis=1).sum()  # meet at a pole
    path = finest.reshape(-1, sides, 3).mean(axis=1) * unit
    chord = path[2:] - path[:-2]
    off = np.linalg.norm(np.cross(path[1:-1] - path[:-2], chord), axis=1)
    sag = off / np.maximum(np.linalg.norm(chord, axis=1), 1e-9)
    # Of a chord over two steps; one over one step is four times closer.
    assert sag.max() / 4 < 0.6


@pytest.mark.parametrize("corners", [3.0, 6.0, 12.0])
def test_a_platelet_has_the_face_and_thickness_drawn(corners: float) -> None:
    source = source_of(Platelet(Value(0.13), Value(corners), Value(0.4)), Value(100.0))
    for particle in drawn(source, 5):
        template = source.templates[particle.template]
        assert size_nm(source, particle)[2] == pytest.approx(13.0)
        mesh = trimesh.Trimesh(template.vertices * particle.scale_nm, template.levels[-1].faces)
        up = mesh.face_normals[:, 2] > 0
        face = (mesh.area_faces * mesh.face_normals[:, 2])[up].sum()
        assert 2 * np.sqrt(face / np.pi) == pytest.approx(100.0)
        assert particle.radius_nm == pytest.approx((mesh.volume / UNIT) ** (1 / 3))


def test_turning_is_the_matrix_product() -> None:
    turn = random_rotation(np.random.default_rng(0), lying=False)
    points = np.random.default_rng(1).normal(size=(50, 3))
    assert rotate(points, turn) == pytest.approx(points @ turn.T)


def test_refining_keeps_a_mesh_closed_and_in_place() -> None:
    vertices, faces = icosphere(0)
    stretched = vertices * (5.0, 1.0, 0.3)
    finer, corners = refine(stretched, faces, 0.4)
    mesh = trimesh.Trimesh(finer, corners, process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(volume(stretched, faces))
    assert mesh.edges_unique_length.max() <= 0.4


def test_a_choice_of_corners_gives_several_outlines() -> None:
    source = source_of(Platelet(Value(0.2), Choice((3.0, 6.0, 12.0)), Value(0.0)), seed=1)
    drawn(source, 40)
    assert len(source.templates) == 4
    assert len({len(t.vertices) for t in source.templates}) >= 2
