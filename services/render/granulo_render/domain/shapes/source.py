# SPDX-License-Identifier: GPL-3.0-or-later
"""All particles of a scene: the templates of its classes, and particles drawn from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from granulo_render.domain.recipe import (
    Distribution,
    Ellipsoid,
    Family,
    ParticleClass,
    Platelet,
    Polyhedron,
    Rod,
    Shape,
    Sphere,
    UserMesh,
    Wire,
)
from granulo_render.domain.sampling import draw
from granulo_render.domain.shapes.crystals import (
    crystal,
    platelet,
    random_corners,
    random_outline,
    regular_corners,
)
from granulo_render.domain.shapes.icosphere import Array, Faces
from granulo_render.domain.shapes.rounded import ball, half_spaces, rough_ball
from granulo_render.domain.shapes.template import Level, Template, aligned, make_template
from granulo_render.domain.shapes.tubes import rod, wire

_VARIANTS = 4  # of rough spheres and of platelets' outlines per class
# Proportions within one step share a template, stretched to the very proportion that was drawn.
_ROD_STEP = np.log(1.08)
_PLATELET_STEP = np.log(1.25)

Scale = tuple[float, float, float]
Drawing = Callable[[float, np.random.Generator], tuple[int, Scale]]
"""From half of a size in nm to the number of a template and its scale."""


@dataclass(frozen=True, eq=False)
class UserGeometry:
    """A user's closed mesh, of the unit sphere's volume, centroid at the origin, long axis x."""

    vertices: Array
    """(V, 3)."""
    faces: Faces
    """(F, 3), counter-clockwise from outside."""
    convex: bool
    smooth: bool
    """Nearly all neighbouring faces meet at less than 30 degrees."""


@dataclass(frozen=True, eq=False)
class Particle:
    """One particle as drawn from a class, not yet placed."""

    template: int
    """Index into the scene's templates."""
    radius_nm: float
    """Of the sphere of equal volume."""
    scale_nm: Scale
    """From the template's unit to nm along its axes."""


