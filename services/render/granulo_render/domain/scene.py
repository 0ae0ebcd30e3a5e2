# SPDX-License-Identifier: GPL-3.0-or-later
"""One scene: everything that the renderer is told, with every number drawn."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.recipe import Shading
from granulo_render.domain.shapes import Template

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scene:
    """Geometry and sampling of one scene.

    Positions are in the specimen's frame: origin on the substrate in the middle of the image, z
    along the substrate's normal. The camera looks along its own -z axis; `view` turns the specimen
    into the camera's frame, where x is right and y is up in the image.
    """

    size_px: int
    """Side of the delivered square image and labels."""
    pixel_size_nm: float
    upsampling: int
    """1, 2, 3 or 4 (M9)."""
    occlusion_nm: float
    """Reach of the ambient occlusion."""
    tilt_deg: float
    """Tilt of the specimen about the image's horizontal axis."""
    shading: Shading
    transparency: float
    """Share of what lies below that shines through; Cycles shading only."""
    templates: tuple[Template, ...]
    template: NDArray[np.int32]
    """(N,) index into ``templates`` per particle."""
    kind: NDArray[np.int32]
    """(N,) index of the recipe's class."""
    radius_nm: Array
    """(N,) of the sphere of equal volume."""
    scale_nm: Array
    """(N, 3) length of a template's unit along its three axes."""
    rotation: Array
    """(N, 3, 3): a vertex lies at ``rotation @ (scale_nm * vertex) + position_nm``."""
    position_nm: Array
    """(N, 3) centroids."""
    brightness: Array
    """(N,) of the material, relative to 1."""
    core_ratio: Array
    """(N,) size of the core relative to the particle; 0 without a core."""
    core_brightness: Array
    """(N,) of the core's material relative to the shell's."""
    cluster: NDArray[np.int32]
    """(N,) number of the cluster."""
    unplaced: int
    """Particles asked for that found no place."""

    @property
    def count(self) -> int:
        """Number of particles, those outside of the image included."""
        return len(self.radius_nm)

    @cached_property
    def view(self) -> Array:
        """(3, 3) rotation from the specimen's frame to the camera's; the identity without tilt.

        The upper part of the image is the far one: it tilts away from the viewer.
        """
        angle = np.deg2rad(self.tilt_deg)
        cosine, sine = float(np.cos(angle)), float(np.sin(angle))
        return np.array([[1.0, 0.0, 0.0], [0.0, cosine, sine], [0.0, -sine, cosine]])
