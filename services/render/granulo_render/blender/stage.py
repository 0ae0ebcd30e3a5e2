# SPDX-License-Identifier: GPL-3.0-or-later
"""The one Blender scene of a worker process: camera, substrate and materials stay, particles go."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import bpy
import numpy as np
from numpy.typing import NDArray

from granulo_render.blender import materials
from granulo_render.blender.device import CPU, configure
from granulo_render.domain.scene import Scene

PX = 0.01
"""Blender units per pixel: coordinates stay near 1, where single precision is best."""
CAMERA_HEIGHT = 400.0
"""In Blender units; heights along the camera's axis are this minus the depth pass."""


@dataclass(frozen=True)
class Shot:
    """What a pass over a scene shows."""

    particle: str
    """Name of the particles' material."""
    substrate: str
    samples: int
    """Per pixel; the first is at its centre, where ids and depth come from."""
    rays: int
    """Of ambient occlusion per sample."""


LAYERS = Shot(materials.OPENNESS, materials.OPENNESS, samples=1, rays=3)
"""Geometry at pixel centres, and their openness."""
SHADED = Shot(materials.PARTICLE, materials.SUBSTRATE, samples=16, rays=1)
"""Picture of whole pixels."""


class Stage:
    """Builds scenes in Blender and renders them; one per process, reused for every scene."""

    def __init__(self) -> None:
        with _quiet():
            bpy.ops.wm.read_factory_settings(use_empty=True)
        self._scene = bpy.context.scene
        materials.make_all()
        self._objects: list[bpy.types.Object] = []
        self._meshes: list[bpy.types.Mesh] = []
        self._camera = self._add_camera()
        self._substrate = self._add_substrate()
        self._configure()
        self._device = CPU

    def use(self, device: str) -> None:
        """Render on a device from now on.

        Raises
        ------
        GranuloError
            FIELD_INVALID when a GPU is asked for that is absent.
        """
        if device != self._device:
            configure(self._scene, device)
            self._device = device

    def render(self, scene: Scene, path: Path, shot: Shot) -> None:
        """Render a scene's passes into a multilayer OpenEXR file."""
        self._clear()
        self._scene.render.resolution_x = scene.size_px
        self._scene.render.resolution_y = scene.size_px
        self._scene.cycles.samples = shot.samples
        self._camera.data.ortho_scale = scene.size_px * PX
        reach = scene.occlusion_nm / scene.pixel_size_nm * PX
        materials.tune(reach=reach, rays=shot.rays, transparency=scene.transparency)
        self._substrate.data.materials[0] = bpy.data.materials[shot.substrate]
        self._substrate.matrix_world = _pose(scene.view, np.zeros(3))
        self._fill(scene, bpy.data.materials[shot.particle])
        self._scene.render.filepath = str(path)
        with _quiet():
            bpy.ops.render.render(write_still=True)
        self._clear()

    def _fill(self, scene: Scene, material: bpy.types.Material) -> None:
        """Add the particles; those that show the same mesh share it."""
        meshes: dict[tuple[int, int], bpy.types.Mesh] = {}
        scale = scene.scale_nm / scene.pixel_size_nm
        # No BLAS: its last digit may depend on the number of threads.
        turned = np.einsum("ik,nkj->nij", scene.view, scene.rotation) * scale[:, None, :] * PX
        position = np.einsum("ik,nk->ni", scene.view, scene.position_nm) / scene.pixel_size_nm * PX
        for i in range(scene.count):
            index = int(scene.template[i])
            template = scene.templates[index]
            vertices, faces = template.mesh(float(scale[i].max()))
            key = (index, len(faces))
            if key not in meshes:
                meshes[key] = _mesh_of(vertices, faces, material, smooth=template.smooth)
                self._meshes.append(meshes[key])
            thing = bpy.data.objects.new("particle", meshes[key])
            thing.pass_index = i + 1
            thing.matrix_world = _pose(turned[i], position[i])
            self._scene.collection.objects.link(thing)
            self._objects.append(thing)

    def _clear(self) -> None:
        # What is only unlinked stays in memory for ever: remove objects and their meshes.
        bpy.data.batch_remove([*self._objects, *self._meshes])
        self._objects, self._meshes = [], []

    def _add_camera(self) -> bpy.types.Object:
        lens = bpy.data.cameras.new("camera")
        lens.type = "ORTHO"
        lens.clip_end = 2 * CAMERA_HEIGHT
        camera = bpy.data.objects.new("camera", lens)
        camera.location = (0, 0, CAMERA_HEIGHT)
        self._scene.collection.objects.link(camera)
        self._scene.camera = camera
        return camera

    def _add_substrate(self) -> bpy.types.Object:
        # One triangle: ambient occlusion shows the edge between two.
        corners = np.array([(-1, -1, 0), (3, -1, 0), (-1, 3, 0)]) * 200.0
        face = np.array([(0, 1, 2)], dtype=np.int32)
        mesh = _mesh_of(corners, face, bpy.data.materials[materials.OPENNESS], smooth=False)
        substrate = bpy.data.objects.new("substrate", mesh)
        self._scene.collection.objects.link(substrate)
        return substrate

    def _configure(self) -> None:
        render, cycles = self._scene.render, self._scene.cycles
        render.engine = "CYCLES"
        render.threads_mode = "FIXED"
        render.threads = 1  # the engine runs one worker per core
        # No faster where all particles are new, and the blue noise would keep the length that the
        # first picture of the process asked for.
        render.use_persistent_data = False
        render.use_file_extension = False  # write to exactly the path that is given
        cycles.device = "CPU"
        cycles.seed = 0
        cycles.use_denoising = False
        cycles.use_adaptive_sampling = False
        cycles.use_light_tree = False  # nothing is lit by lights
        cycles.sampling_pattern = "BLUE_NOISE"  # few rays; their noise is smoothed afterwards
        cycles.max_bounces = 0
        cycles.transparent_max_bounces = 64
        cycles.pixel_filter_type = "BOX"
        self._scene.view_settings.view_transform = "Raw"
        layer = bpy.context.view_layer
        layer.use_pass_object_index = True
        layer.use_pass_z = True
        layer.use_pass_normal = True
        output = render.image_settings
        output.file_format = "OPEN_EXR_MULTILAYER"
        output.color_depth = "32"
        output.exr_codec = "NONE"


@cache
def stage() -> Stage:
    """Give this process's stage, made at the first call."""
    return Stage()


def _pose(linear: NDArray[np.float64], position: NDArray[np.float64]) -> list[list[float]]:
    """A transformation as Blender takes it: by columns."""
    pose = np.eye(4)
    pose[:3, :3] = linear
    pose[:3, 3] = position
    columns: list[list[float]] = pose.T.tolist()
    return columns


def _mesh_of(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int32],
    material: bpy.types.Material,
    *,
    smooth: bool,
) -> bpy.types.Mesh:
    mesh = bpy.data.meshes.new("mesh")
    mesh.vertices.add(len(vertices))
    mesh.vertices.foreach_set("co", vertices.astype(np.float32).ravel())
    mesh.loops.add(faces.size)
    mesh.loops.foreach_set("vertex_index", faces.ravel())
    mesh.polygons.add(len(faces))
    mesh.polygons.foreach_set("loop_start", np.arange(0, faces.size, 3, dtype=np.int32))
    mesh.polygons.foreach_set("use_smooth", np.full(len(faces), smooth))
    mesh.update(calc_edges=True)
    mesh.materials.append(material)
    return mesh


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Blender's own chatter, written by C to file descriptor 1, off standard output."""
    sys.stdout.flush()
    saved = os.dup(1)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
