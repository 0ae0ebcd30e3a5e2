# SPDX-License-Identifier: GPL-3.0-or-later
"""Particle shapes: templates of unit size, and the particles that a scene draws from them."""

from granulo_render.domain.shapes.pose import random_pose, random_rotation, rotate
from granulo_render.domain.shapes.source import (
    Particle,
    ParticleSource,
    UserGeometry,
)
from granulo_render.domain.shapes.template import Level, Template, volume

__all__ = [
    "Level",
    "Particle",
    "ParticleSource",
    "Template",
    "UserGeometry",
    "random_pose",
    "random_rotation",
    "rotate",
    "volume",
]
