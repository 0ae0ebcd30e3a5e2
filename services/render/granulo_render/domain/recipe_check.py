# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything in a recipe that could not be rendered, found before any work."""

import math
from collections.abc import Iterator

from granulo_render.domain.recipe import (
    APPEARANCE,
    RECIPE_VERSION,
    Arrangement,
    Choice,
    Component,
    Distribution,
    Ellipsoid,
    Empirical,
    Imaging,
    LogNormal,
    Mixture,
    Normal,
    ParticleClass,
    Platelet,
    Polyhedron,
    Recipe,
    Rod,
    Shape,
    Sphere,
    Uniform,
    UserMesh,
    Value,
    Wire,
    shape_name,
)

MIN_SIZE_PX = 32
MAX_SIZE_PX = 4096
MAX_CLASSES = 32
MAX_PARTICLES = 5000
"""A scene never holds more; what a density asks for beyond is counted as unplaced."""
MAX_DIAMETER_PX = 2048.0
"""Larger particles would fill every image, and reach up to the camera."""
MAX_COVERAGE = 0.95
"""Nothing packs more densely in reasonable time."""
MAX_SAMPLES = 100_000
UPSAMPLINGS = (1, 2, 3, 4)

Problem = tuple[str, str]
"""Path of a field in the recipe, and what is wrong with it and what would be right."""


def problems(recipe: Recipe) -> list[Problem]:
    """Find everything in a recipe that could not be rendered.

    Parameters
    ----------
    recipe : Recipe
        Any recipe, however wrong its numbers.

    Returns
    -------
    list of (path, description)
        Empty for a usable recipe.
    """
    return list(_problems(recipe))


def support(law: Distribution) -> tuple[float, float]:
    """Smallest and largest number that a distribution can give."""
    match law:
        case Value(value):
            return value, value
        case Uniform(low, high):
            return low, high
        case Normal(mean, stddev):
            return mean - 3 * stddev, mean + 3 * stddev
        case LogNormal(median, sigma):
            return median * math.exp(-3 * sigma), median * math.exp(3 * sigma)
        case Choice(values) | Empirical(values):
            return min(values), max(values)
        case Mixture(components):
            ends = [support(part.distribution) for part in components]
            return min(low for low, _ in ends), max(high for _, high in ends)


def _problems(recipe: Recipe) -> Iterator[Problem]:
    if not 1 <= recipe.version <= RECIPE_VERSION:
        text = f"is {recipe.version}; this renderer knows versions 1 to {RECIPE_VERSION}"
        yield "version", f"{text}, so use a newer Granulo"
    if not recipe.classes:
        yield "classes", "is empty; give at least one particle class"
    if len(recipe.classes) > MAX_CLASSES:
        yield "classes", f"has {len(recipe.classes)} entries; give at most {MAX_CLASSES}"
    for i, kind in enumerate(recipe.classes):
        found = list(_class_problems(f"classes[{i}]", kind))
        yield from found or _scale_problems(f"classes[{i}].diameter_nm", kind, recipe.imaging)
    yield from _arrangement_problems(recipe.arrangement)
    imaging = list(_imaging_problems(recipe.imaging))
    yield from imaging or _crowd_problems(recipe)
    for name, law in recipe.appearance.items():
        path = f"appearance.{name}"
        if name not in APPEARANCE:
            yield path, f"is no appearance parameter; known are {', '.join(APPEARANCE)}"
            continue
        low, high = APPEARANCE[name][:2]
        yield from _range(path, law, low, high)


def _class_problems(path: str, kind: ParticleClass) -> Iterator[Problem]:
    if not (math.isfinite(kind.weight) and kind.weight > 0):
        yield f"{path}.weight", f"is {kind.weight:g}; give a positive number"
    yield from _range(f"{path}.diameter_nm", kind.diameter_nm, 1e-2, 1e6)
    yield from _range(f"{path}.brightness", kind.brightness, 0.05, 20.0)
    if kind.core is not None:
        yield from _range(f"{path}.core.diameter_ratio", kind.core.diameter_ratio, 0.0, 1.0)
        yield from _range(f"{path}.core.brightness", kind.core.brightness, 0.05, 20.0)
    yield from _shape_problems(f"{path}.{shape_name(kind.shape)}", kind.shape)


