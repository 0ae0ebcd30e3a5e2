# SPDX-License-Identifier: GPL-3.0-or-later
"""Shares of pixels: the areas of particles, and who owns a pixel that several share."""

import numpy as np
import pytest

from granulo_core.imaging.antialias import blend_edges
from granulo_render.domain.compose import compose
from granulo_render.domain.coverage import coverage_layer
from granulo_render.domain.recipe import (
    Arrangement,
    Imaging,
    ParticleClass,
    Patterns,
    Recipe,
    Sphere,
    Value,
)
from granulo_render.domain.scene import Scene
from granulo_render.domain.silhouettes import fragments

SIZE_PX = 96


def _scene(diameter_nm: float, count: int, tilt_deg: float = 0.0) -> Scene:
    recipe = Recipe(
        classes=(ParticleClass(Sphere(), Value(diameter_nm)),),
        imaging=Imaging(Value(2.0), SIZE_PX, tilt_deg=Value(tilt_deg)),
        arrangement=Arrangement(count=Value(count), patterns=Patterns(random=1)),
    )
    return compose(recipe, 3, 0)


def _ids(scene: Scene) -> np.ndarray:
    found = fragments(scene)
    ids = np.zeros(SIZE_PX**2, dtype=np.uint16)
    upwards = np.argsort(found.top_nm, kind="stable")
    ids[found.pixel[upwards]] = found.particle[upwards] + 1
    return ids.reshape(SIZE_PX, SIZE_PX)


@pytest.mark.parametrize("tilt_deg", [0.0, 40.0])
def test_shares_add_up_to_the_areas_of_spheres(tilt_deg: float) -> None:
    scene = _scene(30.0, 8, tilt_deg)
    ids = _ids(scene)
    share = coverage_layer(scene, ids) / 255
    # A pixel that shows no particle at its centre gives what it lacks to the one beside it.
    covered = np.where(ids > 0, share, 1 - share).sum()
    x, y, _ = np.einsum("ij,nj->in", scene.view, scene.position_nm)
    exact = _fine(x, y, scene.radius_nm).sum()
    assert abs(covered - exact) < 0.01 * exact


def test_only_pixels_beside_another_id_are_shared() -> None:
    scene = _scene(40.0, 6)
    ids = _ids(scene)
    share = coverage_layer(scene, ids)
    shared = share < 255
    same = np.ones_like(shared)
    for axis in (0, 1):
        for step in (-1, 1):
            same &= np.roll(ids, step, axis) == ids
    inner = np.s_[1:-1, 1:-1]
    assert shared.any()
    assert not (shared & same)[inner].any()
    # What a pixel's centre shows fills about half of an edge pixel or more.
    assert np.median(share[shared]) > 127


def test_known_shares_draw_edges_better_than_guessed_ones() -> None:
    scene = _scene(30.0, 8)
    ids = _ids(scene)
    hard = (ids > 0).astype(np.float32)
    known = blend_edges(hard, ids, coverage_layer(scene, ids))
    guessed = blend_edges(hard, ids)
    x, y, _ = scene.position_nm.T
    fine = _fine(x, y, scene.radius_nm)
    assert ((known - fine) ** 2).sum() < 0.6 * ((guessed - fine) ** 2).sum()


def _fine(x_nm: np.ndarray, y_nm: np.ndarray, radius_nm: np.ndarray) -> np.ndarray:
    """Share of the particles by 16 x 16 rays a pixel, from the formula of the sphere."""
    rays = ((np.arange(SIZE_PX * 16) + 0.5) / 16 - SIZE_PX / 2) * 2.0
    inside = np.zeros((SIZE_PX * 16,) * 2, dtype=bool)
    for x, y, radius in zip(x_nm, y_nm, radius_nm, strict=True):
        inside |= (rays[None, :] - x) ** 2 + (-rays[:, None] - y) ** 2 <= radius**2
    return inside.reshape(SIZE_PX, 16, SIZE_PX, 16).mean(axis=(1, 3))
