# SPDX-License-Identifier: GPL-3.0-or-later
"""Two spheres on a flat substrate, as layers and as a plain micrograph."""

from dataclasses import replace
from typing import Any

import numpy as np

from granulo_core.imaging.appearance import Layers, Look, draw

SIDE = 96
QUIET = Look(
    particle_spread=0.0,
    substrate_texture=0.0,
    gaussian_noise=0.0,
    psf_sigma_px=0.0,
    occlusion_strength=0.0,
)
"""Without chance, blur and gaps."""
PLAIN = replace(QUIET, substrate_level=0.3, rim_strength=0.3)


def balls() -> Layers:
    """Two spheres of differing size on a flat substrate, with a gap that is hard to look into."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    instances = np.zeros((SIDE, SIDE), np.uint16)
    height = np.zeros((SIDE, SIDE), np.float32)
    normals = np.dstack([np.zeros_like(x), np.zeros_like(x), np.ones_like(x)])
    for number, (row, column, radius) in enumerate([(40, 36, 16.0), (78, 76, 10.0)], start=1):
        u, v = (x - column) / radius, (y - row) / radius
        inside = u**2 + v**2 < 1
        up = np.sqrt(np.clip(1 - u**2 - v**2, 0, None))
        instances[inside] = number
        height[inside] = (radius * (1 + up) * 5)[inside]
        normals[inside] = np.dstack([u, v, up])[inside]
    return Layers(
        occlusion=np.where(instances > 0, 255, 160).astype(np.uint8),
        normals=np.rint(normals * 127).astype(np.int8),
        height_nm=height.astype(np.float16),
        instances=instances,
        pixel_size_nm=5.0,
    )


def picture(look: Look, layers: Layers | None = None, seed: int = 3) -> Any:
    return draw(layers or balls(), look, np.random.default_rng(seed)).astype(np.float64)
