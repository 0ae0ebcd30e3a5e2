# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources of particles of one shape."""

import numpy as np

from granulo_render.domain.recipe import (
    Distribution,
    ParticleClass,
    Shape,
    Value,
)
from granulo_render.domain.shapes import (
    Particle,
    ParticleSource,
)

FORTY_NM = Value(40.0)


UNIT = 4 * np.pi / 3


ALPHA = 1e-3  # the seeds are fixed, so these tests pass always or never


def source_of(shape: Shape, diameter_nm: Distribution = FORTY_NM, seed: int = 0) -> ParticleSource:
    return ParticleSource([ParticleClass(shape, diameter_nm)], {}, np.random.default_rng(seed))


def drawn(source: ParticleSource, count: int, seed: int = 1) -> list[Particle]:
    rng = np.random.default_rng(seed)
    return [source.draw(0, rng) for _ in range(count)]


def size_nm(source: ParticleSource, particle: Particle) -> np.ndarray:
    """Whole bounding box in nm."""
    template = source.templates[particle.template]
    return 2 * np.array(template.half_sizes) * particle.scale_nm
