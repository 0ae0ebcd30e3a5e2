# SPDX-License-Identifier: GPL-3.0-or-later
"""EvaluateSegmentation: predicted against true labels, by image and by candidate."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo_analyzer import convert, inputs
from granulo_analyzer.domain import comparison
from granulo_analyzer.domain.comparison import Interval
from granulo_analyzer.domain.jobs import StoredFile
from granulo_analyzer.domain.warping import warping_error
from granulo_analyzer.settings import AnalyzerSettings
from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.imaging.labels import LabelKind
from granulo_core.imaging.matching import evaluate, match, mean_metrics
from granulo_core.imaging.reading.isolated import Read
from granulo_core.store.port import ObjectStore

_KINDS: dict[int, LabelKind] = {
    pb.EvaluationPair.TRUTH_KIND_UNSPECIFIED: "auto",
    pb.EvaluationPair.TRUTH_KIND_INSTANCES: "instances",
    pb.EvaluationPair.TRUTH_KIND_BINARY_4_CONNECTED: "binary",
}


@dataclass(frozen=True)
class _Evaluated:
    """What one pair comes to."""

    candidate: str
    image: str
    truth: str
    """Key of the true labels: equal for the same image of several candidates."""
    metrics: Mapping[str, float]
    true_ecd_px: NDArray[np.float64]
    found: NDArray[np.bool_]
    """Of the true particles, at an IoU of 0.5."""


def evaluate_pairs(
    store: ObjectStore,
    request: pb.EvaluateSegmentationRequest,
    settings: AnalyzerSettings,
    read: Read,
) -> pb.EvaluateSegmentationResponse:
    """Compare every pair, average over the images, and compare the candidates.

    Parameters
    ----------
    store : ObjectStore
    request : EvaluateSegmentationRequest
    settings : AnalyzerSettings
    read : Read
        How label images are read.

    Returns
    -------
    EvaluateSegmentationResponse
        The metrics of `granulo_core.imaging.matching.evaluate`.

    Raises
    ------
    GranuloError
        What is wrong with a file or a pair, with its field in the request.
    """
    convert.check_count(len(request.pairs), "pairs", settings.max_images)
    for index, pair in enumerate(request.pairs):
        for name in ("predicted", "truth", "particles"):
            if name != "particles" or pair.HasField("particles"):
                file = convert.stored_file(getattr(pair, name))
                inputs.check_exists(store, file, f"pairs[{index}].{name}")
    results = [
        _evaluated(store, pair, f"pairs[{index}]", settings.max_image_px, read)
        for index, pair in enumerate(request.pairs)
    ]
    return _response(results)


def _response(results: Sequence[_Evaluated]) -> pb.EvaluateSegmentationResponse:
    by_candidate: dict[str, list[_Evaluated]] = {}
    for result in results:
        by_candidate.setdefault(result.candidate, []).append(result)
    first = next(iter(by_candidate.values()))
    answer = pb.EvaluateSegmentationResponse(
        metrics=mean_metrics([result.metrics for result in first]),
        images=[
            pb.EvaluateSegmentationResponse.ImageResult(
                image=result.image, metrics=result.metrics, candidate=result.candidate
            )
            for result in results
        ],
    )
    for name, images in by_candidate.items():
        answer.candidates.append(_candidate(name, images))
    for (name, images), (other, reference) in combinations(by_candidate.items(), 2):
        count, apart = comparison.differences(_by_truth(images), _by_truth(reference))
        answer.differences.append(
            pb.EvaluateSegmentationResponse.CandidateDifference(
                candidate=name, reference=other, images=count, metrics=_figures(apart)
            )
        )
    return answer


def _candidate(
    name: str, images: Sequence[_Evaluated]
) -> pb.EvaluateSegmentationResponse.CandidateResult:
    curve = comparison.detection_curve(
        np.concatenate([image.true_ecd_px for image in images]),
        np.concatenate([image.found for image in images]),
    )
    return pb.EvaluateSegmentationResponse.CandidateResult(
        candidate=name,
        metrics=_figures(comparison.means([image.metrics for image in images])),
        detection_curve=[
            pb.DetectionRate(
                min_ecd_px=part.min_ecd_px,
                max_ecd_px=part.max_ecd_px,
                true_particles=part.count,
                rate=_figure("recall", part.rate),
            )
            for part in curve
        ],
    )


def _by_truth(images: Sequence[_Evaluated]) -> dict[str, Mapping[str, float]]:
    return {image.truth: image.metrics for image in images}


def _figures(intervals: Mapping[str, Interval]) -> list[pb.Figure]:
    return [_figure(name, interval) for name, interval in intervals.items()]


def _figure(name: str, interval: Interval) -> pb.Figure:
    unit = "[px]" if name.endswith("_px") else "1"
    return pb.Figure(
        name=name, unit=unit, value=interval.value, lower=interval.lower, upper=interval.upper
    )


def _evaluated(
    store: ObjectStore, pair: pb.EvaluationPair, field: str, max_px: int, read: Read
) -> _Evaluated:
    predicted_file, truth_file = (
        convert.stored_file(pair.predicted),
        convert.stored_file(pair.truth),
    )
    kind = _KINDS.get(pair.truth_kind, "auto")
    truth = inputs.read_labels(store, truth_file, f"{field}.truth", read, max_px=max_px, kind=kind)
    predicted = inputs.read_labels(store, predicted_file, f"{field}.predicted", read, max_px=max_px)
    _check(pair, predicted, truth, field)
    confidence = None
    if pair.HasField("particles"):
        confidence = _confidences(store, convert.stored_file(pair.particles), f"{field}.particles")
    rows = slice(pair.content_height_px or None)
    truth, predicted = truth[rows], predicted[rows]
    labels, areas = np.unique(truth[truth > 0], return_counts=True)
    matched = match(truth, predicted).pairs[:, 0]
    return _Evaluated(
        candidate=pair.candidate,
        image=convert.image_name(predicted_file),
        truth=truth_file.key,
        metrics={
            **evaluate(truth, predicted, confidence),
            "warping_error": warping_error(truth, predicted),
        },
        true_ecd_px=np.sqrt(4.0 * areas / np.pi),
        found=np.isin(labels, matched),
    )


def _confidences(store: ObjectStore, file: StoredFile, field: str) -> dict[int, float]:
    """Columns ``label`` and ``confidence`` of a particle table."""
    try:
        text = store.get(file.key, file.digest or None).decode()
        return {
            int(row["label"]): float(row["confidence"]) for row in csv.DictReader(io.StringIO(text))
        }
    except (KeyError, ValueError, TypeError, UnicodeDecodeError, csv.Error) as error:
        text = (
            f"{file.name} is no particle table with the columns label and confidence; give the "
            "CSV that the segmenter wrote beside the labels, or leave it out"
        )
        raise invalid_fields([FieldViolation(field, text)]) from error


def _check(
    pair: pb.EvaluationPair,
    predicted: NDArray[np.uint32],
    truth: NDArray[np.uint32],
    field: str,
) -> None:
    if predicted.shape != truth.shape:
        text = (
            f"has {predicted.shape[1]} × {predicted.shape[0]} pixels, but its truth has "
            f"{truth.shape[1]} × {truth.shape[0]}; evaluate labels of the same image"
        )
        raise invalid_fields([FieldViolation(f"{field}.predicted", text)])
    if not 0 <= pair.content_height_px <= len(truth):
        text = f"must lie between 0 and the height, {len(truth)}, got {pair.content_height_px}"
        raise invalid_fields([FieldViolation(f"{field}.content_height_px", text)])
