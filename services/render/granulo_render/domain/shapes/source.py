# SPDX-License-Identifier: GPL-3.0-or-later
"""All particles of a scene: the templates of its classes, and particles drawn from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from granulo_render.domain.recipe import (
    Ellipsoid,
    ParticleClass,
    Polyhedron,
    Shape,
    Sphere,
    UserMesh,
)
from granulo_render.domain.sampling import draw
from granulo_render.domain.shapes.rounded import ball, half_spaces, rough_ball
from granulo_render.domain.shapes.template import Level, Template, make_template
from granulo_render.domain.user_mesh import UserGeometry

_ROUGH_SPHERES = 4


@dataclass(frozen=True, eq=False)
class Particle:
    """One particle as drawn from a class, not yet placed."""

    template: int
    """Index into the scene's templates."""
    radius_nm: float
    """Of the sphere of equal volume."""
    scale_nm: tuple[float, float, float]
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
        Draws the templates.
    """

    def __init__(
        self,
        classes: Sequence[ParticleClass],
        meshes: Mapping[str, UserGeometry],
        rng: np.random.Generator,
    ) -> None:
        self.templates: list[Template] = []
        """Grows while particles are drawn."""
        self._classes = tuple(classes)
        self._of_class = []
        for kind in self._classes:
            made = _templates(kind.shape, meshes, rng)
            self._of_class.append(range(len(self.templates), len(self.templates) + len(made)))
            self.templates += made

    def draw(self, kind: int, rng: np.random.Generator) -> Particle:
        """Draw a particle of class ``kind``."""
        entry = self._classes[kind]
        radius = draw(entry.diameter_nm, rng) / 2
        template = int(rng.choice(self._of_class[kind]))
        if isinstance(entry.shape, Ellipsoid):
            return _ellipsoid(template, radius, draw(entry.shape.aspect_ratio, rng))
        return Particle(template, radius, (radius, radius, radius))


def _templates(
    shape: Shape, meshes: Mapping[str, UserGeometry], rng: np.random.Generator
) -> list[Template]:
    match shape:
        case Sphere(roughness):
            heights = [draw(roughness, rng) for _ in range(_ROUGH_SPHERES)]
            return [rough_ball(height, rng) for height in heights] if any(heights) else [ball()]
        case Ellipsoid():
            return [ball()]
        case Polyhedron():
            made = []
            for _ in range(shape.templates):
                faces, sharpness = round(draw(shape.faces, rng)), draw(shape.sharpness, rng)
                stretch = np.array(
                    [draw(shape.aspect_ratio, rng), rng.uniform(0.9, 1.1), rng.uniform(0.8, 1.05)]
                )
                roughness = draw(shape.roughness, rng)
                made.append(half_spaces(faces, sharpness, stretch, roughness, rng))
            return made
        case UserMesh(file):
            mesh = meshes[file]
            level = Level(mesh.vertices, mesh.faces, 0.0)
            return [make_template([level], convex=mesh.convex, smooth=mesh.smooth)]
    raise AssertionError


def _ellipsoid(template: int, radius_nm: float, aspect: float) -> Particle:
    """Stretch the ball: along x above 1, flat along z below 1."""
    width = radius_nm * aspect ** (-1 / 3)
    sizes = (width * aspect, width, width) if aspect >= 1 else (width, width, width * aspect)
    return Particle(template, radius_nm, sizes)


def make_templates(shape: Shape, rng: np.random.Generator) -> tuple[Template, ...]:
    """Make the templates of one class."""
    return tuple(_templates(shape, {}, rng))
