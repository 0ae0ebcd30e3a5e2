# SPDX-License-Identifier: GPL-3.0-or-later
"""What every particle covers in the image, hidden parts included: exact at pixel centres."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.ellipsoids import balls_of, heights
from granulo_render.domain.outlines import Outliner, fill_convex
from granulo_render.domain.scanning import (
    Array,
    Index,
    Spans,
    batch,
    camera_matrices,
    face_normals,
    facing,
    project,
    scan,
)
from granulo_render.domain.scene import Scene

_BATCH_FACES = 60_000  # few enough for the processor's cache
_BATCH_CELLS = 4_000_000
_BATCH_BALLS = 256


@dataclass(frozen=True, eq=False)
class Fragments:
    """Every pixel centre inside of every particle's projection, by particle and then by pixel."""

    particle: NDArray[np.int32]
    """(K,) index of the particle in the scene."""
    pixel: Index
    """(K,) ``row * size_px + column``."""
    top_nm: NDArray[np.float32]
    """(K,) height of the particle's upper surface there, along the camera's axis."""
    bottom_nm: NDArray[np.float32] | None
    """(K,) height of its lower surface, where it was asked for."""
    offsets: Index
    """(N + 1,): particle ``i`` owns the fragments ``offsets[i]`` to ``offsets[i + 1]``."""


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Fragments of some particles, in the order of `Fragments`."""

    particle: Index
    pixel: Index
    top: Array
    bottom: Array | None


@dataclass(frozen=True, eq=False)
class _Window:
    """The part of the image that holds one particle, and its mesh in the image's frame."""

    particle: int
    top: int
    left: int
    height: int
    width: int
    points: Array
    front: NDArray[np.int32]
    back: NDArray[np.int32]


def fragments(scene: Scene, shrink: Array | None = None, *, lower: bool = False) -> Fragments:
    """Rasterise the particles of a scene, each as if it were alone.

    Parameters
    ----------
    scene : Scene
    shrink : (N,) float64, optional
        Scales particles about their centroids; 0 leaves a particle out.
    lower : bool
        Give the lower surfaces as well.

    Returns
    -------
    Fragments
        Pixels come from the meshes `Template.mesh` gives at the largest of a particle's scales in
        pixels, which are those that are rendered, so that both agree about every pixel centre.
        Heights are the mesh's, those of balls and ellipsoids the formula's.
    """
    matrix, shift = camera_matrices(scene)
    if shrink is not None:
        matrix = matrix * shrink[:, None, None]
    near = _near(scene, shift)
    if shrink is not None:
        near &= shrink > 0
    round_ones = balls_of(scene.templates, scene.template)
    pieces = [
        *_balls(scene, matrix, shift, np.flatnonzero(near & round_ones)),
        *_meshes(scene, matrix, shift, np.flatnonzero(near & ~round_ones), lower=lower),
    ]
    return _joined(pieces, scene.count, lower=lower)


def _near(scene: Scene, shift: Array) -> NDArray[np.bool_]:
    """Particles of which a part may lie in the image."""
    extent = np.array([template.extent for template in scene.templates])
    reach_px = extent[scene.template] * _largest_px(scene)
    first, last = shift[:, :2] - reach_px[:, None], shift[:, :2] + reach_px[:, None]
    near: NDArray[np.bool_] = ((first <= scene.size_px - 1) & (last >= 0)).all(axis=1)
    return near


def _largest_px(scene: Scene) -> Array:
    largest: Array = scene.scale_nm.max(axis=1, initial=0) / scene.pixel_size_nm
    return largest


def _balls(scene: Scene, matrix: Array, shift: Array, members: Index) -> Iterator[_Pieces]:
    largest_px = _largest_px(scene)
    outliners: dict[int, Outliner] = {}
    for start in range(0, len(members), _BATCH_BALLS):
        group = members[start : start + _BATCH_BALLS]
        outlines, radius = [], np.zeros(len(group))
        for k, i in enumerate(group.tolist()):
            template = scene.templates[scene.template[i]]
            vertices, faces = template.mesh(float(largest_px[i]))
            if id(vertices) not in outliners:
                outliners[id(vertices)] = Outliner.of(vertices, faces)
            outlines.append(outliners[id(vertices)].outline(matrix[i], shift[i]))
            radius[k] = template.extent
        owner, row, column = fill_convex(outlines, scene.size_px)
        top, bottom = heights(matrix[group], shift[group], radius, owner, row, column)
        yield _Pieces(group[owner], row * scene.size_px + column, top, bottom)


