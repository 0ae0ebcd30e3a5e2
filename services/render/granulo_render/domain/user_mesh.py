# SPDX-License-Identifier: GPL-3.0-or-later
"""A user's own particle: a closed triangle mesh from an OBJ, STL or PLY file."""

import re
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull

from granulo_render.domain.recipe import Format
from granulo_render.domain.shapes.source import UserGeometry
from granulo_render.domain.shapes.template import unit_body, volume

Array = NDArray[np.float64]
Faces = NDArray[np.int32]

MAX_BYTES = 64 * 2**20
"""Larger files are refused unread."""
MAX_FACES = 500_000
"""Meshes of more triangles are refused."""
_CELLS = 2**20  # across the mesh: corners in the same cell are one vertex
_FLAT = 1e-6  # of its box: less volume is no particle
_HOLLOW = 1e-3  # of its volume: a convex body fills its hull but for rounding
_SMOOTH_DEG = 30.0


class MeshError(ValueError):
    """The file is no mesh that can be rendered; the text says why, and what would do."""


def read_mesh(data: bytes, form: Format) -> UserGeometry:
    """Read a particle from a file.

    Parameters
    ----------
    data : bytes
        The whole file, in any unit of length.
    form : Format
        What the file is.

    Returns
    -------
    UserGeometry
        Equal corners merged, wound outwards, brought to unit volume and principal axes.

    Raises
    ------
    MeshError
        If the file is larger than 64 MiB or claims more than 500,000 triangles (both are found
        without reading the mesh), cannot be read, is empty, not finite, flat, or not closed.
    """
    if len(data) > MAX_BYTES:
        raise MeshError(
            f"The file holds {len(data) / 2**20:.0f} MiB; at most {MAX_BYTES // 2**20} MiB can be "
            "read. Simplify the mesh."
        )
    for claimed in _claims(data, form):
        _check_count(claimed)
    vertices, corners = _parse(data, form)
    _check_count(len(corners))
    vertices, faces = _merge(vertices, corners)
    faces = _wound_outwards(vertices, faces)
    box = float(np.prod(np.ptp(vertices, axis=0)))
    if volume(vertices, faces) <= _FLAT * box:
        raise MeshError("The mesh encloses no volume; give a solid body, not a flat sheet.")
    vertices = _principal(vertices, faces)
    return UserGeometry(
        vertices=vertices,
        faces=faces,
        convex=bool(ConvexHull(vertices).volume < (1 + _HOLLOW) * 4 * np.pi / 3),
        smooth=bool(np.quantile(_bends_deg(vertices, faces), 0.99) < _SMOOTH_DEG),
    )


def _check_count(faces: int) -> None:
    if faces > MAX_FACES:
        raise MeshError(
            f"The mesh has {faces} triangles; at most {MAX_FACES} can be rendered. Simplify it."
        )


def _claims(data: bytes, form: Format) -> Iterator[int]:
    """Numbers of triangles that the file says it holds, read from its first bytes."""
    match form:
        case Format.STL if not _is_ascii_stl(data):
            if len(data) < 84:
                raise MeshError("The file ends within its header; it is no STL file.")
            count = int.from_bytes(data[80:84], "little")
            yield count
            if len(data) < 84 + 50 * count:
                raise MeshError(
                    f"The file claims {count} triangles but ends before them; export it again."
                )
        case Format.PLY:
            header = data[: data.find(b"end_header")]
            for number in re.findall(rb"^element\s+\w+\s+(\d+)", header, re.MULTILINE):
                yield int(number) // 3  # vertices, of which a triangle has at most three of its own
        case Format.OBJ:
            yield data.count(b"\nf ")


def _is_ascii_stl(data: bytes) -> bool:
    # Some binary files begin with the word "solid" too.
    return data.lstrip()[:5].lower() == b"solid" and b"facet" in data[:1000].lower()


def _parse(data: bytes, form: Format) -> tuple[Array, NDArray[np.int64]]:
    kind = "stl_ascii" if form is Format.STL and _is_ascii_stl(data) else form.value
    options = {"skip_materials": True} if form is Format.OBJ else {}
    try:
        mesh = trimesh.load_mesh(BytesIO(data), file_type=kind, process=False, **options)
        vertices = np.asarray(mesh.vertices, dtype=np.float64).reshape(-1, 3)
        faces = np.asarray(mesh.faces, dtype=np.int64).reshape(-1, 3)
    except Exception as error:  # the parsers raise whatever the bytes lead them to
        raise MeshError(f"The file cannot be read as {form.name}: {error}.") from error
    if not len(faces):
        raise MeshError("The file holds no triangle; export the mesh with its faces.")
    if not np.isfinite(vertices).all():
        raise MeshError("The mesh has vertices that are no finite numbers; export it again.")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise MeshError("The mesh has faces with missing vertices; export it again.")
    return vertices, faces