class ParticleSource:
    """Draws the particles of a scene.

    Parameters
    ----------
    classes : sequence of ParticleClass
        Those of the recipe.
    meshes : mapping of str to UserGeometry
        The user's own meshes by the name of their file.
    rng : numpy.random.Generator
        Draws the templates that the particles of a class share.
    """

    def __init__(
        self,
        classes: Sequence[ParticleClass],
        meshes: Mapping[str, UserGeometry],
        rng: np.random.Generator,
    ) -> None:
        self.templates: list[Template] = []
        """Grows while particles are drawn: every wire has its own."""
        self._classes = tuple(classes)
        self._draws = [self._drawing(kind.shape, meshes, rng) for kind in classes]

    def draw(self, kind: int, rng: np.random.Generator) -> Particle:
        """Draw a particle of class ``kind``."""
        diameter_nm = draw(self._classes[kind].diameter_nm, rng)
        template, (x, y, z) = self._draws[kind](diameter_nm / 2, rng)
        radius_nm = x if x == y == z else float((x * y * z) ** (1 / 3))
        return Particle(template, radius_nm, (x, y, z))

    def _drawing(
        self, shape: Shape, meshes: Mapping[str, UserGeometry], rng: np.random.Generator
    ) -> Drawing:
        """Make what draws a template's number and scale for a particle of half the size."""
        match shape:
            case Sphere(roughness):
                return self._shared(_spheres(roughness, rng))
            case Polyhedron():
                return self._shared([_polyhedron(shape, n, rng) for n in range(shape.templates)])
            case UserMesh(file):
                mesh = meshes[file]
                level = Level(aligned(mesh.vertices), mesh.faces, 0.0)
                return self._shared(
                    [make_template([level], convex=mesh.convex, smooth=mesh.smooth)]
                )
            case Ellipsoid(aspect_ratio):
                return self._ellipsoids(aspect_ratio)
            case Rod():
                return self._rods(shape)
            case Platelet():
                return self._platelets(shape, rng)
            case Wire():
                return self._wires(shape)

    def _add(self, template: Template) -> int:
        self.templates.append(template)
        return len(self.templates) - 1

    def _shared(self, templates: Sequence[Template]) -> Drawing:
        numbers = [self._add(template) for template in templates]

        def one(radius: float, rng: np.random.Generator) -> tuple[int, Scale]:
            return numbers[int(rng.integers(len(numbers)))], (radius, radius, radius)

        return one

    def _ellipsoids(self, aspect_ratio: Distribution) -> Drawing:
        number = self._add(ball())

        def one(radius: float, rng: np.random.Generator) -> tuple[int, Scale]:
            aspect = draw(aspect_ratio, rng)
            width = radius * aspect ** (-1 / 3)
            if aspect < 1:  # a lens, its short axis is z
                return number, (width, width, width * aspect)
            return number, (width * aspect, width, width)

        return one

    def _rods(self, shape: Rod) -> Drawing:
        made: dict[int, int] = {}

        def one(radius: float, rng: np.random.Generator) -> tuple[int, Scale]:
            aspect = max(1.0, draw(shape.aspect_ratio, rng))
            step = round(np.log(aspect) / _ROD_STEP)
            if step not in made:
                rounding = draw(shape.end_rounding, rng)
                made[step] = self._add(rod(float(np.exp(step * _ROD_STEP)), rounding))
            x, y, z = self.templates[made[step]].half_sizes
            return made[step], (radius * aspect / x, radius / y, radius / z)

        return one

    def _platelets(self, shape: Platelet, rng: np.random.Generator) -> Drawing:
        variants = [
            (random_outline(round(draw(shape.corners, rng)), rng), draw(shape.bevel, rng))
            for _ in range(_VARIANTS)
        ]
        made: dict[tuple[int, int], tuple[int, float]] = {}

        def one(radius: float, rng: np.random.Generator) -> tuple[int, Scale]:
            ratio = draw(shape.thickness_ratio, rng)
            variant, step = int(rng.integers(_VARIANTS)), round(np.log(ratio) / _PLATELET_STEP)
            if (variant, step) not in made:
                outline, bevel = variants[variant]
                thickness = float(np.exp(step * _PLATELET_STEP))
                template, face_radius = platelet(outline, thickness, bevel)
                made[variant, step] = self._add(template), face_radius
            number, face_radius = made[variant, step]
            width = radius / face_radius
            return number, (width, width, radius * ratio / self.templates[number].half_sizes[2])

        return one

    def _wires(self, shape: Wire) -> Drawing:
        def one(radius: float, rng: np.random.Generator) -> tuple[int, Scale]:
            length, bending = draw(shape.length_nm, rng), draw(shape.bending_deg_per_um, rng)
            template, unit = wire(2 * radius, length, bending, rng)
            return self._add(template), (unit, unit, unit)

        return one


def _spheres(roughness: Distribution, rng: np.random.Generator) -> list[Template]:
    heights = [draw(roughness, rng) for _ in range(_VARIANTS)]
    return [rough_ball(height, rng) for height in heights] if any(heights) else [ball()]


def _polyhedron(shape: Polyhedron, number: int, rng: np.random.Generator) -> Template:
    family = shape.families[number % len(shape.families)]
    roughness = draw(shape.roughness, rng)
    stretch = np.array([draw(shape.aspect_ratio, rng), 1.0, 1.0])
    if family in (Family.HALF_SPACES, Family.RANDOM_HULL):
        stretch *= (1.0, rng.uniform(0.9, 1.1), rng.uniform(0.8, 1.05))
        faces = round(draw(shape.faces, rng))
        if family is Family.HALF_SPACES:
            return half_spaces(faces, draw(shape.sharpness, rng), stretch, roughness, rng)
        corners = random_corners(faces, stretch, rng)
    else:
        corners = regular_corners(family, rng) * stretch
    return crystal(corners, draw(shape.bevel, rng), roughness, rng)
