# SPDX-License-Identifier: GPL-3.0-or-later
"""EvaluateSegmentation: predicted against true labels, image by image."""

import numpy as np
from numpy.typing import NDArray

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo_analyzer import convert, inputs
from granulo_analyzer.domain.jobs import StoredFile
from granulo_analyzer.settings import AnalyzerSettings
from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.imaging.labels import LabelKind
from granulo_core.imaging.matching import evaluate, mean_metrics
from granulo_core.store.port import ObjectStore

_KINDS: dict[int, LabelKind] = {
    pb.EvaluationPair.TRUTH_KIND_UNSPECIFIED: "auto",
    pb.EvaluationPair.TRUTH_KIND_INSTANCES: "instances",
    pb.EvaluationPair.TRUTH_KIND_BINARY_4_CONNECTED: "binary",
}


def evaluate_pairs(
    store: ObjectStore, request: pb.EvaluateSegmentationRequest, settings: AnalyzerSettings
) -> pb.EvaluateSegmentationResponse:
    """Compare every pair and average over the images.

    Parameters
    ----------
    store : ObjectStore
    request : EvaluateSegmentationRequest
    settings : AnalyzerSettings

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
    files = [
        (convert.stored_file(p.predicted), convert.stored_file(p.truth)) for p in request.pairs
    ]
    for index, (predicted, truth) in enumerate(files):
        inputs.check_exists(store, predicted, f"pairs[{index}].predicted")
        inputs.check_exists(store, truth, f"pairs[{index}].truth")
    results = []
    for index, (pair, (predicted, truth)) in enumerate(zip(request.pairs, files, strict=True)):
        metrics = _evaluate(store, pair, predicted, truth, f"pairs[{index}]", settings.max_image_px)
        results.append(
            pb.EvaluateSegmentationResponse.ImageResult(
                image=convert.image_name(predicted), metrics=metrics
            )
        )
    means = mean_metrics([dict(result.metrics) for result in results])
    return pb.EvaluateSegmentationResponse(metrics=means, images=results)


def _evaluate(
    store: ObjectStore,
    pair: pb.EvaluationPair,
    predicted_file: StoredFile,
    truth_file: StoredFile,
    field: str,
    max_px: int,
) -> dict[str, float]:
    kind = _KINDS.get(pair.truth_kind, "auto")
    truth = inputs.read_labels(store, truth_file, f"{field}.truth", max_px=max_px, kind=kind)
    predicted = inputs.read_labels(store, predicted_file, f"{field}.predicted", max_px=max_px)
    _check(pair, predicted, truth, field)
    rows = slice(pair.content_height_px or None)
    return evaluate(truth[rows], predicted[rows])


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
