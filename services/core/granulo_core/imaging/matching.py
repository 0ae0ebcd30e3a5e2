# SPDX-License-Identifier: GPL-3.0-or-later
"""The one definition of accuracy: predicted against true labels, by pixels and by instances.

Instances are matched by intersection over union (IoU). At a threshold of one half or more a pair is
unique but for exact halves, so that no assignment problem has to be solved; what is compared is a
sparse table of overlaps, which is fast for any number of particles.

Average precision is TP / (TP + FP + FN), as in StarDist and in the papers on synthetic training
data. The area under the precision-recall curve, which COCO calls average precision as well, needs a
confidence for every instance; where these are known it is given beside the other, as ``…_pr``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix

# Quotients, not a running sum: 60/100 is the same double as an IoU of 3/5, 0.5 + 2 * 0.05 is not.
IOU_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
"""COCO's ten thresholds, 0.50 to 0.95."""


@dataclass(frozen=True)
class Matching:
    """Which predicted particle is which true one, at one IoU threshold."""

    threshold: float
    """Smallest IoU of a pair."""
    pairs: NDArray[np.int64]
    """(n, 2): true and predicted label of every matched pair, by rising true label."""
    ious: NDArray[np.float64]
    """(n,): IoU of every matched pair."""
    count_true: int
    count_predicted: int

    @property
    def true_positives(self) -> int:
        """Matched pairs."""
        return len(self.pairs)

    @property
    def false_positives(self) -> int:
        """Predicted particles without a partner."""
        return self.count_predicted - self.true_positives

    @property
    def false_negatives(self) -> int:
        """True particles without a partner."""
        return self.count_true - self.true_positives

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN); 1 where there is nothing to find and nothing was found."""
        total = self.count_true + self.count_predicted - self.true_positives
        return self.true_positives / total if total else 1.0


@dataclass(frozen=True)
class _Overlaps:
    """Areas and the pairs of particles that share pixels."""

    true_labels: NDArray[np.int64]
    predicted_labels: NDArray[np.int64]
    true_areas: NDArray[np.int64]
    predicted_areas: NDArray[np.int64]
    rows: NDArray[np.int64]
    """Index of the true particle of every overlapping pair."""
    columns: NDArray[np.int64]
    ious: NDArray[np.float64]


def match(
    truth: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], threshold: float = 0.5
) -> Matching:
    """Match instances one to one where their IoU reaches a threshold.

    Parameters
    ----------
    truth, predicted : (H, W) integer
        Label images of one shape; 0 is background, labels need not be consecutive.
    threshold : float
        Smallest IoU of a pair, 0.5 to 1: below one half pairs would not be unique.

    Returns
    -------
    Matching

    Raises
    ------
    ValueError
        When the two differ in shape, are not label images, or the threshold is out of range.
    """
    return _matched(_overlaps(truth, predicted), threshold)


def evaluate(
    truth: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]],
    confidence: Mapping[int, float] | None = None,
) -> dict[str, float]:
    """Compare a predicted label image with the true one.

    Parameters
    ----------
    truth, predicted : (H, W) integer
        Label images of one shape; 0 is background.
    confidence : mapping of int to float, optional
        Of predicted labels; a label that it lacks counts as sure of nothing.

    Returns
    -------
    dict
        By pixels, particle or background: ``accuracy``, ``precision``, ``recall`` and ``f1`` (the
        Dice coefficient). By instances: ``ap50``, ``ap75`` and ``ap``, TP / (TP + FP + FN) at an
        IoU of 0.50, of 0.75, and its mean over `IOU_THRESHOLDS`; ``pq``, the panoptic quality
        ``sq`` x ``rq`` at 0.50 (Kirillov et al. 2019): mean IoU of the matched, and
        TP / (TP + FP/2 + FN/2). With confidences ``ap50_pr``, ``ap75_pr`` and ``ap_pr``, COCO's
        areas. By particles: ``count_true``, ``count_predicted``, ``count_error`` (absolute
        difference over the true count), ``median_size_error`` (absolute difference of the medians
        of sqrt(area), and so of the equivalent-circle diameter, over the true one),
        ``ks_distance`` (largest difference of the two cumulative distributions of the diameter) and
        ``wasserstein_px`` (area between them).

        Where both images are empty all shares are 1 and the errors are absent; where one is empty
        a quotient 0/0 counts as 0. ``count_error`` and ``median_size_error`` are absent without a
        true particle, the distances without one on either side: there is nothing to compare with.

    Raises
    ------
    ValueError
        When the two differ in shape or are not label images.
    """
    overlaps = _overlaps(truth, predicted)
    metrics = _pixel_metrics(np.asarray(truth) > 0, np.asarray(predicted) > 0)
    matchings = [_matched(overlaps, threshold) for threshold in IOU_THRESHOLDS]
    scores = [matching.average_precision for matching in matchings]
    metrics |= _panoptic(matchings[0])
    if confidence is not None:
        metrics |= _areas_under_curves(matchings, overlaps.predicted_labels, confidence)
    metrics["ap50"] = scores[IOU_THRESHOLDS.index(0.5)]
    metrics["ap75"] = scores[IOU_THRESHOLDS.index(0.75)]
    metrics["ap"] = float(np.mean(scores))

    count_true, count_predicted = len(overlaps.true_areas), len(overlaps.predicted_areas)
    metrics["count_true"] = float(count_true)
    metrics["count_predicted"] = float(count_predicted)
    if count_true:
        metrics["count_error"] = abs(count_predicted - count_true) / count_true
        true_size = float(np.median(np.sqrt(overlaps.true_areas)))
        size = float(np.median(np.sqrt(overlaps.predicted_areas))) if count_predicted else 0.0
        metrics["median_size_error"] = abs(size - true_size) / true_size
    if count_true and count_predicted:
        metrics |= _distances(overlaps.true_areas, overlaps.predicted_areas)
    return metrics


def precision_recall_area(
    hits: NDArray[np.bool_], confidence: NDArray[np.float64], count_true: int
) -> float:
    """Area under the precision-recall curve as COCO has it: precision at 101 recalls.

    Parameters
    ----------
    hits : (n,) bool
        Whether each predicted particle is a true one.
    confidence : (n,) float
    count_true : int

    Returns
    -------
    float
        Precision at a recall is the best at that or a higher one (Lin et al. 2014, cocoapi). Equal
        confidences enter together. 1 where there is nothing to find and nothing was found.
    """
    if not count_true:
        return 0.0 if len(hits) else 1.0
    order = np.argsort(-confidence, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(confidence[order])), len(hits) - 1)
    found = np.cumsum(hits[order])[ends] if len(hits) else np.empty(0)
    precision = found / (ends + 1) if len(hits) else np.empty(0)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(found / count_true, np.linspace(0.0, 1.0, 101))
    return float(np.append(best, 0.0)[places].mean())


def _panoptic(matching: Matching) -> dict[str, float]:
    wrong = matching.false_positives + matching.false_negatives
    if not matching.true_positives:
        empty = 0.0 if wrong else 1.0
        return {"pq": empty, "sq": empty, "rq": empty}
    quality = float(matching.ious.mean())
    recognised = matching.true_positives / (matching.true_positives + wrong / 2)
    return {"pq": quality * recognised, "sq": quality, "rq": recognised}


def _areas_under_curves(
    matchings: Sequence[Matching],
    labels: NDArray[np.int64],
    confidence: Mapping[int, float],
) -> dict[str, float]:
    sure = np.array([confidence.get(label, 0.0) for label in labels.tolist()])
    areas = [
        precision_recall_area(np.isin(labels, matching.pairs[:, 1]), sure, matching.count_true)
        for matching in matchings
    ]
    at = {
        f"ap{round(100 * one.threshold)}_pr": area
        for one, area in zip(matchings, areas, strict=True)
    }
    return {"ap50_pr": at["ap50_pr"], "ap75_pr": at["ap75_pr"], "ap_pr": float(np.mean(areas))}


def _distances(true_areas: NDArray[np.int64], areas: NDArray[np.int64]) -> dict[str, float]:
    """Between the two distributions of the equivalent-circle diameter, by number."""
    # `scipy.stats` has both and takes a second to import, in every server and worker.
    sizes = [np.sort(np.sqrt(4.0 * values / np.pi)) for values in (true_areas, areas)]
    steps = np.sort(np.concatenate(sizes))
    one, other = (np.searchsorted(size, steps, side="right") / len(size) for size in sizes)
    apart = np.abs(one - other)
    return {
        "ks_distance": float(apart.max()),
        "wasserstein_px": float(apart[:-1] @ np.diff(steps)),
    }


def mean_metrics(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average the metrics of several images, each image counting the same.

    Parameters
    ----------
    results : sequence of mappings
        What `evaluate` returned for every image.

    Returns
    -------
    dict
        The mean of every metric over the images that have it.
    """
    names = dict.fromkeys(name for result in results for name in result)
    return {
        name: float(np.mean([result[name] for result in results if name in result]))
        for name in names
    }


