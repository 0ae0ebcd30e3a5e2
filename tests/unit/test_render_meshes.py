# SPDX-License-Identifier: GPL-3.0-or-later
"""A user's own mesh: what is read, what it becomes, and what is refused and why."""

import numpy as np
import pytest
import trimesh

from granulo_render.domain import user_mesh
from granulo_render.domain.recipe import Format, ParticleClass, UserMesh, Value
from granulo_render.domain.shapes import ParticleSource, volume
from granulo_render.domain.user_mesh import MeshError, read_mesh

HUGE_PLY = b"""ply
format binary_little_endian 1.0
element vertex 160000000
property float x
property float y
property float z
element face 5
property list uchar int vertex_indices
end_header
"""
UNIT = 4 * np.pi / 3


def _bytes(mesh: trimesh.Trimesh, kind: str) -> bytes:
    data = mesh.export(file_type=kind)
    return data.encode() if isinstance(data, str) else data


def _box() -> trimesh.Trimesh:
    """A box of 4 x 2 x 1 in metres of nanometres, turned and far from the origin."""
    mesh = trimesh.creation.box((4e-9, 2e-9, 1e-9))
    mesh.apply_transform(trimesh.transformations.euler_matrix(0.3, 0.5, 0.7))
    mesh.apply_translation((3e-9, -4e-9, 5e-9))
    return mesh


FILES = [("obj", Format.OBJ), ("stl", Format.STL), ("stl_ascii", Format.STL), ("ply", Format.PLY)]


@pytest.mark.parametrize(("kind", "form"), FILES)
def test_every_format_becomes_a_unit_body_on_its_principal_axes(kind: str, form: Format) -> None:
    box = trimesh.creation.box((40, 20, 10))
    box.apply_transform(trimesh.transformations.euler_matrix(0.3, 0.5, 0.7))
    box.apply_translation((30, -40, 50))
    mesh = read_mesh(_bytes(box, kind), form)
    assert volume(mesh.vertices, mesh.faces) == pytest.approx(UNIT)
    sizes = np.ptp(mesh.vertices, axis=0)
    assert sizes / sizes[2] == pytest.approx([4, 2, 1], rel=1e-4)
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert solid.is_watertight
    assert solid.is_winding_consistent
    assert np.abs(solid.center_mass).max() < 1e-6
    assert len(mesh.vertices) == 8
    assert mesh.convex
    assert not mesh.smooth


def test_the_unit_of_length_does_not_matter() -> None:
    mesh = read_mesh(_bytes(_box(), "stl"), Format.STL)
    sizes = np.ptp(mesh.vertices, axis=0)
    assert sizes / sizes[2] == pytest.approx([4, 2, 1], rel=1e-4)


def test_a_binary_ply_is_read() -> None:
    data = trimesh.creation.icosphere(2).export(file_type="ply", encoding="binary")
    mesh = read_mesh(data, Format.PLY)
    assert mesh.smooth
    assert mesh.convex


def test_faces_wound_at_random_are_turned_outwards() -> None:
    ball = trimesh.creation.icosphere(2)
    faces = ball.faces.copy()
    turned = np.random.default_rng(0).random(len(faces)) < 0.5
    faces[turned] = faces[turned][:, ::-1]
    mesh = read_mesh(
        _bytes(trimesh.Trimesh(ball.vertices, faces, process=False), "stl"), Format.STL
    )
    assert trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).is_winding_consistent
    assert volume(mesh.vertices, mesh.faces) == pytest.approx(UNIT)


def test_a_body_wound_inwards_is_turned_and_keeps_its_cavity() -> None:
    outer, inner = trimesh.creation.icosphere(2, 2.0), trimesh.creation.icosphere(2, 1.0)
    outer.invert()
    shell = trimesh.util.concatenate([outer, inner])
    mesh = read_mesh(_bytes(shell, "stl"), Format.STL)
    assert volume(mesh.vertices, mesh.faces) == pytest.approx(UNIT)
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert radii.max() / radii.min() == pytest.approx(2, rel=1e-2)
    assert radii.max() == pytest.approx((8 / 7) ** (1 / 3), rel=0.03)
    assert not mesh.convex


def test_a_ring_is_neither_convex_nor_facetted() -> None:
    ring = trimesh.creation.torus(3.0, 1.0)
    mesh = read_mesh(_bytes(ring, "obj"), Format.OBJ)
    assert not mesh.convex
    assert mesh.smooth
    assert np.ptp(mesh.vertices[:, 2]) == pytest.approx(np.ptp(mesh.vertices[:, 0]) / 4, rel=1e-2)


