# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws from a recipe's laws."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.recipe import (
    Choice,
    Component,
    Distribution,
    Empirical,
    LogNormal,
    Mixture,
    Normal,
    Uniform,
    Value,
)

Array = NDArray[np.float64]

_CUT = 3.0  # bell curves end here, in standard deviations: no absurd particle in any scene


def draw(law: Distribution, rng: np.random.Generator) -> float:
    """Draw one number."""
    match law:
        case Value(value):
            return value
        case Uniform(low, high):
            return float(rng.uniform(low, high))
        case Normal(mean, stddev):
            return mean + stddev * _bell(rng)
        case LogNormal(median, sigma):
            return float(median * np.exp(sigma * _bell(rng)))
        case Choice(values):
            return values[int(rng.integers(len(values)))]
        case Empirical():
            return float(_between(law, rng.random()))
        case Mixture(components):
            chosen = rng.choice(len(components), p=_shares(components))
            return draw(components[int(chosen)].distribution, rng)


def draw_many(law: Distribution, rng: np.random.Generator, count: int) -> Array:
    """Draw ``count`` independent numbers, shape (count,)."""
    numbers: Array
    match law:
        case Value(value):
            return np.full(count, value, dtype=np.float64)
        case Uniform(low, high):
            return rng.uniform(low, high, count)
        case Normal(mean, stddev):
            numbers = mean + stddev * _bells(rng, count)
        case LogNormal(median, sigma):
            numbers = median * np.exp(sigma * _bells(rng, count))
        case Choice(values):
            numbers = np.array(values, dtype=np.float64)[rng.integers(len(values), size=count)]
        case Empirical():
            return _between(law, rng.random(count))
        case Mixture(components):
            chosen = rng.choice(len(components), size=count, p=_shares(components))
            numbers = np.empty(count)
            for k, part in enumerate(components):
                mine = chosen == k
                numbers[mine] = draw_many(part.distribution, rng, int(mine.sum()))
    return numbers


def _shares(components: tuple[Component, ...]) -> Array:
    weights = np.array([part.weight for part in components])
    shares: Array = weights / weights.sum()
    return shares


def _between(law: Empirical, share: float | Array) -> Array:
    """Quantiles of the samples, linear in between: the inverse of their distribution."""
    samples = _ordered(law)
    return np.asarray(np.interp(share, np.linspace(0, 1, len(samples)), samples))


@lru_cache(maxsize=32)
def _ordered(law: Empirical) -> Array:
    # A single sample is a distribution of two equal ones.
    samples = law.samples if len(law.samples) > 1 else law.samples * 2
    return np.sort(np.array(samples, dtype=np.float64))


def _bell(rng: np.random.Generator) -> float:
    return float(_bells(rng, 1)[0])


def _bells(rng: np.random.Generator, count: int) -> Array:
    z = rng.standard_normal(count)
    while (beyond := np.abs(z) > _CUT).any():  # 99.7 % of the draws pass at once
        z[beyond] = rng.standard_normal(int(beyond.sum()))
    return z