def _matched(overlaps: _Overlaps, threshold: float) -> Matching:
    if not 0.5 <= threshold <= 1.0:
        raise ValueError(f"an IoU threshold must lie between 0.5 and 1, got {threshold!r}")
    chosen = np.flatnonzero(overlaps.ious >= threshold)
    # A particle split into exact halves reaches 0.5 with both; the first half is its partner.
    # Halves lie within the whole, so that they have no other partner to lose.
    for indices in (overlaps.rows, overlaps.columns):
        chosen = chosen[np.sort(np.unique(indices[chosen], return_index=True)[1])]
    pairs = np.stack(
        (
            overlaps.true_labels[overlaps.rows[chosen]],
            overlaps.predicted_labels[overlaps.columns[chosen]],
        ),
        axis=1,
    )
    return Matching(
        threshold=threshold,
        pairs=pairs,
        ious=overlaps.ious[chosen],
        count_true=len(overlaps.true_areas),
        count_predicted=len(overlaps.predicted_areas),
    )


def _overlaps(truth: NDArray[Any], predicted: NDArray[Any]) -> _Overlaps:
    """Count the pixels that every true particle shares with every predicted one."""
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    for name, labels in (("truth", truth), ("predicted", predicted)):
        if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"{name} must be a two-dimensional image of integer labels, "
                f"got {labels.dtype} of shape {labels.shape}"
            )
    if truth.shape != predicted.shape:
        raise ValueError(
            f"truth and predicted must have one shape, got {truth.shape} and {predicted.shape}"
        )
    true_labels, true_index = _numbered("truth", truth)
    predicted_labels, predicted_index = _numbered("predicted", predicted)
    true_areas = np.bincount(true_index, minlength=len(true_labels) + 1)[1:]
    predicted_areas = np.bincount(predicted_index, minlength=len(predicted_labels) + 1)[1:]

    shared = (true_index > 0) & (predicted_index > 0)
    rows, columns = true_index[shared] - 1, predicted_index[shared] - 1
    table = coo_matrix(
        (np.ones(len(rows), dtype=np.int64), (rows, columns)),
        shape=(len(true_labels), len(predicted_labels)),
    ).tocsr()
    table.sum_duplicates()
    pairs = table.tocoo()
    rows, columns = pairs.row.astype(np.int64), pairs.col.astype(np.int64)
    union = true_areas[rows] + predicted_areas[columns] - pairs.data
    return _Overlaps(
        true_labels=true_labels,
        predicted_labels=predicted_labels,
        true_areas=true_areas,
        predicted_areas=predicted_areas,
        rows=rows,
        columns=columns,
        ious=pairs.data / union,
    )


