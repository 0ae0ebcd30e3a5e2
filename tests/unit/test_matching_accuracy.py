# SPDX-License-Identifier: GPL-3.0-or-later
"""The definition of accuracy, against hand-counted cases and its own symmetries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from granulo_core.imaging.matching import (
    IOU_THRESHOLDS,
    evaluate,
    match,
    mean_metrics,
    precision_recall_area,
)

LABEL_IMAGES = arrays(np.uint16, (8, 9), elements=st.integers(0, 4))
SHARES = ("accuracy", "precision", "recall", "f1", "ap50", "ap75", "ap")


def bar(*runs: tuple[int, int, int], width: int = 100) -> np.ndarray:
    """A one-row label image from (label, start, stop)."""
    image = np.zeros((1, width), dtype=np.uint16)
    for label, start, stop in runs:
        image[0, start:stop] = label
    return image


def test_a_shifted_particle_scores_the_hand_counted_values() -> None:
    # 20 px each, 15 px shared, union 25: IoU exactly 0.6.
    result = evaluate(bar((1, 10, 30)), bar((7, 15, 35)))
    assert result["accuracy"] == pytest.approx(0.90)
    assert result["precision"] == result["recall"] == result["f1"] == pytest.approx(0.75)
    assert result["ap50"] == 1.0
    assert result["ap75"] == 0.0
    assert result["ap"] == pytest.approx(3 / 10), "an IoU of 0.6 reaches 0.50, 0.55 and 0.60"
    assert result["count_error"] == 0.0
    assert result["median_size_error"] == 0.0


def test_average_precision_counts_missed_and_invented_particles() -> None:
    truth = bar((1, 0, 10), (2, 20, 30), (3, 40, 50))
    predicted = bar((1, 0, 10), (2, 60, 70))
    matching = match(truth, predicted)
    assert (matching.true_positives, matching.false_positives, matching.false_negatives) == (
        1,
        1,
        2,
    )
    assert matching.average_precision == pytest.approx(1 / 4)
    assert evaluate(truth, predicted)["count_error"] == pytest.approx(1 / 3)


def test_merged_particles_are_one_hit_at_most() -> None:
    truth, predicted = bar((1, 0, 10), (2, 10, 30)), bar((5, 0, 30))
    matching = match(truth, predicted)
    assert matching.pairs.tolist() == [[2, 5]]
    assert matching.ious.tolist() == [pytest.approx(2 / 3)]
    result = evaluate(truth, predicted)
    assert result["f1"] == 1.0, "the pixels are all right"
    assert result["ap50"] == pytest.approx(1 / 2), "the instances are not"


def test_a_particle_split_into_exact_halves_is_matched_once_from_either_side() -> None:
    whole, halves = bar((1, 0, 20)), bar((1, 0, 10), (2, 10, 20))
    assert match(whole, halves).true_positives == 1
    assert match(halves, whole).true_positives == 1


def test_median_size_error_is_relative_to_the_true_sqrt_area() -> None:
    truth = np.zeros((40, 40), np.int32)
    predicted = truth.copy()
    truth[:20, :20] = 1
    predicted[:10, :10] = 1
    assert evaluate(truth, predicted)["median_size_error"] == pytest.approx(0.5)


def test_two_empty_images_agree_perfectly_and_have_no_errors_to_report() -> None:
    empty = np.zeros((5, 5), np.uint8)
    result = evaluate(empty, empty)
    assert all(result[name] == 1.0 for name in SHARES)
    assert "count_error" not in result
    assert "median_size_error" not in result


def test_one_empty_image_scores_zero() -> None:
    full, empty = bar((1, 0, 10)), bar()
    missed, invented = evaluate(full, empty), evaluate(empty, full)
    for result in (missed, invented):
        assert [result[name] for name in SHARES[1:]] == [0.0] * 6
    assert missed["count_error"] == missed["median_size_error"] == 1.0
    assert "count_error" not in invented


def test_large_gappy_labels_are_handled_without_a_table_of_their_size() -> None:
    truth = bar((1, 0, 10), (2, 20, 30)).astype(np.uint32)
    predicted = truth * np.uint32(2_000_000_000)
    assert match(truth, predicted).pairs.tolist() == [[1, 2_000_000_000], [2, 4_000_000_000]]


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), "one shape"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "truth must be .* integer labels"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), "predicted has negative labels"),
        (np.zeros((2, 2, 3), int), np.zeros((2, 2, 3), int), "two-dimensional"),
    ],
)
def test_what_is_no_pair_of_label_images_is_refused(
    truth: np.ndarray, predicted: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(truth, predicted)


def test_thresholds_below_one_half_are_refused() -> None:
    with pytest.raises(ValueError, match=r"between 0\.5 and 1"):
        match(bar(), bar(), threshold=0.3)


def test_means_are_taken_over_the_images_that_have_a_metric() -> None:
    means = mean_metrics([{"ap50": 0.5, "count_error": 0.2}, {"ap50": 1.0}])
    assert means == {"ap50": pytest.approx(0.75), "count_error": pytest.approx(0.2)}
    assert mean_metrics([]) == {}


@given(LABEL_IMAGES, LABEL_IMAGES)
@settings(max_examples=60, deadline=None)
def test_exchanging_truth_and_prediction_exchanges_precision_and_recall(
    first: np.ndarray, second: np.ndarray
) -> None:
    there, back = evaluate(first, second), evaluate(second, first)
    for name in ("accuracy", "f1", "ap50", "ap75", "ap"):
        assert there[name] == pytest.approx(back[name])
    assert there["precision"] == pytest.approx(back["recall"])


@given(LABEL_IMAGES, LABEL_IMAGES, st.permutations([1, 2, 3, 4]))
@settings(max_examples=60, deadline=None)
def test_renaming_labels_changes_nothing(
    truth: np.ndarray, predicted: np.ndarray, order: list[int]
) -> None:
    renamed = np.array([0, *order], dtype=np.uint16)[predicted]
    assert evaluate(truth, renamed) == pytest.approx(evaluate(truth, predicted))


@given(LABEL_IMAGES)
@settings(max_examples=40, deadline=None)
def test_an_image_agrees_perfectly_with_itself(labels: np.ndarray) -> None:
    result = evaluate(labels, labels)
    assert all(result[name] == 1.0 for name in SHARES)
    assert result["count_true"] == result["count_predicted"]


@given(LABEL_IMAGES, LABEL_IMAGES)
@settings(max_examples=60, deadline=None)
def test_pairs_are_those_of_an_exhaustive_search_and_one_to_one(
    truth: np.ndarray, predicted: np.ndarray
) -> None:
    for threshold in IOU_THRESHOLDS:
        matching = match(truth, predicted, threshold)
        pairs = {tuple(pair) for pair in matching.pairs.tolist()}
        assert len({t for t, _ in pairs}) == len({p for _, p in pairs}) == len(pairs)
        expected = set()
        for t in set(truth.ravel().tolist()) - {0}:
            for p in set(predicted.ravel().tolist()) - {0}:
                both = np.count_nonzero((truth == t) & (predicted == p))
                either = np.count_nonzero((truth == t) | (predicted == p))
                if both >= threshold * either - 1e-12:
                    expected.add((t, p))
        if threshold > 0.5:
            assert pairs == expected
        else:
            assert pairs <= expected
            # Nothing that could still be paired is left over.
            assert all(
                t in {a for a, _ in pairs} or p in {b for _, b in pairs} for t, p in expected
            )


def test_panoptic_quality_is_the_mean_iou_of_the_matched_by_the_share_recognised() -> None:
    # One of IoU 0.6, one of IoU 1, one missed and one invented.
    truth = bar((1, 10, 30), (2, 40, 50), (3, 60, 70))
    predicted = bar((7, 15, 35), (8, 40, 50), (9, 80, 90))
    result = evaluate(truth, predicted)
    assert result["sq"] == pytest.approx(0.8)
    assert result["rq"] == pytest.approx(2 / 3)
    assert result["pq"] == pytest.approx(0.8 * 2 / 3)
    nothing = bar()
    assert evaluate(nothing, nothing)["pq"] == 1.0
    assert evaluate(truth, nothing)["pq"] == 0.0


def test_precision_recall_area_of_a_case_worked_by_hand() -> None:
    # By falling confidence: hit, miss, hit, miss; 3 true. Precision 1, 1/2, 2/3, 1/2 at recall
    # 1/3, 1/3, 2/3, 2/3. Best at a recall or above: 1 to 1/3 (34 of 101 points), 2/3 to 2/3 (33),
    # then 0.
    hits = np.array([True, False, True, False])
    area = precision_recall_area(hits, np.array([0.9, 0.8, 0.7, 0.6]), 3)
    assert area == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)
    assert precision_recall_area(np.zeros(0, bool), np.zeros(0), 0) == 1.0
    assert precision_recall_area(np.zeros(0, bool), np.zeros(0), 2) == 0.0
    assert precision_recall_area(np.zeros(2, bool), np.ones(2), 0) == 0.0


def test_an_invented_particle_that_is_trusted_least_costs_no_precision() -> None:
    truth, predicted = bar((1, 0, 10), (2, 20, 30)), bar((1, 0, 10), (2, 20, 30), (3, 50, 60))
    assert evaluate(truth, predicted, {1: 0.9, 2: 0.8, 3: 0.1})["ap50_pr"] == 1.0
    assert evaluate(truth, predicted, {1: 0.5, 2: 0.5, 3: 0.9})["ap50_pr"] < 0.7
    assert "ap50_pr" not in evaluate(truth, predicted)


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30))
def test_distances_of_sizes_are_those_of_scipy(seed: int, count: int, other: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [rng.integers(1, 40, number) for number in (count, other)]
    images = [np.repeat(np.arange(1, len(part) + 1), part)[None] for part in sizes]
    width = max(image.shape[1] for image in images)
    truth, predicted = (np.pad(image, ((0, 0), (0, width - image.shape[1]))) for image in images)
    result = evaluate(truth, predicted)
    one, two = (np.sqrt(4 * part / np.pi) for part in sizes)
    assert result["ks_distance"] == pytest.approx(stats.ks_2samp(one, two).statistic)
    assert result["wasserstein_px"] == pytest.approx(stats.wasserstein_distance(one, two))


def test_confidence_changes_no_other_metric() -> None:
    truth, predicted = bar((1, 0, 10), (2, 10, 30)), bar((5, 0, 30))
    plain = evaluate(truth, predicted)
    sure = evaluate(truth, predicted, {5: 0.4})
    assert {name: sure[name] for name in plain} == plain