def _shape_problems(path: str, shape: Shape) -> Iterator[Problem]:
    match shape:
        case Sphere(roughness):
            yield from _range(f"{path}.roughness", roughness, 0.0, 0.3)
        case Ellipsoid(aspect_ratio):
            yield from _range(f"{path}.aspect_ratio", aspect_ratio, 0.1, 50.0)
        case Polyhedron():
            if not 1 <= shape.templates <= 64:
                yield f"{path}.templates", f"is {shape.templates}; give 1 to 64"
            if not shape.families:
                yield f"{path}.families", "is empty; name at least one, or leave it out"
            yield from _range(f"{path}.faces", shape.faces, 4.0, 64.0)
            yield from _range(f"{path}.sharpness", shape.sharpness, 2.0, 40.0)
            yield from _range(f"{path}.bevel", shape.bevel, 0.0, 0.5)
            yield from _range(f"{path}.aspect_ratio", shape.aspect_ratio, 0.1, 50.0)
            yield from _range(f"{path}.roughness", shape.roughness, 0.0, 0.3)
        case Rod(aspect_ratio, end_rounding):
            yield from _range(f"{path}.aspect_ratio", aspect_ratio, 1.0, 1000.0)
            yield from _range(f"{path}.end_rounding", end_rounding, 0.0, 1.0)
        case Wire(length_nm, bending):
            yield from _range(f"{path}.length_nm", length_nm, 1e-2, 1e6)
            yield from _range(f"{path}.bending_deg_per_um", bending, 0.0, 1e5)
        case Platelet(thickness_ratio, corners, bevel):
            yield from _range(f"{path}.thickness_ratio", thickness_ratio, 0.01, 1.0)
            yield from _range(f"{path}.corners", corners, 3.0, 12.0)
            yield from _range(f"{path}.bevel", bevel, 0.0, 1.0)
        case UserMesh(file, form):
            if not file:
                yield f"{path}.file", "is empty; name an OBJ, STL or PLY file"
            if form is None:
                yield f"{path}.format", "is missing; say obj, stl or ply"


def _arrangement_problems(placing: Arrangement) -> Iterator[Problem]:
    here = "arrangement"
    amounts = {
        "density_per_um2": (placing.density_per_um2, 1e-6, 1e6),
        "count": (placing.count, 1.0, float(MAX_PARTICLES)),
        "coverage": (placing.coverage, 0.001, MAX_COVERAGE),
    }
    given = [name for name, (law, _, _) in amounts.items() if law is not None]
    if len(given) > 1:
        yield here, f"has {' and '.join(given)}; give one of them"
    for name, (law, low, high) in amounts.items():
        if law is not None:
            yield from _range(f"{here}.{name}", law, low, high)
    for name, weight in vars(placing.patterns).items():
        if not (math.isfinite(weight) and weight >= 0):
            yield f"{here}.patterns.{name}", f"is {weight:g}; give a number of 0 or more"
    yield from _range(f"{here}.cluster_size", placing.cluster_size, 0.0, 1e4)
    yield from _range(f"{here}.stacking", placing.stacking, 0.0, 1.0)
    yield from _range(f"{here}.overlap", placing.overlap, 0.0, 0.5)
    yield from _range(f"{here}.lying", placing.lying, 0.0, 1.0)


def _imaging_problems(imaging: Imaging) -> Iterator[Problem]:
    if imaging.pixel_size_nm is None and imaging.field_of_view_nm is None:
        yield "imaging.pixel_size_nm", "is missing; give it, or field_of_view_nm"
    if imaging.pixel_size_nm is not None and imaging.field_of_view_nm is not None:
        yield "imaging.field_of_view_nm", "stands beside pixel_size_nm; give one of them"
    if imaging.pixel_size_nm is not None:
        yield from _range("imaging.pixel_size_nm", imaging.pixel_size_nm, 1e-3, 1e5)
    if imaging.field_of_view_nm is not None:
        yield from _range("imaging.field_of_view_nm", imaging.field_of_view_nm, 0.1, 1e8)
    if not MIN_SIZE_PX <= imaging.size_px <= MAX_SIZE_PX:
        yield "imaging.size_px", f"is {imaging.size_px}; give {MIN_SIZE_PX} to {MAX_SIZE_PX} px"
    yield from _upsampling_problems("imaging.upsampling", imaging.upsampling)
    yield from _range("imaging.tilt_deg", imaging.tilt_deg, 0.0, 60.0)
    yield from _range("imaging.transparency", imaging.transparency, 0.0, 0.9)


def pixel_sizes_nm(imaging: Imaging) -> tuple[float, float]:
    """Smallest and largest pixel of an imaging without problems."""
    if imaging.pixel_size_nm is not None:
        return support(imaging.pixel_size_nm)
    assert imaging.field_of_view_nm is not None  # one of the two is given
    low, high = support(imaging.field_of_view_nm)
    return low / imaging.size_px, high / imaging.size_px