def _numbered(name: str, labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The labels that occur, rising, and every pixel's place among them (0: background)."""
    flat = labels.ravel()
    if not flat.size:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    if flat.min() < 0:
        raise ValueError(f"{name} has negative labels; particles are 1, 2, 3, … and background 0")
    if int(flat.max()) > max(flat.size, 1 << 20):
        # A look-up table by label would be larger than the image itself.
        present, index = np.unique(flat, return_inverse=True)
        if present[0] == 0:
            return present[1:].astype(np.int64), index.astype(np.int64)
        return present.astype(np.int64), index.astype(np.int64) + 1
    occurs = np.bincount(flat.astype(np.int64)) > 0
    occurs[0] = False
    places = np.cumsum(occurs) * occurs
    return np.flatnonzero(occurs).astype(np.int64), places[flat]


def _pixel_metrics(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> dict[str, float]:
    hits = int(np.count_nonzero(truth & predicted))
    claimed, wanted = int(np.count_nonzero(predicted)), int(np.count_nonzero(truth))
    wrong = claimed + wanted - 2 * hits
    nothing = 1.0 if claimed + wanted == 0 else 0.0
    return {
        "accuracy": 1.0 - wrong / truth.size if truth.size else 1.0,
        "precision": hits / claimed if claimed else nothing,
        "recall": hits / wanted if wanted else nothing,
        "f1": 2 * hits / (claimed + wanted) if claimed + wanted else nothing,
    }
