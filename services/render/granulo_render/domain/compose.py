# SPDX-License-Identifier: GPL-3.0-or-later
"""From a recipe, a seed and an index to one scene."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.contact import Body, Ground, Spheres, make_body, make_sphere
from granulo_render.domain.height_map import HeightMap, cell_for
from granulo_render.domain.patterns import fill
from granulo_render.domain.placement import Filling, Layout, Placed
from granulo_render.domain.recipe import (
    DEFAULT_DENSITY,
    Arrangement,
    Imaging,
    ParticleClass,
    Pattern,
    Patterns,
    Platelet,
    Recipe,
    Sphere,
)
from granulo_render.domain.recipe_check import MAX_PARTICLES
from granulo_render.domain.sampling import draw, draw_many
from granulo_render.domain.scene import Scene
from granulo_render.domain.shapes import ParticleSource, UserGeometry, random_pose
from granulo_render.domain.streams import Streams

Array = NDArray[np.float64]

NO_MESHES: Mapping[str, UserGeometry] = MappingProxyType({})
_MAX_CELLS = 6000  # per side of a height map
_CONCENTRATION = 2.0  # of the classes' shares: most scenes hold one or two classes mainly
_OCCLUSION_REACH = (1.0, 4.0)  # in typical radii


def compose(
    recipe: Recipe,
    seed: int,
    index: int,
    size_px: int = 0,
    meshes: Mapping[str, UserGeometry] = NO_MESHES,
) -> Scene:
    """Compose scene ``index`` of the dataset that ``recipe`` and ``seed`` define.

    Every field of the recipe is drawn from a random stream of its own, so that a change of one of
    them leaves the others' draws as they were.

    Parameters
    ----------
    recipe : Recipe
        One without `recipe_check.problems`.
    seed, index : int
        The same numbers give the same scene, whatever was composed before.
    size_px : int
        Side of the image; 0 takes the recipe's.
    meshes : mapping of str to UserGeometry
        The user's own meshes by the name of their file.

    Returns
    -------
    Scene
        The scene, with every number drawn.
    """
    streams = Streams(seed, index)
    imaging, arrangement = recipe.imaging, recipe.arrangement
    size = size_px or imaging.size_px
    pixel_nm = _pixel_size_nm(imaging, size, streams)
    tilt_deg = draw(imaging.tilt_deg, streams.of("tilt_deg"))
    shares = _shares(recipe.classes, streams)
    typical_nm, large_nm = _thicknesses(recipe.classes, shares, streams)
    # A tilted specimen shows more of itself; cut-off particles lie in the margin.
    seen_nm = size * pixel_nm / float(np.cos(np.deg2rad(tilt_deg)))
    side_nm = seen_nm + 2 * large_nm
    wanted = _wanted(arrangement, size * pixel_nm, side_nm, streams)
    coverage = arrangement.coverage
    layout = Layout(
        side_nm=side_nm,
        image_nm=seen_nm,
        target=min(wanted, MAX_PARTICLES),
        coverage=draw(coverage, streams.of("coverage")) if coverage is not None else None,
        pattern=_pattern(arrangement.patterns, streams.of("pattern")),
        stacking=draw(arrangement.stacking, streams.of("stacking")),
        overlap=draw(arrangement.overlap, streams.of("overlap")),
        typical_radius_nm=typical_nm,
    )
    source = ParticleSource(recipe.classes, meshes, streams.of("templates"))
    sizes = streams.of("cluster_size")
    filling = Filling(
        layout,
        _ground(recipe.classes, layout, large_nm),
        _bodies(recipe, source, shares, streams),
        lambda: round(draw(arrangement.cluster_size, sizes)),
        streams.of("placement"),
    )
    fill(filling)
    reach = streams.of("occlusion").uniform(*np.log(_OCCLUSION_REACH))
    placed = _touching_image(filling.placed, seen_nm / 2)
    kinds = [recipe.classes[p.body.kind] for p in placed]
    return Scene(
        size_px=size,
        pixel_size_nm=pixel_nm,
        upsampling=round(draw(imaging.upsampling, streams.of("upsampling"))),
        occlusion_nm=typical_nm * float(np.exp(reach)),
        tilt_deg=tilt_deg,
        shading=imaging.shading,
        transparency=draw(imaging.transparency, streams.of("transparency")),
        templates=tuple(source.templates),
        template=np.array([p.body.particle.template for p in placed], dtype=np.int32),
        kind=np.array([p.body.kind for p in placed], dtype=np.int32),
        radius_nm=np.array([p.body.particle.radius_nm for p in placed], dtype=np.float64),
        scale_nm=np.array([p.body.particle.scale_nm for p in placed]).reshape(-1, 3),
        rotation=np.array([p.body.rotation for p in placed]).reshape(-1, 3, 3),
        position_nm=np.array([(p.x_nm, p.y_nm, p.z_nm) for p in placed]).reshape(-1, 3),
        brightness=_brightness(kinds, streams),
        core_ratio=_cores(kinds, "diameter_ratio", 0.0, streams),
        core_brightness=_cores(kinds, "brightness", 1.0, streams),
        cluster=np.array([p.cluster for p in placed], dtype=np.int32),
        unplaced=filling.unplaced + max(0, wanted - MAX_PARTICLES),
    )


def _pixel_size_nm(imaging: Imaging, size_px: int, streams: Streams) -> float:
    rng = streams.of("pixel_size")
    if imaging.pixel_size_nm is not None:
        return draw(imaging.pixel_size_nm, rng)
    assert imaging.field_of_view_nm is not None  # the recipe's check saw to it
    return draw(imaging.field_of_view_nm, rng) / size_px


def _shares(classes: tuple[ParticleClass, ...], streams: Streams) -> Array:
    """Shares of the classes in this scene, which vary around the recipe's."""
    weights = np.array([kind.weight for kind in classes])
    shares: Array = streams.of("shares").dirichlet(_CONCENTRATION * weights / weights.sum())
    return shares