def _scale_problems(path: str, kind: ParticleClass, imaging: Imaging) -> Iterator[Problem]:
    if next(_imaging_problems(imaging), None) is not None:
        return  # said elsewhere
    finest_nm = pixel_sizes_nm(imaging)[0]
    largest_px = support(kind.diameter_nm)[1] / finest_nm
    if largest_px > MAX_DIAMETER_PX:
        text = (
            f"reaches {largest_px:.0f} px at {finest_nm:g} nm per pixel; at most "
            f"{MAX_DIAMETER_PX:.0f} px can be rendered, so make the pixels larger"
        )
        yield path, text


def _crowd_problems(recipe: Recipe) -> Iterator[Problem]:
    """A density of which even the sparsest scene has too many particles."""
    density = recipe.arrangement.density_per_um2
    if density is None or next(_law_problems("", density), None) is not None:
        return
    side_um = pixel_sizes_nm(recipe.imaging)[0] * recipe.imaging.size_px / 1000
    fewest = support(density)[0] * side_um**2
    if fewest > MAX_PARTICLES:
        text = (
            f"asks for at least {fewest:.0f} particles in an image; at most {MAX_PARTICLES} can be "
            "rendered"
        )
        yield "arrangement.density_per_um2", text


def _upsampling_problems(path: str, law: Distribution) -> Iterator[Problem]:
    found = list(_law_problems(path, law))
    if not found and not set(_atoms(law)) <= {float(factor) for factor in UPSAMPLINGS}:
        found = [(path, "must be 1, 2, 3 or 4, or a choice or mixture of these")]
    yield from found


def _atoms(law: Distribution) -> Iterator[float]:
    match law:
        case Value(value):
            yield value
        case Choice(values):
            yield from values
        case Mixture(components):
            for part in components:
                yield from _atoms(part.distribution)
        case _:
            yield math.nan


def _range(path: str, law: Distribution, low: float, high: float) -> Iterator[Problem]:
    found = list(_law_problems(path, law))
    if not found:
        smallest, largest = support(law)
        if smallest < low or largest > high:
            reach = f"{smallest:g}" if smallest == largest else f"{smallest:g} to {largest:g}"
            found = [(path, f"reaches {reach}; allowed is {low:g} to {high:g}")]
    yield from found


def _law_problems(path: str, law: Distribution) -> Iterator[Problem]:
    match law:
        case Value(value):
            yield from _finite(f"{path}", value)
        case Uniform(low, high):
            yield from _finite(f"{path}.uniform.low", low)
            yield from _finite(f"{path}.uniform.high", high)
            if low > high:
                yield f"{path}.uniform", f"has low {low:g} above high {high:g}; exchange them"
        case Normal(mean, stddev):
            yield from _finite(f"{path}.normal.mean", mean)
            if not (math.isfinite(stddev) and stddev >= 0):
                yield f"{path}.normal.stddev", f"is {stddev:g}; give a number of 0 or more"
        case LogNormal(median, sigma):
            if not (math.isfinite(median) and median > 0):
                yield f"{path}.log_normal.median", f"is {median:g}; give a positive number"
            if not (math.isfinite(sigma) and 0 <= sigma <= 3):
                yield f"{path}.log_normal.sigma", f"is {sigma:g}; give a number from 0 to 3"
        case Choice(values):
            yield from _list_problems(f"{path}.choice.values", values)
        case Empirical(samples):
            yield from _list_problems(f"{path}.empirical.samples", samples)
        case Mixture(components):
            yield from _mixture_problems(f"{path}.mixture.components", components)


def _list_problems(path: str, values: tuple[float, ...]) -> Iterator[Problem]:
    if not values:
        yield path, "is empty; give at least one number"
    if len(values) > MAX_SAMPLES:
        yield path, f"has {len(values)} numbers; give at most {MAX_SAMPLES}"
    for i, value in enumerate(values):
        yield from _finite(f"{path}[{i}]", value)


def _mixture_problems(path: str, components: tuple[Component, ...]) -> Iterator[Problem]:
    if not components:
        yield path, "is empty; give at least one component"
    for i, part in enumerate(components):
        if not (math.isfinite(part.weight) and part.weight > 0):
            yield f"{path}[{i}].weight", f"is {part.weight:g}; give a positive number"
        yield from _law_problems(f"{path}[{i}].distribution", part.distribution)


def _finite(path: str, value: float) -> Iterator[Problem]:
    if not math.isfinite(value):
        yield path, f"is {value:g}; give a finite number"
