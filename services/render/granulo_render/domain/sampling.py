# SPDX-License-Identifier: GPL-3.0-or-later
"""Random numbers: seeds of a scene's independent streams, and draws from a recipe's laws."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.recipe import (
    Choice,
    Distribution,
    LogNormal,
    Mixture,
    Normal,
    Uniform,
    Value,
)

_CUT = 3.0  # bell curves end here, in standard deviations: no absurd particle in any scene


class Stream(IntEnum):
    """Independent random streams of one scene, so that a new look leaves the geometry alone."""

    GEOMETRY = 0
    LOOK = 1
    DRAWING = 2


def scene_rng(seed: int, index: int, stream: Stream) -> np.random.Generator:
    """Make the generator of one stream of scene ``index``.

    Parameters
    ----------
    seed : int
        Seed of the dataset, any 64-bit integer.
    index : int
        Number of the scene, 0 or more.
    stream : Stream
        What the numbers are for.
    """
    return np.random.default_rng(np.random.SeedSequence([seed % 2**64, index, int(stream)]))


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
        case Mixture(components):
            weights = np.array([part.weight for part in components])
            chosen = rng.choice(len(components), p=weights / weights.sum())
            return draw(components[int(chosen)].distribution, rng)


def draw_many(law: Distribution, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Draw ``count`` independent numbers, shape (count,)."""
    return np.array([draw(law, rng) for _ in range(count)], dtype=np.float64)


def _bell(rng: np.random.Generator) -> float:
    while True:  # 99.7 % of the draws pass at once
        z = float(rng.standard_normal())
        if abs(z) <= _CUT:
            return z
