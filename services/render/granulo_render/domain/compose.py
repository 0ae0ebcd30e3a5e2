# SPDX-License-Identifier: GPL-3.0-or-later
"""From a recipe, a seed and an index to one scene."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.contact import Body, Ground, HeightMap, Spheres, cell_for, make_body
from granulo_render.domain.placement import Filling, Layout, Placed, fill
from granulo_render.domain.recipe import DEFAULT_DENSITY, Polyhedron, Recipe, Sphere
from granulo_render.domain.recipe_check import MAX_PARTICLES
from granulo_render.domain.sampling import Stream, draw, draw_many, scene_rng
from granulo_render.domain.scene import Scene
from granulo_render.domain.shapes import Template, make_templates, random_rotation

_MAX_CELLS = 2500  # per side of a height map
_LYING = 0.75  # share of long particles that lie flat


def compose(recipe: Recipe, seed: int, index: int, size_px: int = 0) -> Scene:
    """Compose scene ``index`` of the dataset that ``recipe`` and ``seed`` define.

    Parameters
    ----------
    recipe : Recipe
        One without `recipe.problems`.
    seed, index : int
        The same numbers give the same scene, whatever was composed before.
    size_px : int
        Side of the image; 0 takes the recipe's.

    Returns
    -------
    Scene
        The scene, with every number drawn.
    """
    rng = scene_rng(seed, index, Stream.GEOMETRY)
    size = size_px or recipe.imaging.size_px
    pixel_nm = draw(recipe.imaging.pixel_size_nm, rng)  # type: ignore[arg-type]
    upsampling = round(draw(recipe.imaging.upsampling, rng))
    weights = np.array([kind.weight for kind in recipe.classes])
    # Shares vary between scenes around the recipe's: some scenes hold nearly one class only.
    shares = rng.dirichlet(weights / weights.mean())
    typical_nm, large_nm = _radii(recipe, shares, rng)
    templates, of_class = _templates(recipe, rng)
    density = draw(recipe.arrangement.density_per_um2 or DEFAULT_DENSITY, rng)
    stacking = draw(recipe.arrangement.stacking, rng)
    rows = bool(rng.random() < recipe.arrangement.patterns.rafts)
    side_nm = size * pixel_nm + 2 * large_nm
    wanted = round(density * (side_nm / 1000) ** 2)
    sintered = any(isinstance(kind.shape, Polyhedron) for kind in recipe.classes)
    all_round = all(isinstance(kind.shape, Sphere) for kind in recipe.classes)
    layout = Layout(
        side_nm=side_nm,
        target=min(max(1, wanted), MAX_PARTICLES),
        stacking=stacking,
        rows=rows,
        overlap=float(rng.choice([0.05, 0.15, 0.3] if sintered else [0.0, 0.03])),
        typical_radius_nm=typical_nm,
    )
    ground: Ground
    if all_round:
        cell_nm = None
        ground = Spheres()
    else:
        extent_nm = side_nm + 4 * large_nm
        cell_nm = max(cell_for(typical_nm), extent_nm / _MAX_CELLS)
        ground = HeightMap(extent_nm, cell_nm)
    filling = Filling(
        layout,
        ground,
        _bodies(recipe, shares, templates, of_class, cell_nm, rng),
        lambda: round(draw(recipe.arrangement.cluster_size, rng)),
        rng,
    )
    fill(filling)
    occlusion_nm = typical_nm * float(np.exp(rng.uniform(np.log(1.0), np.log(4.0))))
    placed = _touching_image(filling.placed, size * pixel_nm / 2)
    return Scene(
        size_px=size,
        pixel_size_nm=pixel_nm,
        upsampling=upsampling,
        occlusion_nm=occlusion_nm,
        tilt_deg=0.0,
        shading=recipe.imaging.shading,
        transparency=0.0,
        templates=templates,
        template=np.array([p.body.template for p in placed], dtype=np.int32),
        kind=np.array([p.body.kind for p in placed], dtype=np.int32),
        radius_nm=np.array([p.body.radius_nm for p in placed], dtype=np.float64),
        scale_nm=np.array([3 * [p.body.radius_nm] for p in placed]).reshape(-1, 3),
        rotation=np.array([p.body.rotation for p in placed]).reshape(-1, 3, 3),
        position_nm=np.array([(p.x_nm, p.y_nm, p.z_nm) for p in placed]).reshape(-1, 3),
        brightness=np.ones(len(placed)),
        core_ratio=np.zeros(len(placed)),
        core_brightness=np.ones(len(placed)),
        cluster=np.array([p.cluster for p in placed], dtype=np.int32),
        unplaced=filling.unplaced + max(0, wanted - MAX_PARTICLES),
    )


def _radii(
    recipe: Recipe, shares: NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, float]:
    """Median and nearly largest radius of the scene's particles, from a trial draw."""
    trial = np.concatenate(
        [
            draw_many(kind.diameter_nm, rng, max(1, round(200 * float(share)))) / 2
            for kind, share in zip(recipe.classes, shares, strict=True)
        ]
    )
    return float(np.median(trial)), float(np.quantile(trial, 0.98))


def _templates(
    recipe: Recipe, rng: np.random.Generator
) -> tuple[tuple[Template, ...], list[range]]:
    templates: list[Template] = []
    of_class = []
    for kind in recipe.classes:
        made = make_templates(kind.shape, rng)
        of_class.append(range(len(templates), len(templates) + len(made)))
        templates += made
    return tuple(templates), of_class


def _bodies(
    recipe: Recipe,
    shares: NDArray[np.float64],
    templates: tuple[Template, ...],
    of_class: list[range],
    cell_nm: float | None,
    rng: np.random.Generator,
) -> Callable[[], Body]:
    def next_body() -> Body:
        kind = int(rng.choice(len(shares), p=shares))
        index = int(rng.choice(of_class[kind]))
        shape = recipe.classes[kind].shape
        lying = not isinstance(shape, Sphere) and bool(rng.random() < _LYING)
        radius = draw(recipe.classes[kind].diameter_nm, rng) / 2
        rotation = random_rotation(rng, lying=lying)
        return make_body(kind, index, templates[index], radius, rotation, cell_nm)

    return next_body


def _touching_image(placed: list[Placed], half_nm: float) -> list[Placed]:
    # Particles just outside still shade the image; those farther away cost time only.
    return [p for p in placed if max(abs(p.x_nm), abs(p.y_nm)) <= half_nm + 2 * p.body.reach_nm]
