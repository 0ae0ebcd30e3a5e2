# SPDX-License-Identifier: GPL-3.0-or-later
"""Laws of a recipe: 2,000 draws of each follow it."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

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
from granulo_render.domain.sampling import draw, draw_many

COUNT = 2000
ALPHA = 1e-3  # the seeds are fixed, so these tests pass always or never
MEASURED = (40.0, 10.0, 20.0, 80.0, 20.5)
BIMODAL = Mixture((Component(3.0, Normal(50.0, 4.0)), Component(1.0, Uniform(100.0, 120.0))))

Cdf = Callable[[np.ndarray], np.ndarray]
LAWS: list[tuple[Distribution, Cdf]] = [
    (Uniform(2.0, 5.0), stats.uniform(2.0, 3.0).cdf),
    (Normal(50.0, 5.0), stats.truncnorm(-3, 3, 50.0, 5.0).cdf),
    (LogNormal(60.0, 0.4), lambda x: stats.truncnorm(-3, 3).cdf(np.log(x / 60.0) / 0.4)),
    (
        BIMODAL,
        lambda x: (
            0.75 * stats.truncnorm(-3, 3, 50.0, 4.0).cdf(x)
            + 0.25 * stats.uniform(100.0, 20.0).cdf(x)
        ),
    ),
    (Empirical(MEASURED), lambda x: np.interp(x, sorted(MEASURED), np.linspace(0, 1, 5))),
]


def _one_by_one(law: Distribution) -> np.ndarray:
    rng = np.random.default_rng(7)
    return np.array([draw(law, rng) for _ in range(COUNT)])


def _at_once(law: Distribution) -> np.ndarray:
    return draw_many(law, np.random.default_rng(8), COUNT)


@pytest.mark.parametrize("drawn", [_one_by_one, _at_once])
@pytest.mark.parametrize(("law", "cdf"), LAWS, ids=lambda x: type(x).__name__)
def test_draws_follow_their_law(
    law: Distribution, cdf: Cdf, drawn: Callable[[Distribution], np.ndarray]
) -> None:
    numbers = drawn(law)
    assert numbers.shape == (COUNT,)
    assert stats.kstest(numbers, cdf).pvalue > ALPHA


@pytest.mark.parametrize("drawn", [_one_by_one, _at_once])
def test_choices_are_equally_likely(drawn: Callable[[Distribution], np.ndarray]) -> None:
    values, counts = np.unique(drawn(Choice((1.0, 4.0, 9.0))), return_counts=True)
    assert values.tolist() == [1.0, 4.0, 9.0]
    assert stats.chisquare(counts).pvalue > ALPHA


@pytest.mark.parametrize("law", [Value(3.5), Empirical((3.5,)), Choice((3.5,)), Normal(3.5, 0.0)])
def test_a_law_of_one_number_gives_it(law: Distribution) -> None:
    assert set(_one_by_one(law)) == set(_at_once(law)) == {3.5}


def test_measured_values_bound_what_is_drawn_from_them() -> None:
    numbers = _at_once(Empirical(MEASURED))
    assert numbers.min() >= min(MEASURED)
    assert numbers.max() <= max(MEASURED)
    assert not np.isin(numbers, MEASURED).any()  # continuous
