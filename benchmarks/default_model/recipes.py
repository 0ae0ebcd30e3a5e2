# SPDX-License-Identifier: GPL-3.0-or-later
"""Ten recipes of the default model, wider than the presets: spheres and agglomerates."""

from granulo_render.domain.recipe import (
    Arrangement,
    Choice,
    Component,
    Distribution,
    Ellipsoid,
    Imaging,
    LogNormal,
    Mixture,
    Normal,
    ParticleClass,
    Polyhedron,
    Recipe,
    Sphere,
    Uniform,
    Value,
)

SMOOTH = Value(0.0)


def mixture(*parts: tuple[float, Distribution]) -> Mixture:
    return Mixture(tuple(Component(weight, law) for weight, law in parts))


ROUGH = mixture((0.6, SMOOTH), (0.4, Uniform(0.005, 0.05)))
BIMODAL = (
    ParticleClass(Sphere(ROUGH), Normal(90, 3)),
    ParticleClass(Sphere(ROUGH), Normal(160, 5)),
)


def spheres(
    *classes: ParticleClass, rows: float = 0.2, pixel_size_nm: Distribution | None = None
) -> Recipe:
    density = mixture((0.35, Uniform(4, 25)), (0.3, Uniform(25, 60)), (0.35, Uniform(60, 130)))
    clusters = mixture((0.7, LogNormal(4, 1)), (0.3, LogNormal(20, 0.7)))
    stacking = mixture((0.3, Value(0)), (0.7, Uniform(0.05, 0.6)))
    return Recipe(
        classes=classes,
        imaging=Imaging(pixel_size_nm or Uniform(2, 6), 512, Value(4)),
        arrangement=Arrangement(density, clusters, stacking, rows),
    )


def agglomerates(shape: Polyhedron, diameter_nm: Distribution) -> Recipe:
    density = mixture((0.5, Uniform(10, 60)), (0.5, Uniform(60, 160)))
    clusters = mixture((0.6, LogNormal(6, 0.9)), (0.4, LogNormal(20, 0.8)))
    return Recipe(
        classes=(ParticleClass(shape, diameter_nm),),
        imaging=Imaging(Uniform(1.3, 3.4), 512, Value(4)),
        arrangement=Arrangement(density, clusters, Uniform(0.05, 0.6), 0.0),
    )


SPHERES = (
    spheres(*BIMODAL),
    spheres(ParticleClass(Sphere(SMOOTH), LogNormal(120, 0.25))),
    spheres(ParticleClass(Sphere(Uniform(0.01, 0.08)), LogNormal(130, 0.1)), rows=0.3),
    spheres(ParticleClass(Sphere(SMOOTH), Normal(120, 3)), rows=0.4, pixel_size_nm=Uniform(2, 7)),
    spheres(*BIMODAL, ParticleClass(Ellipsoid(LogNormal(1.1, 0.06)), LogNormal(120, 0.2))),
)
AGGLOMERATES = (
    agglomerates(
        Polyhedron(4, Uniform(10, 20), Choice((4.0, 5.0, 6.0, 8.0)), LogNormal(1.22, 0.16)),
        LogNormal(70.7, 0.405),
    ),
    agglomerates(
        Polyhedron(
            12, Uniform(9, 22), Choice((3.0, 4.0, 5.0, 6.0)), LogNormal(1.2, 0.2), Uniform(0, 0.06)
        ),
        LogNormal(70.7, 0.3),
    ),
    agglomerates(
        Polyhedron(
            8, Uniform(6, 16), Choice((5.0, 8.0, 12.0, 16.0)), LogNormal(1.25, 0.25),
            Uniform(0, 0.03),
        ),
        LogNormal(70.7, 0.35),
    ),
    agglomerates(
        Polyhedron(8, Uniform(12, 24), Choice((4.0, 5.0)), LogNormal(1.35, 0.25), Uniform(0, 0.05)),
        LogNormal(70.7, 0.25),
    ),
    agglomerates(
        Polyhedron(12, Uniform(10, 20), Choice((4.0, 5.0, 6.0, 8.0)), LogNormal(1.2, 0.2)),
        LogNormal(60, 0.4),
    ),
)  # fmt: skip
