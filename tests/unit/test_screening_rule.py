# SPDX-License-Identifier: GPL-3.0-or-later
"""When a screening says "stop", the median is known as well as was asked for."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from granulo_analyzer.domain.sequential import RunningDistribution
from granulo_analyzer.domain.settings import AnalysisSettings

MOST_FIELDS = 600


@dataclass(frozen=True)
class Material:
    """Log-normal diameters whose median differs a little from field to field."""

    name: str
    per_field: float
    sigma: float
    between: float
    target: float


MATERIALS = (
    Material("few particles a field", 6, 0.25, 0.0, 0.10),
    Material("crowded fields", 80, 0.35, 0.0, 0.05),
    Material("a broad distribution", 25, 0.6, 0.0, 0.10),
    Material("fields differ", 40, 0.3, 0.12, 0.05),
)
TRUE_MEDIAN = 100.0


def fields(material: Material, rng: np.random.Generator) -> Iterator[np.ndarray]:
    for _ in range(MOST_FIELDS):
        median = TRUE_MEDIAN * np.exp(material.between * rng.normal())
        count = rng.poisson(material.per_field)
        yield median * np.exp(material.sigma * rng.normal(size=count))


def stopped(material: Material, seed: int) -> tuple[int, float]:
    """After how many fields a stream stops, and its relative error then."""
    rng = np.random.default_rng(seed)
    settings = AnalysisSettings(target_precision=material.target, replicates=100, seed=seed)
    running = RunningDistribution(settings, "nm", 3)
    for number, values in enumerate(fields(material, rng), start=1):
        look = running.add(values, np.ones(len(values)))
        if look.advice.stop:
            return number, look.distribution.median / TRUE_MEDIAN - 1
    raise AssertionError(f"{material.name}: no end after {MOST_FIELDS} fields")


def test_a_stream_ends_only_where_the_median_is_known() -> None:
    """Five streams of each material; the bound is three misses of 20: at 5 % 1 in 60 has more."""
    errors = [
        abs(stopped(material, seed)[1]) / material.target
        for material in MATERIALS
        for seed in range(5)
    ]
    assert sum(error > 1 for error in errors) <= 3


def test_nothing_stops_before_the_least_number_of_fields() -> None:
    settings = AnalysisSettings(target_precision=0.2, replicates=100)
    running = RunningDistribution(settings, "nm", 12)
    rng = np.random.default_rng(1)
    ends = []
    for _ in range(14):
        values = 100 * np.exp(0.1 * rng.normal(size=200))
        ends.append(running.add(values, np.ones(200)).advice.stop)
    assert ends == [False] * 11 + [True] * 3


def test_fields_without_particles_and_a_single_field_never_stop() -> None:
    running = RunningDistribution(AnalysisSettings(replicates=50), "nm", 1)
    for _ in range(6):
        look = running.add(np.empty(0), np.empty(0))
        assert not look.advice.stop
        assert look.distribution.count == 0
    alone = RunningDistribution(AnalysisSettings(replicates=50), "nm", 1)
    assert not alone.add(np.full(500, 70.0), np.ones(500)).advice.stop


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("material", MATERIALS, ids=lambda material: material.name)
def test_two_hundred_streams(material: Material) -> None:
    results = [stopped(material, 1000 + seed) for seed in range(200)]
    within = np.mean([abs(error) <= material.target for _, error in results])
    print(
        f"\n{material.name}: {within:.1%} within ±{material.target:.0%}, after "
        f"{np.median([number for number, _ in results]):.0f} fields (median)"
    )
    assert within >= 0.93