def _meshes(
    scene: Scene, matrix: Array, shift: Array, members: Index, *, lower: bool
) -> Iterator[_Pieces]:
    largest_px = _largest_px(scene)
    normals: dict[int, Array] = {}

    def windows() -> Iterator[_Window]:
        for i in members.tolist():
            vertices, faces = scene.templates[scene.template[i]].mesh(float(largest_px[i]))
            points = project(vertices, matrix[i], shift[i])
            inside = _inside(points, faces, scene.size_px)
            if len(inside) < len(faces):
                faces = inside
                area = facing(face_normals(vertices, faces), matrix[i])
            else:
                if id(vertices) not in normals:
                    normals[id(vertices)] = face_normals(vertices, faces)
                area = facing(normals[id(vertices)], matrix[i])
            front, back = faces[area > 0], faces[area < 0] if lower else faces[:0]
            window = _window(i, points, front, back, scene.size_px)
            if window.height > 0 and window.width > 0:
                yield window

    for group in _batches(windows()):
        yield _fill(group, scene.size_px, lower=lower)


def _inside(points: Array, faces: NDArray[np.int32], size_px: int) -> NDArray[np.int32]:
    """Faces that do not lie wholly beyond one side of the image: few of a long wire's do not."""
    beyond = np.zeros(points.shape[1], dtype=np.uint8)
    for k, axis in enumerate(points[:2]):
        beyond |= (axis < 0).astype(np.uint8) << np.uint8(2 * k)
        beyond |= (axis > size_px - 1).astype(np.uint8) << np.uint8(2 * k + 1)
    if not beyond.any():
        return faces
    a, b, c = beyond[faces.T]
    inside: NDArray[np.int32] = faces[(a & b & c) == 0]
    return inside


def _window(
    particle: int,
    points: Array,
    front: NDArray[np.int32],
    back: NDArray[np.int32],
    size_px: int,
) -> _Window:
    x, y = points[0], points[1]
    left, right = max(0, int(np.ceil(x.min()))), min(size_px - 1, int(np.floor(x.max())))
    top, bottom = max(0, int(np.ceil(y.min()))), min(size_px - 1, int(np.floor(y.max())))
    return _Window(particle, top, left, bottom - top + 1, right - left + 1, points, front, back)


def _batches(windows: Iterable[_Window]) -> Iterator[list[_Window]]:
    """Group windows so that a batch needs little memory."""
    group: list[_Window] = []
    faces = cells = 0
    for window in windows:
        faces += len(window.front)
        cells += window.height * window.width
        if group and (faces > _BATCH_FACES or cells > _BATCH_CELLS):
            yield group
            group, faces, cells = [], len(window.front), window.height * window.width
        group.append(window)
    if group:
        yield group


def _fill(windows: list[_Window], size_px: int, *, lower: bool) -> _Pieces:
    particle, first_row, first_column, height, width = np.array(
        [(w.particle, w.top, w.left, w.height, w.width) for w in windows]
    ).T
    ends = np.cumsum(height * width)
    base = ends - height * width

    def surface(faces: list[NDArray[np.int32]]) -> tuple[Index, Array]:
        spans = scan(batch([w.points for w in windows], faces), size_px, size_px)
        owner = spans.owner
        down, right = spans.row - first_row[owner], spans.first - first_column[owner]
        return _along(spans, base[owner] + down * width[owner] + right)

    top = np.full(ends[-1], -np.inf)
    np.maximum.at(top, *surface([w.front for w in windows]))
    covered = np.flatnonzero(top > -np.inf)
    bottom = None
    if lower:
        # A pixel that only rounding lets one side of the surface have gets no thickness.
        bottom = top.copy()
        np.minimum.at(bottom, *surface([w.back for w in windows]))
        bottom = bottom[covered]
    of = np.repeat(np.arange(len(windows)), np.diff(np.searchsorted(covered, [0, *ends])))
    row, column = np.divmod(covered - base[of], width[of])
    pixel = (row + first_row[of]) * size_px + column + first_column[of]
    return _Pieces(particle[of], pixel, top[covered], bottom)


def _along(spans: Spans, start: Index) -> tuple[Index, Array]:
    """Cells and heights of the pixels of spans, of which ``start`` are the first cells."""
    of = np.repeat(np.arange(len(start)), spans.length)
    along = np.arange(len(of)) - np.repeat(np.cumsum(spans.length) - spans.length, spans.length)
    surface = spans.height[of] + spans.slope[of] * along
    return start[of] + along, np.clip(surface, spans.lowest[of], spans.highest[of])


def _joined(pieces: list[_Pieces], count: int, *, lower: bool) -> Fragments:
    particle = np.concatenate(
        [np.zeros(0, np.int32), *(p.particle.astype(np.int32) for p in pieces)]
    )
    order = np.argsort(particle, kind="stable")
    none = np.zeros(0, np.float32)
    bottoms = [p.bottom.astype(np.float32) for p in pieces if p.bottom is not None]
    counts = np.bincount(particle, minlength=count)
    return Fragments(
        particle=particle[order],
        pixel=np.concatenate([np.zeros(0, np.int64), *(p.pixel for p in pieces)])[order],
        top_nm=np.concatenate([none, *(p.top.astype(np.float32) for p in pieces)])[order],
        bottom_nm=np.concatenate([none, *bottoms])[order] if lower else None,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )
