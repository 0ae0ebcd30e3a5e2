# SPDX-License-Identifier: GPL-3.0-or-later
"""Particles follow the recipe's laws of size, and lie as the recipe says."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from granulo_render.domain.recipe import (
    Ellipsoid,
    LogNormal,
    ParticleClass,
    Platelet,
    Polyhedron,
    Rod,
    Shape,
    Sphere,
    Uniform,
    Value,
    Wire,
)
from granulo_render.domain.shapes import (
    ParticleSource,
    random_pose,
    random_rotation,
)

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from shape_sources import ALPHA, UNIT, drawn, size_nm, source_of

SIZES = LogNormal(60.0, 0.3)


def _of_sizes(numbers: Sequence[float]) -> float:
    law = stats.truncnorm(-3, 3)
    return float(stats.kstest(np.log(np.array(numbers) / 60.0) / 0.3, law.cdf).pvalue)


@pytest.mark.parametrize(
    "shape", [Sphere(), Sphere(Value(0.1)), Ellipsoid(Uniform(0.3, 4.0)), Polyhedron()]
)
def test_diameters_of_equal_volume_follow_the_recipes_law(shape: Shape) -> None:
    source = source_of(shape, SIZES)
    particles = drawn(source, 2000)
    assert _of_sizes([2 * p.radius_nm for p in particles]) > ALPHA
    volumes = [np.prod(p.scale_nm) for p in particles]
    assert volumes == pytest.approx([p.radius_nm**3 for p in particles])


def test_thicknesses_and_aspect_ratios_of_rods_follow_the_recipes_laws() -> None:
    source = source_of(Rod(Uniform(2.0, 7.0)), SIZES)
    sizes = np.array([size_nm(source, p) for p in drawn(source, 2000)])
    assert _of_sizes(sizes[:, 1]) > ALPHA
    assert stats.kstest(sizes[:, 0] / sizes[:, 1], stats.uniform(2.0, 5.0).cdf).pvalue > ALPHA
    assert len(source.templates) <= 24


def test_sizes_and_thickness_ratios_of_platelets_follow_the_recipes_laws() -> None:
    source = source_of(Platelet(Uniform(0.1, 0.3)), SIZES)
    particles = drawn(source, 2000)
    thickness = np.array([size_nm(source, p)[2] for p in particles])
    flat = source.templates[0].levels[-1]
    area: dict[int, float] = {}
    for n, template in enumerate(source.templates):
        flat = template.levels[-1]
        a, b, c = (flat.vertices[flat.faces[:, k], :2] for k in range(3))
        area[n] = np.clip(np.cross(b - a, c - a) / 2, 0, None).sum()
    widths = np.array([2 * np.sqrt(area[p.template] / np.pi) * p.scale_nm[0] for p in particles])
    assert _of_sizes(list(widths)) > ALPHA
    assert stats.kstest(thickness / widths, stats.uniform(0.1, 0.2).cdf).pvalue > ALPHA
    assert len(source.templates) <= 24


def test_lengths_and_thicknesses_of_wires_follow_the_recipes_laws() -> None:
    source = source_of(Wire(Uniform(1000.0, 3000.0), Value(0.0)), SIZES)
    particles = drawn(source, 150)
    assert len(source.templates) == 150
    sizes = np.array([size_nm(source, p) for p in particles])
    assert stats.kstest(sizes[:, 0], stats.uniform(1000.0, 2000.0).cdf).pvalue > ALPHA
    volumes = np.array([UNIT * p.radius_nm**3 for p in particles])
    assert _of_sizes(list(2 * np.sqrt(volumes / sizes[:, 0] / np.pi))) > ALPHA


def test_classes_keep_their_own_templates() -> None:
    kinds = [ParticleClass(shape, Value(10.0)) for shape in (Sphere(), Polyhedron(), Rod())]
    source = ParticleSource(kinds, {}, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    drawn = [{source.draw(kind, rng).template for _ in range(40)} for kind in range(3)]
    assert drawn[0] == {0}
    assert drawn[1] == {1, 2, 3, 4}
    assert min(drawn[2]) == 5


@pytest.mark.parametrize("lying", [True, False])
@pytest.mark.parametrize("flat", [True, False])
def test_rotations_are_proper(lying: bool, flat: bool) -> None:
    turn = random_rotation(np.random.default_rng(4), lying=lying, flat=flat)
    assert np.allclose(turn @ turn.T, np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1)


def test_standing_particles_point_everywhere() -> None:
    rng = np.random.default_rng(0)
    turns = np.array([random_rotation(rng, lying=False) for _ in range(2000)])
    # Uniform on the sphere means uniform along every axis (Archimedes).
    for axis in range(3):
        assert stats.kstest(turns[:, 2, axis], stats.uniform(-1, 2).cdf).pvalue > ALPHA


@pytest.mark.parametrize(
    ("shape", "steepest_deg"), [(Platelet(), 40.0), (Wire(Value(20_000.0), Value(20.0)), 1.0)]
)
def test_flat_particles_lie_on_their_broad_side(shape: Shape, steepest_deg: float) -> None:
    source = source_of(shape)
    rng = np.random.default_rng(0)
    for _ in range(10):
        particle = source.draw(0, rng)
        template = source.templates[particle.template]
        turn = random_pose(template, particle.scale_nm, rng, lying=True)
        assert abs(turn[2, 2]) > np.cos(np.radians(steepest_deg))


def test_round_rods_roll_and_lie() -> None:
    source = source_of(Rod(Value(4.0)))
    rng = np.random.default_rng(0)
    particle = source.draw(0, rng)
    template = source.templates[particle.template]
    turns = np.array(
        [random_pose(template, particle.scale_nm, rng, lying=True) for _ in range(300)]
    )
    assert np.abs(turns[:, 2, 0]).max() < np.sin(np.radians(30.0))
    assert np.ptp(turns[:, 2, 1]) > 1.5


def test_very_long_particles_never_stand() -> None:
    source = source_of(Wire(Value(20_000.0), Value(20.0)))
    rng = np.random.default_rng(0)
    particle = source.draw(0, rng)
    template = source.templates[particle.template]
    turns = [random_pose(template, particle.scale_nm, rng, lying=False) for _ in range(20)]
    assert max(abs(turn[2, 0]) for turn in turns) < np.sin(np.radians(1.0))
