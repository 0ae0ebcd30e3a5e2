# SPDX-License-Identifier: Apache-2.0
"""`granulo evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from granulo.analyzer.v1.analyzer_service_pb2 import EvaluateSegmentationResponse, EvaluationPair
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    ServerOption,
    open_session,
)
from granulo_client.errors import UsageError
from granulo_client.results import evaluation_document
from granulo_client.truth import find_pairs

_COLUMNS = (
    ("f1", "DSC"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("ap50", "AP50"),
    ("ap75", "AP75"),
    ("ap", "AP"),
    ("count_true", "true"),
    ("count_predicted", "found"),
)


def evaluate(
    predicted: Annotated[
        Path, typer.Argument(metavar="PRED_DIR", help="Folder with X_labels.tif files.")
    ],
    truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH_DIR",
            help="Folder with the true labels: X_labels.tif, X_labels.png, X_m.tif (binary, one "
            "particle per 4-connected component), X.png or X.tif, the first that exists.",
        ),
    ],
    content_height: Annotated[
        int,
        typer.Option(
            metavar="PX", help="Leave out rows from here on in both, e.g. a data bar. [default: 0]"
        ),
    ] = 0,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare predicted with true labels, image by image and on average."""
    session = open_session(server, data, as_json, quiet)
    if content_height < 0:
        raise UsageError(f"--content-height is {content_height}; give a number of rows, or 0.")
    pairs = find_pairs(predicted, truth)
    with session.client() as client:
        files = [(pair.predicted, pair.truth) for pair in pairs]
        uploaded = session.upload_pairs(client, files, "analyzer")
        with session.reporter.stage("Comparing"):
            answer = client.evaluate(
                [
                    EvaluationPair(
                        predicted=first,
                        truth=second,
                        truth_kind=pair.kind,
                        content_height_px=content_height,
                    )
                    for (first, second), pair in zip(uploaded, pairs, strict=True)
                ]
            )
    document = evaluation_document(answer)
    for item, pair in zip(document["images"], pairs, strict=True):
        item["predicted"], item["truth"] = str(pair.predicted), str(pair.truth)
    stems = [pair.predicted.name.removesuffix("_labels.tif") for pair in pairs]
    session.show_table(document, *metrics_table(answer, stems))
    if not as_json:
        session.show({}, [f"AP50 {answer.metrics['ap50']:.2f}"])


def metrics_table(
    answer: EvaluateSegmentationResponse, stems: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of an evaluation, the mean last."""
    shown = [(key, title) for key, title in _COLUMNS if key in answer.metrics]
    rows = [
        [stem, *(_number(item.metrics[key]) for key, _ in shown)]
        for stem, item in zip(stems, answer.images, strict=True)
    ]
    rows.append(["mean", *(_number(answer.metrics[key]) for key, _ in shown)])
    return ["IMAGE", *(title for _, title in shown)], rows


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) and value > 1 else f"{value:.3f}"
