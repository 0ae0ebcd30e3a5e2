# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of each pixel belongs to what its centre shows."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.antialias import beside_another
from granulo_render.domain.scene import Scene
from granulo_render.domain.silhouettes import fragments

# Four places in a pixel of which no two share a row, a column or a diagonal (a rotated grid): an
# edge of any direction passes them one by one.
_PLACES = ((1, 2), (2, 4), (3, 1), (4, 3))


def coverage_layer(scene: Scene, instances: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Share of each pixel that belongs to the instance at its centre.

    Parameters
    ----------
    scene : Scene
    instances : (H, W) uint16
        Rendered; id ``i + 1`` is particle ``i``.

    Returns
    -------
    (H, W) uint8
        255 for all of it. Sampled at `_PLACES` in the pixels that have a neighbour of another id.
    """
    at_edge = beside_another(instances).ravel()
    own = instances.ravel()[at_edge]
    number = np.cumsum(at_edge) - 1
    agreeing = np.zeros(len(own), dtype=np.int64)
    count = len(_PLACES)
    for x, y in _PLACES:
        place = ((x - (count + 1) / 2) / count, (y - (count + 1) / 2) / count)
        found = fragments(_seen_from(scene, *place))
        near = at_edge[found.pixel]
        pixel, particle, top = found.pixel[near], found.particle[near], found.top_nm[near]
        highest_last = np.argsort(top, kind="stable")
        seen = np.zeros(len(own), dtype=np.int64)
        seen[number[pixel[highest_last]]] = particle[highest_last] + 1
        agreeing += seen == own
    coverage = np.full(instances.size, 255, dtype=np.uint8)
    coverage[at_edge] = np.rint(agreeing * (255 / count)).astype(np.uint8)
    return coverage.reshape(instances.shape)


def _seen_from(scene: Scene, right_px: float, up_px: float) -> Scene:
    """The scene as it lies when pixel centres are moved by a part of a pixel."""
    shift = np.array([-right_px, -up_px, 0.0]) * scene.pixel_size_nm
    moved = np.einsum("ji,j->i", scene.view, shift)  # from the camera's frame to the specimen's
    return replace(scene, position_nm=scene.position_nm + moved)