def _merge(vertices: Array, faces: NDArray[np.int64]) -> tuple[Array, Faces]:
    """Join equal corners (an STL file repeats them) and drop faces that shrank to nothing."""
    used = vertices[faces.ravel()]
    size = float(np.ptp(used, axis=0).max())
    if not 0 < size < np.inf:
        raise MeshError("The mesh has no size; export it again.")
    used = (used - used.min(axis=0)) / size
    x, y, z = np.round(used * _CELLS).astype(np.int64).T
    keys = (x * (_CELLS + 1) + y) * (_CELLS + 1) + z
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    corners = inverse.reshape(-1, 3).astype(np.int32)
    a, b, c = corners.T
    return used[first], corners[(a != b) & (b != c) & (c != a)]


def _wound_outwards(vertices: Array, faces: Faces) -> Faces:
    """Turn faces so that neighbours agree and the enclosed volume is positive."""
    pair, agree = _neighbours(faces, len(vertices))
    # Every face stands for itself and for its reverse; neighbours join the sides that agree.
    count = len(faces)
    one, other = pair.T
    flip = np.where(agree, 0, count)
    rows, columns = (
        np.concatenate([one, one + count]),
        np.concatenate([other + flip, other + count - flip]),
    )
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(2 * count, 2 * count))
    _, side = connected_components(graph, directed=False)
    if (side[:count] == side[count:]).any():
        raise MeshError("The mesh has no inside and outside; it is not a closed body.")
    if not agree.all():
        faces = np.where((side[:count] > side[count:])[:, None], faces[:, ::-1], faces)
        _, body = np.unique(np.minimum(side[:count], side[count:]), return_inverse=True)
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        inside_out = np.bincount(body, (a * np.cross(b, c)).sum(axis=1)) < 0
        faces = np.where(inside_out[body][:, None], faces[:, ::-1], faces)
    if volume(vertices, faces) < 0:
        faces = faces[:, ::-1]
    return np.ascontiguousarray(faces, dtype=np.int32)


def _neighbours(faces: Faces, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Pairs of faces (E, 2) that share an edge, and whether they are wound alike."""
    start, end = faces.astype(np.int64)[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).T
    low, high = np.minimum(start, end), np.maximum(start, end)
    keys, uses = np.unique(low * count + high, return_counts=True)
    if not len(keys) or (uses != 2).any():
        raise MeshError(
            f"The mesh is not closed: {int((uses != 2).sum())} of its {len(keys)} edges do not "
            "join exactly two faces. Close its holes."
        )
    order = np.argsort(low * count + high, kind="stable").reshape(-1, 2)
    forward = start < end
    return order // 3, forward[order[:, 0]] != forward[order[:, 1]]


def _principal(vertices: Array, faces: Faces) -> Array:
    """Bring to unit volume and principal axes, the longest first."""
    scale, centroid = unit_body(vertices, faces)
    unit = (vertices - centroid) * scale
    a, b, c = (unit[faces[:, k]] for k in range(3))
    cells = (a * np.cross(b, c)).sum(axis=1)
    total = a + b + c
    spread = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            # Second moments of a tetrahedron with a corner at the origin.
            products = a[:, i] * a[:, j] + b[:, i] * b[:, j] + c[:, i] * c[:, j]
            spread[i, j] = (cells * (products + total[:, i] * total[:, j])).sum() / 120
    _, axes = np.linalg.eigh((spread + spread.T) / 2)
    axes = axes[:, ::-1]
    axes = axes * np.where(axes.sum(axis=0) < 0, -1.0, 1.0)
    axes[:, 2] = np.cross(axes[:, 0], axes[:, 1])
    turned: Array = np.einsum("vk,ki->vi", unit, axes)
    return turned


def _bends_deg(vertices: Array, faces: Faces) -> Array:
    """Angle between the normals of every two neighbouring faces."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.sqrt((normal * normal).sum(axis=1, keepdims=True)), 1e-300)
    one, other = _neighbours(faces, len(vertices))[0].T
    angle: Array = np.degrees(np.arccos(np.clip((normal[one] * normal[other]).sum(axis=1), -1, 1)))
    return angle
