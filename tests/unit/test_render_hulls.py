# SPDX-License-Identifier: GPL-3.0-or-later
"""Convex hulls of points that lie nearly in one plane: rounding errors must not open the mesh."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from granulo_render.domain.shapes.bevel import Polytope, hull, rounded


def nearly_flat_points(seed: int, layers: int, roughness: float) -> np.ndarray:
    """Points of a sphere whose heights lie in a few layers, but for tiny differences."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(int(rng.integers(6, 40)), 3))
    points /= np.linalg.norm(points, axis=1)[:, None]
    points[:, 2] = np.round(points[:, 2] * layers) / layers
    return points + roughness * rng.normal(size=points.shape) * (0.0, 0.0, 1.0)


def is_closed(faces: np.ndarray) -> bool:
    edges = np.concatenate([faces[:, [k, (k + 1) % 3]] for k in range(3)])
    forward = {tuple(edge) for edge in edges.tolist()}
    return len(forward) == len(edges) and all((w, v) in forward for v, w in forward)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(3, 9))
def test_rounded_hulls_are_closed_however_flat_their_faces(
    seed: int, layers: int, digits: int
) -> None:
    solid = hull(nearly_flat_points(seed, layers, 10.0**-digits))
    for level in rounded(solid, 0.1):
        assert is_closed(level.faces)


def test_neighbouring_faces_agree_on_their_edge() -> None:
    for seed in range(200):
        assert edges_agree(hull(nearly_flat_points(seed, 3, 1e-6))), seed


def edges_agree(solid: Polytope) -> bool:
    edges = [
        (int(v), int(w))
        for loop in solid.loops
        for v, w in zip(loop, np.roll(loop, -1), strict=True)
    ]
    return len(set(edges)) == len(edges) and all((w, v) in set(edges) for v, w in edges)