def test_particles_are_drawn_from_it() -> None:
    box = read_mesh(_bytes(trimesh.creation.box((3, 2, 1)), "stl"), Format.STL)
    kind = ParticleClass(UserMesh("uploads/box", Format.STL), Value(50.0))
    source = ParticleSource([kind], {"uploads/box": box}, np.random.default_rng(0))
    particle = source.draw(0, np.random.default_rng(0))
    assert particle.scale_nm == (25.0, 25.0, 25.0)
    sizes = np.array(source.templates[particle.template].half_sizes)
    assert sizes / sizes[2] == pytest.approx([3, 2, 1], rel=1e-4)


def _open() -> trimesh.Trimesh:
    mesh = trimesh.creation.box()
    mesh.update_faces(np.arange(12) != 5)
    return mesh


def _two_sided_sheet() -> trimesh.Trimesh:
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=float)
    faces = [[0, 1, 2], [0, 2, 3], [2, 1, 0], [3, 2, 0]]
    return trimesh.Trimesh(corners, faces, process=False)


@pytest.mark.parametrize(("kind", "form"), FILES)
def test_an_open_mesh_is_refused(kind: str, form: Format) -> None:
    with pytest.raises(MeshError, match="not closed: 3 of its 18 edges"):
        read_mesh(_bytes(_open(), kind), form)


def test_a_flat_mesh_is_refused() -> None:
    with pytest.raises(MeshError, match=r"not closed|no volume"):
        read_mesh(_bytes(_two_sided_sheet(), "stl"), Format.STL)
    box = trimesh.creation.box((1, 1, 0))
    with pytest.raises(MeshError, match=r"not closed|no volume"):
        read_mesh(_bytes(box, "stl"), Format.STL)


def test_numbers_that_are_not_finite_are_refused() -> None:
    box = trimesh.creation.box()
    vertices = box.vertices.copy()
    vertices[3, 1] = np.nan
    data = _bytes(trimesh.Trimesh(vertices, box.faces, process=False, validate=False), "stl")
    with pytest.raises(MeshError, match="no finite numbers"):
        read_mesh(data, Format.STL)


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("data", [b"", b"solid nothing\nendsolid", b"\x00" * 84, b"\xff\xfe" * 99])
def test_empty_files_and_noise_are_refused(data: bytes, form: Format) -> None:
    with pytest.raises(MeshError):
        read_mesh(data, form)


def test_too_many_triangles_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_mesh, "MAX_FACES", 100)
    for kind, form in FILES:
        with pytest.raises(MeshError, match="triangles; at most 100"):
            read_mesh(_bytes(trimesh.creation.icosphere(2), kind), form)


def test_too_large_a_file_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_mesh, "MAX_BYTES", 1000)
    monkeypatch.setattr(trimesh, "load_mesh", lambda *_, **__: pytest.fail("was read"))
    with pytest.raises(MeshError, match="at most 0 MiB"):
        read_mesh(bytes(1001), Format.OBJ)


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (bytes(80) + (42_949_672).to_bytes(4, "little") + bytes(50), Format.STL),
        (HUGE_PLY, Format.PLY),
    ],
)
def test_a_small_file_that_claims_two_gigabytes_is_refused_unread(
    data: bytes, form: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimesh, "load_mesh", lambda *_, **__: pytest.fail("was read"))
    with pytest.raises(MeshError, match="triangles; at most 500000"):
        read_mesh(data, form)


def test_a_file_cut_short_is_refused() -> None:
    data = _bytes(trimesh.creation.box(), "stl")
    with pytest.raises(MeshError, match="claims 12 triangles but ends before"):
        read_mesh(data[:-30], Format.STL)


def test_a_surface_without_inside_is_refused() -> None:
    # The Klein bottle: a grid closed with a flip in one direction; every edge joins two faces.
    rows, columns = 12, 12

    def number(i: int, j: int) -> int:
        if i == rows:
            i, j = 0, (columns - j) % columns
        return i * columns + j % columns

    faces = []
    for i in range(rows):
        for j in range(columns):
            a, b, c, d = number(i, j), number(i + 1, j), number(i + 1, j + 1), number(i, j + 1)
            faces += [[a, b, c], [a, c, d]]
    corners = np.random.default_rng(0).normal(size=(rows * columns, 3))
    bottle = trimesh.Trimesh(corners, faces, process=False)
    with pytest.raises(MeshError, match="no inside and outside"):
        read_mesh(_bytes(bottle, "stl"), Format.STL)
