# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipe: a declarative scene whose every number is a value or a distribution."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from granulo_core.imaging.appearance import Look

RECIPE_VERSION = 1
"""Newest recipe format that this renderer understands."""
MIN_SIZE_PX = 32
MAX_SIZE_PX = 4096
DEFAULT_SIZE_PX = 512
MAX_CLASSES = 32
MAX_DIAMETER_PX = 2048.0
"""Larger particles would fill every image, and reach up to the camera."""
UPSAMPLINGS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Value:
    """Always the same number."""

    value: float


@dataclass(frozen=True)
class Uniform:
    """Evenly spread between two numbers."""

    low: float
    high: float


@dataclass(frozen=True)
class Normal:
    """Bell curve, cut off at three standard deviations."""

    mean: float
    stddev: float


@dataclass(frozen=True)
class LogNormal:
    """Bell curve of the logarithm, cut off at three standard deviations.

    Its mode is ``median * exp(-sigma ** 2)``.
    """

    median: float
    sigma: float
    """Standard deviation of the natural logarithm: ln(GSD)."""


@dataclass(frozen=True)
class Choice:
    """One of several numbers, all equally likely."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class Component:
    """One part of a mixture."""

    weight: float
    distribution: "Distribution"


@dataclass(frozen=True)
class Mixture:
    """One of several distributions, by weight."""

    components: tuple[Component, ...]


Distribution = Value | Uniform | Normal | LogNormal | Choice | Mixture


@dataclass(frozen=True)
class Sphere:
    """Regular sphere."""

    roughness: Distribution = Value(0.0)
    """Height of the surface texture relative to the radius."""


@dataclass(frozen=True)
class Ellipsoid:
    """Ellipsoid of revolution."""

    aspect_ratio: Distribution = Value(1.5)
    """Length along the axis over width; below 1 is a lens."""


@dataclass(frozen=True)
class Polyhedron:
    """Rounded intersection of random half-spaces."""

    templates: int = 4
    """Number of different template objects per scene (M2)."""
    faces: Distribution = Uniform(9.0, 20.0)
    sharpness: Distribution = Choice((4.0, 5.0, 6.0, 8.0, 12.0))
    """p of the p-norm: 4 is well rounded, 12 nearly sharp."""
    aspect_ratio: Distribution = LogNormal(1.28, 0.2)
    roughness: Distribution = Uniform(0.0, 0.05)


Shape = Sphere | Ellipsoid | Polyhedron


@dataclass(frozen=True)
class ParticleClass:
    """One kind of particle."""

    shape: Shape
    diameter_nm: Distribution
    """Diameter of the sphere of equal volume, drawn per particle."""
    weight: float = 1.0
    """Share by number relative to the other classes, on average over the scenes."""
    label: str = ""


@dataclass(frozen=True)
class Arrangement:
    """Where the particles of a scene lie."""

    density_per_um2: Distribution = Value(20.0)
    """Particles aimed at per square micrometre, drawn per scene."""
    cluster_size: Distribution = LogNormal(4.0, 0.8)
    """Particles per cluster, drawn per cluster; 1 places a particle on its own."""
    stacking: Distribution = Value(0.2)
    """Chance that a clustered particle climbs on its neighbour, drawn per scene."""
    row_share: float = 0.0
    """Share of the scenes in which the particles form rows."""


@dataclass(frozen=True)
class Imaging:
    """Sampling of the delivered image."""

    pixel_size_nm: Distribution
    size_px: int = DEFAULT_SIZE_PX
    """Side of the delivered square image and labels."""
    upsampling: Distribution = Value(4.0)
    """M9: the scene is drawn at 1/upsampling of the delivered size; 1 to 4, whole."""


@dataclass(frozen=True)
class Recipe:
    """A renderer's whole input besides seed and index."""

    classes: tuple[ParticleClass, ...]
    imaging: Imaging
    arrangement: Arrangement = field(default_factory=Arrangement)
    appearance: Mapping[str, Distribution] = field(default_factory=lambda: MappingProxyType({}))
    """Look of the micrograph by parameter name; those left out are drawn at random."""
    label: str = ""
    version: int = RECIPE_VERSION


