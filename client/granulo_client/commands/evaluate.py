# SPDX-License-Identifier: Apache-2.0
"""`granulo evaluate`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from granulo.analyzer.v1.analyzer_service_pb2 import (
    EvaluateSegmentationResponse,
    EvaluationPair,
    Figure,
)
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
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="PRED_DIR... TRUTH_DIR",
            help="One or more folders with X_labels.tif files (and X_particles.csv, where there "
            "are confidences), then the folder with the true labels: X_labels.tif, X_labels.png, "
            "X_m.tif (binary, one particle per 4-connected component), X.png or X.tif, the first "
            "that exists.",
        ),
    ],
    content_height: Annotated[
        int,
        typer.Option(
            metavar="PX", help="Leave out rows from here on in both, e.g. a data bar. [default: 0]"
        ),
    ] = 0,
    per_image: Annotated[
        bool, typer.Option("--per-image", help="Also of several folders list every image.")
    ] = False,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare predicted with true labels, image by image and on average.

    Several predictions of the same images are compared side by side, with 95 % intervals over the
    images.
    """
    session = open_session(server, data, as_json, quiet)
    if content_height < 0:
        raise UsageError(f"--content-height is {content_height}; give a number of rows, or 0.")
    if len(folders) < 2:
        raise UsageError("give a folder with predictions and, last, one with the true labels.")
    *predicted, truth = folders
    names = candidate_names(predicted)
    found = [(name, pair) for name, folder in names.items() for pair in find_pairs(folder, truth)]
    with session.client() as client:
        files = [(pair.predicted, pair.truth) for _, pair in found]
        uploaded = session.upload_pairs(client, files, "analyzer")
        tables = [particle_table(pair.predicted) for _, pair in found]
        known = session.upload_pairs(client, [(path, None) for path in tables if path], "analyzer")
        confidences = iter(known)
        with session.reporter.stage("Comparing"):
            answer = client.evaluate(
                [
                    EvaluationPair(
                        predicted=first,
                        truth=second,
                        truth_kind=pair.kind,
                        content_height_px=content_height,
                        candidate=name if len(names) > 1 else "",
                        particles=next(confidences)[0] if table else None,
                    )
                    for (name, pair), (first, second), table in zip(
                        found, uploaded, tables, strict=True
                    )
                ]
            )
    document = evaluation_document(answer)
    for item, (_, pair) in zip(document["images"], found, strict=True):
        item["predicted"], item["truth"] = str(pair.predicted), str(pair.truth)
    stems = [pair.predicted.name.removesuffix("_labels.tif") for _, pair in found]
    if len(names) == 1:
        session.show_table(document, *metrics_table(answer, stems))
        if not as_json:
            session.show({}, [f"AP50 {answer.metrics['ap50']:.2f}"])
        return
    session.show_table(document, *candidates_table(answer))
    if not as_json:
        if per_image:
            stems = [f"{name}/{stem}" for (name, _), stem in zip(found, stems, strict=True)]
            columns, rows = metrics_table(answer, stems)
            session.show_table({}, columns, rows[:-1])
        session.show({}, difference_lines(answer))


def candidate_names(folders: Sequence[Path]) -> dict[str, Path]:
    """Name of every folder of predictions: its own, or its path where several are called so."""
    own = [folder.resolve().name for folder in folders]
    names = {
        name if own.count(name) == 1 else str(folder): folder
        for name, folder in zip(own, folders, strict=True)
    }
    if len(names) < len(folders):
        raise UsageError("a folder with predictions is given twice.")
    return names


def particle_table(predicted: Path) -> Path | None:
    """The table that the segmenter wrote beside ``X_labels.tif``, if it is there."""
    stem = predicted.name.removesuffix("_labels.tif")
    path = predicted.with_name(f"{stem}_particles.csv")
    return path if path.is_file() else None


def candidates_table(answer: EvaluateSegmentationResponse) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of several candidates, means with their intervals."""
    shown = [(key, title) for key, title in _COLUMNS[:6] if key in answer.metrics]
    rows = []
    for item in answer.candidates:
        figures = {figure.name: figure for figure in item.metrics}
        rows.append([item.candidate, *(_interval(figures[key]) for key, _ in shown)])
    return ["CANDIDATE", *(title for _, title in shown)], rows


def difference_lines(answer: EvaluateSegmentationResponse) -> list[str]:
    """What two candidates differ by, for people."""
    lines = []
    for item in answer.differences:
        figures = {figure.name: figure for figure in item.metrics}
        if "ap50" not in figures:
            lines.append(f"{item.candidate} and {item.reference} have no image in common")
            continue
        text = ", ".join(
            f"{title} {_interval(figures[key], sign='+')}"
            for key, title in (("f1", "DSC"), ("ap50", "AP50"))
        )
        images = f"{item.images} image{'s' * (item.images > 1)}"
        lines.append(f"{item.candidate} minus {item.reference}, {images}: {text}")
    return lines


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


def _interval(figure: Figure, sign: str = "") -> str:
    if math.isnan(figure.lower):
        return f"{figure.value:{sign}.3f}"
    return f"{figure.value:{sign}.3f} ({figure.lower:{sign}.3f} to {figure.upper:{sign}.3f})"
