# SPDX-License-Identifier: GPL-3.0-or-later
"""Input for the parts that need no Blender: discs on a substrate, lit by the appearance model."""

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.appearance import Layers, draw, random_look

PIXEL_SIZE_NM = 4.0


def sphere_layers(side_px: int, spacing_px: int, seed: int) -> Layers:
    """Layers of equal spheres on a jittered grid."""
    rng = np.random.default_rng(seed)
    radius = spacing_px * 0.42
    instances = np.zeros((side_px, side_px), dtype=np.uint16)
    height = np.zeros((side_px, side_px), dtype=np.float32)
    normals = np.zeros((side_px, side_px, 3), dtype=np.float32)
    normals[..., 2] = 1.0
    rows, columns = np.mgrid[0:side_px, 0:side_px].astype(np.float32)
    number = 0
    for y in range(spacing_px // 2, side_px, spacing_px):
        for x in range(spacing_px // 2, side_px, spacing_px):
            centre = np.array([y, x]) + rng.uniform(-0.06, 0.06, 2) * spacing_px
            part = (
                slice(max(0, y - spacing_px), y + spacing_px),
                slice(max(0, x - spacing_px), x + spacing_px),
            )
            dy, dx = rows[part] - centre[0], columns[part] - centre[1]
            inside = dy**2 + dx**2 < radius**2
            dz = np.sqrt(np.maximum(radius**2 - dy**2 - dx**2, 0.0))
            number += 1
            instances[part][inside] = number
            height[part][inside] = (radius + dz)[inside] * PIXEL_SIZE_NM
            normals[part][inside] = (np.stack([dx, dy, dz], axis=-1) / radius)[inside]
    return Layers(
        occlusion=np.full((side_px, side_px), 255, dtype=np.uint8),
        normals=np.rint(normals * 127).astype(np.int8),
        height_nm=height.astype(np.float16),
        instances=instances,
        pixel_size_nm=PIXEL_SIZE_NM,
    )


def micrograph(side_px: int, spacing_px: int, seed: int) -> tuple[NDArray[np.uint8], Layers]:
    """A micrograph of such spheres, and its layers."""
    layers = sphere_layers(side_px, spacing_px, seed)
    rng = np.random.default_rng(seed)
    image = draw(layers, random_look(rng, family="spheres"), rng)
    return np.rint(image * 255).astype(np.uint8), layers
