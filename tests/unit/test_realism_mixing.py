# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether two sets of patches can be told apart, by neighbours and by a classifier."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from granulo_analyzer.domain.realism.embedding import (
    neighbour_map,
    perplexity_for,
    principal_components,
)
from granulo_analyzer.domain.realism.mixing import (
    NEIGHBOURS,
    Origin,
    classifier_accuracy,
    mean_of_images,
    mixing,
    ratio_of_means,
)


def two_sets(
    rng: np.random.Generator, images: int, patches: int, *, apart: float = 0.0
) -> tuple[np.ndarray, Origin]:
    """Patches that are more alike within an image than between images, in both sets."""
    image = np.repeat(np.arange(2 * images), patches)
    synthetic = image >= images
    of_image = rng.normal(0, 2, (2 * images, 5))
    points = of_image[image] + rng.normal(size=(len(image), 5))
    points[synthetic, 0] += apart
    return points, Origin(synthetic, image)


def test_identical_sets_mix_as_expected_however_unlike_their_images_are() -> None:
    rng = np.random.default_rng(1)
    found = [mixing(*two_sets(rng, 6, 8), seed=0) for _ in range(60)]
    ratios = np.array([one.ratio.value for one in found])
    # Standard error about 0.01; with neighbours from the same image it would be below 0.5.
    assert ratios.mean() == pytest.approx(1.0, abs=0.05)
    assert {round(one.expected.value, 9) for one in found} == {round(6 / 11, 9)}
    # The range of identical sets is one: 95 % of such pairs lie in it.
    covered = [one.expected.lower <= one.observed.value <= one.expected.upper for one in found]
    assert np.mean(covered) >= 0.88


def test_a_classifier_cannot_tell_identical_sets_apart() -> None:
    rng = np.random.default_rng(11)
    found = [classifier_accuracy(*two_sets(rng, 6, 8), seed=0).value for _ in range(12)]
    # Standard error 0.04; a classifier that had seen the images would be right nearly always.
    assert np.mean(found) == pytest.approx(0.5, abs=0.12)


def test_sets_far_apart_do_not_mix_and_are_always_told_apart() -> None:
    points, origin = two_sets(np.random.default_rng(3), 4, 12, apart=100.0)
    found = mixing(points, origin, seed=0)
    assert found.observed.value == found.ratio.value == found.ratio.upper == 0
    assert found.expected.lower > 0
    accuracy = classifier_accuracy(points, origin, seed=0)
    assert accuracy.value == accuracy.lower == 1


def test_mixing_falls_as_sets_move_apart() -> None:
    values = []
    for apart in (0.0, 4.0, 8.0, 16.0):
        points, origin = two_sets(np.random.default_rng(4), 5, 10, apart=apart)
        values.append(mixing(points, origin, seed=0).ratio.value)
    assert values == sorted(values, reverse=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 4), st.integers(2, 6), st.integers(0, 2**31))
def test_mixing_is_what_counting_neighbours_one_by_one_gives(
    images: int, patches: int, seed: int
) -> None:
    points, origin = two_sets(np.random.default_rng(seed), images, patches)
    shares = []
    for place, point in enumerate(points):
        others = np.flatnonzero(origin.image != origin.image[place])
        near = sorted(others, key=lambda other: np.sum((points[other] - point) ** 2))[:NEIGHBOURS]
        shares.append(np.mean(origin.synthetic[near] != origin.synthetic[place]))
    found = mixing(points, origin, seed=0)
    assert found.observed.value == pytest.approx(np.mean(shares))
    if images < 3:
        assert np.isnan(found.observed.lower)
    else:
        assert found.observed.lower <= found.observed.value <= found.observed.upper


def test_ties_are_broken_fairly() -> None:
    points, origin = two_sets(np.random.default_rng(5), 6, 10)
    assert mixing(np.zeros_like(points), origin, seed=0).ratio.value == pytest.approx(1, abs=0.1)


def test_means_and_ratios_leave_out_what_is_not_known() -> None:
    real, rendered = np.array([1.0, 3.0, np.nan, 2.0]), np.array([4.0, 4.0, 4.0])
    assert mean_of_images(real, 0).value == 2
    ratio = ratio_of_means(real, rendered, 0)
    assert ratio.value == 2
    assert ratio.lower < 2 < ratio.upper
    assert np.isnan(ratio_of_means(real, np.array([np.nan]), 0).value)


def test_components_keep_nine_tenths_of_the_variance() -> None:
    rng = np.random.default_rng(6)
    features = rng.normal(size=(200, 3)) * (10, 3, 1) @ rng.normal(size=(3, 12))
    components = principal_components(features, standardise=False)
    total = features.var(axis=0).sum()
    assert components.var(axis=0).sum() >= 0.9 * total
    assert components[:, :-1].var(axis=0).sum() < 0.9 * total
    with pytest.raises(ValueError, match="alike"):
        principal_components(np.ones((20, 4)), standardise=True)


def test_few_patches_lower_the_perplexity_and_still_give_a_map() -> None:
    assert perplexity_for(2000, 50) == 50
    assert perplexity_for(40, 50) == 13
    # Of a single component as well, which begins at random.
    points = np.random.default_rng(7).normal(size=(16, 1))
    first, second = (neighbour_map(points, perplexity_for(16, 50), seed=3) for _ in range(2))
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)
