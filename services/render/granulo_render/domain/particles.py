# SPDX-License-Identifier: GPL-3.0-or-later
"""The particle table: the true size, pose and visibility of every particle in an image."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from granulo_render.domain.amodal import AmodalMasks
from granulo_render.domain.measures import measure
from granulo_render.domain.occlusion import Occlusion
from granulo_render.domain.recipe import ParticleClass, shape_name
from granulo_render.domain.scanning import camera_matrices
from granulo_render.domain.scene import Scene

_DIGITS = {"nm": 3, "nm2": 1, "nm3": 1, "px": 3, "fraction": 4}
_QUATERNION_DIGITS = 6


@dataclass(frozen=True)
class TrueParticle:
    """What is known of one particle of which any part, seen or hidden, lies in the image."""

    id: int
    """Its value in the labels and on the amodal pages."""
    kind: int
    """Index of the recipe's class."""
    diameter_nm: float
    """Of the sphere of equal volume."""
    length_nm: float
    """Longest side of the box along the particle's own axes."""
    width_nm: float
    thickness_nm: float
    """Its shortest side."""
    volume_nm3: float
    x_px: float
    """Centroid from the left edge of the image."""
    y_px: float
    """Centroid from the upper edge."""
    z_nm: float
    """Height of the centroid above the substrate."""
    qw: float
    """Unit quaternion that turns the particle's own axes into the specimen's (x to the right, y
    up, z along the substrate's normal); not negative."""
    qx: float
    qy: float
    qz: float
    projected_area_nm2: float
    """Of the whole particle along the camera's axis, hidden and cut-off parts included."""
    feret_min_nm: float
    """Least Feret diameter of that projection."""
    feret_max_nm: float
    """Largest one."""
    visible_px: int
    """Area that is seen."""
    amodal_px: int
    """Area within the image, hidden parts included."""
    visible_fraction: float
    """Of the area within the image."""
    order: int
    """0 where no particle lies above it, else one more than the largest of those above."""
    cluster: int
    cut_by_frame: int
    """1 where a part lies outside of the image."""
    labelled: int
    """0 where less than `labels.MIN_VISIBLE_PX` px are seen: background in the labels."""


def true_particles(
    scene: Scene,
    seen_px: NDArray[np.int64],
    labelled: NDArray[np.bool_],
    masks: AmodalMasks,
    order: Occlusion,
) -> tuple[TrueParticle, ...]:
    """List the particles of an image in the order of their ids.

    Parameters
    ----------
    scene : Scene
    seen_px : (N,) int64
        Visible area of every particle of the scene.
    labelled : (N,) bool
    masks : AmodalMasks
    order : Occlusion

    Returns
    -------
    tuple of TrueParticle
    """
    members = np.flatnonzero(masks.area_px)
    projected = measure(scene, members)
    centre = camera_matrices(scene)[1][members, :2] + 0.5
    half = np.array([template.half_sizes for template in scene.templates]).reshape(-1, 3)
    box = -np.sort(-2 * half[scene.template[members]] * scene.scale_nm[members], axis=1)
    volume = 4 / 3 * np.pi * scene.scale_nm[members].prod(axis=1)
    turns = Rotation.from_matrix(scene.rotation[members]) if len(members) else Rotation.identity(0)
    quaternion = turns.as_quat(canonical=True, scalar_first=True)
    seen, whole = seen_px[members], masks.area_px[members]
    columns: list[NDArray[np.generic]] = [
        members + 1,
        scene.kind[members],
        2 * scene.radius_nm[members],
        *box.T,
        volume,
        *centre.T,
        scene.position_nm[members, 2],
        *quaternion.T,
        projected.area_nm2,
        projected.feret_min_nm,
        projected.feret_max_nm,
        seen,
        whole,
        seen / whole,
        order.rank[members],
        scene.cluster[members],
        projected.cut.astype(np.int64),
        labelled[members].astype(np.int64),
    ]
    return tuple(
        TrueParticle(*row) for row in zip(*(column.tolist() for column in columns), strict=True)
    )


def particle_table(particles: Iterable[TrueParticle], classes: Sequence[ParticleClass]) -> bytes:
    """Write the particle table as CSV, with the units in the names of its columns.

    Parameters
    ----------
    particles : iterable of TrueParticle
    classes : sequence of ParticleClass
        Those of the recipe: they give ``class`` (its label, or its number) and ``shape``.

    Returns
    -------
    bytes
        UTF-8.
    """
    names = [field.name for field in fields(TrueParticle)][2:]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["id", "class", "shape", *names])
    for item in particles:
        kind = classes[item.kind]
        shape = shape_name(kind.shape)
        numbers = [_text(name, getattr(item, name)) for name in names]
        rows.writerow([item.id, kind.label or str(item.kind), shape, *numbers])
    return text.getvalue().encode()


def _text(name: str, value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.{_DIGITS.get(name.rsplit('_', 1)[-1], _QUATERNION_DIGITS)}f}"
