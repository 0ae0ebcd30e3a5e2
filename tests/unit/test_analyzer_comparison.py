# SPDX-License-Identifier: GPL-3.0-or-later
"""Several segmentations side by side: intervals that cover, and rates by size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from granulo_analyzer.domain.comparison import detection_curve, differences, means, wilson


def test_means_come_with_an_interval_over_the_images() -> None:
    found = means([{"ap50": value} for value in (0.6, 0.7, 0.8, 0.9)])["ap50"]
    assert found.value == pytest.approx(0.75)
    assert 0.6 < found.lower < 0.75 < found.upper < 0.9
    assert means([{"ap50": 0.6}, {"ap50": 0.7}])["ap50"].value == pytest.approx(0.65)
    assert np.isnan(means([{"ap50": 0.6}, {"ap50": 0.7}])["ap50"].lower), "two images tell nothing"


def test_a_metric_counts_on_the_images_that_have_it() -> None:
    found = means([{"ap50": 1.0, "count_error": 0.5}, {"ap50": 0.0}])
    assert found["count_error"].value == 0.5
    assert found["ap50"].value == 0.5


def test_intervals_hold_the_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(200):
        found = means([{"x": value} for value in rng.normal(1.0, 0.2, 25).tolist()])["x"]
        inside += found.lower <= 1.0 <= found.upper
    # The percentile bootstrap of 25 values covers some 93 %.
    assert 175 <= inside <= 199


def test_differences_are_paired_by_image() -> None:
    first = {"a": {"ap50": 0.5}, "b": {"ap50": 0.9}, "c": {"ap50": 0.2}, "d": {"ap50": 0.1}}
    second = {"a": {"ap50": 0.4}, "b": {"ap50": 0.8}, "c": {"ap50": 0.1}, "e": {"ap50": 1.0}}
    count, apart = differences(first, second)
    assert count == 3
    # However different the images are, the difference is the same on all of them.
    assert apart["ap50"].value == pytest.approx(0.1)
    assert apart["ap50"].lower == pytest.approx(0.1)
    assert apart["ap50"].upper == pytest.approx(0.1)
    assert differences({"a": {"ap50": 1.0}}, {"b": {"ap50": 1.0}}) == (0, {})


def test_the_detection_curve_counts_every_true_particle_once() -> None:
    sizes = np.array([3.0, 4.9, 5.0, 30.0, 30.0, 500.0])
    curve = detection_curve(sizes, np.array([False, True, True, True, False, True]))
    assert [(part.min_ecd_px, part.count, part.rate.value) for part in curve] == [
        (0.0, 2, 0.5), (5.0, 1, 1.0), (27.0, 2, 0.5), (200.0, 1, 1.0),
    ]  # fmt: skip
    assert detection_curve(np.empty(0), np.empty(0, bool)) == ()


@given(st.integers(1, 400), st.data())
def test_wilson_intervals_hold_the_share_and_stay_within_0_and_1(
    trials: int, data: st.DataObject
) -> None:
    hits = data.draw(st.integers(0, trials))
    found = wilson(hits, trials)
    assert 0.0 <= found.lower <= found.value <= found.upper <= 1.0
    assert found.lower < found.upper


def test_wilson_interval_of_a_published_case() -> None:
    # Newcombe 1998, table I: 81 of 263.
    found = wilson(81, 263)
    assert (found.lower, found.upper) == (
        pytest.approx(0.2553, abs=1e-4),
        pytest.approx(0.3662, abs=1e-4),
    )
