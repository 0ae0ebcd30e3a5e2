# SPDX-License-Identifier: GPL-3.0-or-later
"""Ensemble statistics against samples with known answers."""

import json

import numpy as np
import pytest

from granulo_analyzer.domain.statistics import MAX_BINS, histogram, summarise


def test_the_figures_of_a_small_sample_are_the_hand_computed_ones() -> None:
    result = summarise(np.array([8.0, 1.0, 4.0, 2.0]), "ecd", "nm")
    assert (result.count, result.quantity, result.unit) == (4, "ecd", "nm")
    assert (result.mean, result.median) == (3.75, 3.0)
    assert result.stddev == pytest.approx(np.sqrt(28.75 / 3))
    assert (result.p10, result.p90) == (1.0, 8.0), "an eighth of the weight lies on either side"
    assert result.figures["geometric_mean"].value == pytest.approx(np.sqrt(8))
    assert result.gsd == pytest.approx(np.exp(np.log(2) * np.sqrt(5 / 3)))
    assert (result.minimum, result.maximum) == (1.0, 8.0)
    assert result.modes == (), "four values have no modes to speak of"
    assert sum(result.bin_counts) == 4


def test_a_lognormal_sample_gives_back_its_parameters() -> None:
    sample = np.random.default_rng(5).lognormal(np.log(60), np.log(1.6), 4000)
    result = summarise(sample, "sqrt_area", "nm")
    assert result.gsd == pytest.approx(1.6, rel=0.03)
    assert result.lognormal is not None
    assert result.lognormal.median == pytest.approx(60, rel=0.03)
    assert result.lognormal.mode == pytest.approx(60 * np.exp(-(np.log(1.6) ** 2)), rel=0.05)
    assert result.lognormal.ks_distance < 0.02
    x = np.linspace(1, 2000, 200_000)
    assert np.sum(result.lognormal.density(x)) * (x[1] - x[0]) == pytest.approx(1.0, abs=1e-3)
    uniform = summarise(np.linspace(1, 1000, 4000), "ecd", "nm")
    assert uniform.lognormal is not None
    assert uniform.lognormal.ks_distance > 0.1, "what is not log-normal is told apart"


def test_two_sizes_of_spheres_give_two_modes_and_one_size_one() -> None:
    rng = np.random.default_rng(3)
    both = np.concatenate((rng.normal(80, 4, 60), rng.normal(140, 6, 40)))
    modes = summarise(both, "ecd", "nm").modes
    assert len(modes) == 2
    assert modes == pytest.approx((80, 140), abs=4), "the higher one comes first"
    assert len(summarise(rng.normal(80, 4, 2000), "ecd", "nm").modes) == 1


def test_bins_follow_freedman_and_diaconis_up_to_a_limit() -> None:
    sample = np.random.default_rng(0).normal(100, 10, 1000)
    edges, counts = histogram(sample)
    width = 2 * np.subtract(*np.percentile(sample, (75, 25))) / 10
    assert edges[1] - edges[0] == pytest.approx(width, rel=0.06)
    assert counts.sum() == 1000
    outlier = np.append(sample, 1e6)
    assert len(histogram(outlier)[1]) == MAX_BINS
    half_equal = np.array([5.0] * 30 + [1.0, 9.0])
    assert len(histogram(half_equal)[1]) == 6


def test_what_one_particle_cannot_tell_is_undefined_and_not_zero() -> None:
    values = summarise(np.array([42.0]), "ecd", "nm").to_json()
    assert (values["count"], values["mean"], values["median"]) == (1, 42.0, 42.0)
    assert values["stddev"] is None
    assert values["gsd"] is None
    assert values["median_low"] is None
    assert values["lognormal"] is None
    assert values["bin_counts"] == [1]


def test_no_particle_gives_a_count_of_zero_and_nothing_else() -> None:
    values = summarise(np.array([]), "ecd", "[px]").to_json()
    assert values["count"] == 0
    assert values["mean"] is values["median"] is values["p90"] is None
    assert values["bin_edges"] == values["modes"] == []
    json.dumps(values, allow_nan=False)


def test_equal_values_do_not_divide_by_their_missing_spread() -> None:
    result = summarise(np.full(20, 7.0), "ecd", "nm")
    assert (result.stddev, result.gsd, *result.modes) == pytest.approx((0.0, 1.0, 7.0))
    assert result.lognormal is None
    assert result.bin_counts == (20,)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_values_that_are_no_sizes_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        summarise(np.array([1.0, bad]), "ecd", "nm")