def _thicknesses(
    classes: tuple[ParticleClass, ...], shares: Array, streams: Streams
) -> tuple[float, float]:
    """Half of the median thickness and of nearly the largest diameter, from a trial draw, in nm."""
    rng = streams.of("trial")
    halves, thin = [], []
    for kind, share in zip(classes, shares, strict=True):
        half = draw_many(kind.diameter_nm, rng, max(1, round(200 * float(share)))) / 2
        halves.append(half)
        shape = kind.shape
        flatness = draw(shape.thickness_ratio, rng) if isinstance(shape, Platelet) else 1.0
        thin.append(half * flatness)
    return float(np.median(np.concatenate(thin))), float(np.quantile(np.concatenate(halves), 0.98))


def _wanted(arrangement: Arrangement, image_nm: float, side_nm: float, streams: Streams) -> int:
    """Particles to aim at in the whole square that is filled."""
    if arrangement.coverage is not None:
        return MAX_PARTICLES
    if arrangement.count is not None:
        in_image = draw(arrangement.count, streams.of("count"))
        return max(1, round(in_image * (side_nm / image_nm) ** 2))
    density = arrangement.density_per_um2 or DEFAULT_DENSITY
    return max(1, round(draw(density, streams.of("density")) * (side_nm / 1000) ** 2))


def _pattern(patterns: Patterns, rng: np.random.Generator) -> Pattern:
    weights = np.array([getattr(patterns, pattern.value) for pattern in Pattern])
    if not weights.any():
        return Pattern.AGGLOMERATES
    return list(Pattern)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def _ground(classes: tuple[ParticleClass, ...], layout: Layout, large_nm: float) -> Ground:
    if _all_spheres(classes):
        return Spheres(layout.image_nm)
    side_nm = layout.side_nm + 4 * large_nm
    cell_nm = max(cell_for(layout.typical_radius_nm), side_nm / _MAX_CELLS)
    return HeightMap(side_nm, layout.image_nm, cell_nm)


def _all_spheres(classes: tuple[ParticleClass, ...]) -> bool:
    return all(isinstance(kind.shape, Sphere) for kind in classes)


def _bodies(
    recipe: Recipe, source: ParticleSource, shares: Array, streams: Streams
) -> Callable[[], Body]:
    """Make what draws the next particle that looks for its place."""
    kinds, particles, poses = (streams.of(name) for name in ("kinds", "particles", "poses"))
    lying = draw(recipe.arrangement.lying, streams.of("lying"))
    make = make_sphere if _all_spheres(recipe.classes) else make_body

    def next_body() -> Body:
        kind = int(kinds.choice(len(shares), p=shares))
        particle = source.draw(kind, particles)
        template = source.templates[particle.template]
        flat = bool(poses.random() < lying)
        rotation = random_pose(template, particle.scale_nm, poses, lying=flat)
        return make(kind, particle, template, rotation)

    return next_body


def _brightness(kinds: Sequence[ParticleClass], streams: Streams) -> Array:
    rng = streams.of("brightness")
    return np.array([draw(kind.brightness, rng) for kind in kinds], dtype=np.float64)


def _cores(kinds: Sequence[ParticleClass], name: str, without: float, streams: Streams) -> Array:
    """One number of the core per particle, ``without`` where there is none."""
    rng = streams.of(f"core.{name}")
    return np.array(
        [draw(getattr(kind.core, name), rng) if kind.core else without for kind in kinds],
        dtype=np.float64,
    )


def _touching_image(placed: Sequence[Placed], half_nm: float) -> list[Placed]:
    # Particles just outside still shade the image; those farther away cost time only.
    return [p for p in placed if max(abs(p.x_nm), abs(p.y_nm)) <= half_nm + 2 * p.body.reach_nm]