APPEARANCE: Mapping[str, tuple[float, float, str]] = MappingProxyType(
    {
        item.name: (item.metadata["low"], item.metadata["high"], item.metadata["doc"])
        for item in fields(Look)
        if item.name != "upsampling"  # imaging.upsampling sets it
    }
)
"""Smallest and largest value and meaning of each appearance parameter."""

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
        case Choice(values):
            return min(values), max(values)
        case Mixture(components):
            ends = [support(part.distribution) for part in components]
            return min(low for low, _ in ends), max(high for _, high in ends)


def _problems(recipe: Recipe) -> Iterator[Problem]:
    if not 1 <= recipe.version <= RECIPE_VERSION:
        yield (
            "version",
            f"is {recipe.version}, but this renderer knows versions 1 to {RECIPE_VERSION}",
        )
    if not recipe.classes:
        yield "classes", "is empty; give at least one particle class"
    if len(recipe.classes) > MAX_CLASSES:
        yield "classes", f"has {len(recipe.classes)} entries; give at most {MAX_CLASSES}"
    for i, kind in enumerate(recipe.classes):
        found = list(_class_problems(f"classes[{i}]", kind))
        yield from found or _scale_problems(f"classes[{i}].diameter_nm", kind, recipe.imaging)
    placing = recipe.arrangement
    yield from _range("arrangement.density_per_um2", placing.density_per_um2, 1e-6, 1e6)
    yield from _range("arrangement.cluster_size", placing.cluster_size, 0.0, 1e4)
    yield from _range("arrangement.stacking", placing.stacking, 0.0, 1.0)
    if not 0.0 <= placing.row_share <= 1.0:
        yield "arrangement.row_share", f"is {placing.row_share:g}; give a share from 0 to 1"
    yield from _range("imaging.pixel_size_nm", recipe.imaging.pixel_size_nm, 1e-3, 1e5)
    if not MIN_SIZE_PX <= recipe.imaging.size_px <= MAX_SIZE_PX:
        yield (
            "imaging.size_px",
            f"is {recipe.imaging.size_px}; give {MIN_SIZE_PX} to {MAX_SIZE_PX} px",
        )
    yield from _upsampling_problems("imaging.upsampling", recipe.imaging.upsampling)
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
    match kind.shape:
        case Sphere(roughness):
            yield from _range(f"{path}.sphere.roughness", roughness, 0.0, 0.3)
        case Ellipsoid(aspect_ratio):
            yield from _range(f"{path}.ellipsoid.aspect_ratio", aspect_ratio, 0.1, 50.0)
        case Polyhedron() as shape:
            here = f"{path}.polyhedron"
            if not 1 <= shape.templates <= 64:
                yield f"{here}.templates", f"is {shape.templates}; give 1 to 64"
            yield from _range(f"{here}.faces", shape.faces, 4.0, 64.0)
            yield from _range(f"{here}.sharpness", shape.sharpness, 2.0, 40.0)
            yield from _range(f"{here}.aspect_ratio", shape.aspect_ratio, 0.1, 50.0)
            yield from _range(f"{here}.roughness", shape.roughness, 0.0, 0.3)


def _scale_problems(path: str, kind: ParticleClass, imaging: Imaging) -> Iterator[Problem]:
    if next(_law_problems(path, imaging.pixel_size_nm), None) is not None:
        return  # said elsewhere
    finest_nm = support(imaging.pixel_size_nm)[0]
    largest_px = support(kind.diameter_nm)[1] / finest_nm if finest_nm > 0 else 0.0
    if largest_px > MAX_DIAMETER_PX:
        text = (
            f"reaches {largest_px:.0f} px at {finest_nm:g} nm per pixel; at most "
            f"{MAX_DIAMETER_PX:.0f} px can be rendered, so make imaging.pixel_size_nm larger"
        )
        yield path, text


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
            yield from _choice_problems(f"{path}.choice.values", values)
        case Mixture(components):
            yield from _mixture_problems(f"{path}.mixture.components", components)


def _choice_problems(path: str, values: tuple[float, ...]) -> Iterator[Problem]:
    if not values:
        yield path, "is empty; give at least one number"
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
