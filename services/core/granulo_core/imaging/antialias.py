# SPDX-License-Identifier: GPL-3.0-or-later
"""Edges of particles in a drawn signal: pixels there show a part of either side.

Layers say what lies at a pixel's centre. A beam has no such grid, so a pixel that an edge crosses
shows both sides by their shares. A renderer knows them. Otherwise they follow from the ids: the
share of other ids in a small bell-shaped neighbourhood tells how far the edge is, as edges are
nearly straight there.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from granulo_core.imaging.texture import FloatImage

_REACH_PX = 2
_SIGMA_PX = 1.2  # measured best against drawings of four times the size


def blend_edges(
    signal: FloatImage,
    instances: NDArray[np.uint16],
    coverage: NDArray[np.uint8] | None = None,
) -> FloatImage:
    """Mix the signal of pixels at the border of two ids by the areas of both.

    Parameters
    ----------
    signal : (H, W) float32
        Drawn at pixel centres.
    instances : (H, W) uint16
        What lies at pixel centres.
    coverage : (H, W) uint8, optional
        Share of each pixel that belongs to what lies at its centre, 255 = all; guessed from the
        ids when left out.

    Returns
    -------
    (H, W) float32
        Differs from ``signal`` only where a neighbour to one of the four sides has another id.
    """
    rows, columns = np.nonzero(beside_another(instances))
    own = instances[rows, columns]
    ids = np.pad(instances, _REACH_PX, mode="edge")
    values = np.pad(signal, _REACH_PX, mode="edge").ravel()
    stride = ids.shape[1]
    place = (rows + _REACH_PX) * stride + columns + _REACH_PX
    foreign = np.zeros(len(own), dtype=np.float32)
    beyond = np.zeros_like(foreign)
    norm = np.full_like(foreign, 1e-6)
    total = 0.0
    reach = _REACH_PX if coverage is None else 1
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            there = place + (dy * stride + dx)
            other = (ids.ravel().take(there) != own).astype(np.float32)
            weight = float(np.exp(-0.5 * (dy * dy + dx * dx) / _SIGMA_PX**2))
            total += weight
            foreign += np.float32(weight) * other
            if max(abs(dy), abs(dx)) == 1:
                other *= np.float32(3 - abs(dy) - abs(dx))
                norm += other
                beyond += other * values.take(there)
    if coverage is None:
        # A straight edge at distance d leaves the share Phi(-d / sigma) of the bell beyond it.
        edge_px = -_SIGMA_PX * ndtri(np.clip(foreign / np.float32(total), 1e-4, 0.5))
        share = np.clip(0.5 - edge_px, 0.0, 0.5).astype(np.float32)
    else:
        share = 1.0 - coverage[rows, columns] / np.float32(255)
    blended = signal.copy()
    blended[rows, columns] += share * (beyond / norm - signal[rows, columns])
    return blended


def beside_another(instances: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """(H, W) pixels of which a neighbour to one of the four sides has another id."""
    at = np.zeros(instances.shape, dtype=np.bool_)
    for axis in (0, 1):
        first = (slice(None),) * axis + (slice(None, -1),)
        second = (slice(None),) * axis + (slice(1, None),)
        differs = instances[second] != instances[first]
        at[first] |= differs
        at[second] |= differs
    return at
