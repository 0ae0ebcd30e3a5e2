# SPDX-License-Identifier: Apache-2.0
"""`granulo analyze`."""

from pathlib import Path
from typing import Annotated

import typer

from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    PixelSizeOption,
    QuietOption,
    ServerOption,
    check_pixel_size,
    image_files,
    open_session,
    prepare_out,
)
from granulo_client.commands.statistics import (
    ConfidenceLevelOption,
    CountingRuleOption,
    MinConfidenceOption,
    SeedOption,
    TargetOption,
    UncertaintyOption,
    analysis_settings,
)
from granulo_client.errors import UsageError
from granulo_client.results import analysis_document, analysis_files, analysis_lines
from granulo_client.truth import MICROGRAPH_ENDINGS


def analyze(
    labels: Annotated[
        list[Path], typer.Argument(metavar="LABELS...", help="Label images, e.g. *_labels.tif.")
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder for particles.csv, summary.json, report.html."),
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with the micrographs, for grey values and pictures: "
            "X.tif, X.png, … or X_image.tif, … for X_labels.tif.",
        ),
    ] = None,
    pixel_size: PixelSizeOption = None,
    counting_rule: CountingRuleOption = "miles-lantuejoul",
    confidence_level: ConfidenceLevelOption = "95%",
    target: TargetOption = "5%",
    min_confidence: MinConfidenceOption = 0.0,
    uncertainty: UncertaintyOption = None,
    seed: SeedOption = 0,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure the particles of label images."""
    session = open_session(server, data, as_json, quiet)
    check_pixel_size(pixel_size)
    settings = analysis_settings(
        counting_rule=counting_rule,
        confidence_level=confidence_level,
        target=target,
        seed=seed,
        min_confidence=min_confidence,
        uncertainty=uncertainty or (),
    )
    image_files(labels)
    pairs = [(path, find_image(path, images) if images else None) for path in labels]
    tables = [find_table(path) for path in labels]
    whole = [find_beside(path, "_amodal.tif") for path in labels]
    if min_confidence and None in tables:
        name = labels[tables.index(None)].name
        raise UsageError(
            f"--min-confidence needs the confidences of {name}: "
            f"{stem_of(labels[tables.index(None)])}_particles.csv is not beside it."
        )
    prepare_out(out)
    with session.client() as client:
        job = client.analyze(
            session.upload_pairs(client, pairs, "analyzer"),
            pixel_size_nm=pixel_size,
            settings=settings,
            particles=tables,
            amodal=whole,
        )
        analysis = session.reporter.follow(job, "Analysing")
        session.download(client, analysis_files(client, analysis, out))
    session.show(
        {**analysis_document(analysis, out), "operation": job.name, "out": str(out)},
        analysis_lines(analysis, out),
    )


def stem_of(labels: Path) -> str:
    """What the names of all files of one image begin with."""
    return labels.stem.removesuffix("_labels")


def find_table(labels: Path) -> Path | None:
    """Particle table of segmenter or renderer beside a label image; others are not meant."""
    found = find_beside(labels, "_particles.csv")
    if found is None:
        return None
    with found.open(encoding="utf-8", errors="replace") as file:
        columns = set(file.readline().strip().split(","))
    is_ours = columns & {"label", "id"} and columns & {"confidence", "visible_fraction"}
    return found if is_ours else None


def find_beside(labels: Path, ending: str) -> Path | None:
    """What `granulo segment` or `granulo datasets export` wrote beside a label image, if at all."""
    found = labels.with_name(f"{stem_of(labels)}{ending}")
    return found if found.is_file() and found != labels else None


def find_image(labels: Path, folder: Path) -> Path:
    """Micrograph of a label image.

    Raises
    ------
    UsageError
        The folder has none.
    """
    if not folder.is_dir():
        raise UsageError(f"--images {folder} is no folder.")
    stem = stem_of(labels)
    for name in (stem, f"{stem}_image"):
        for ending in MICROGRAPH_ENDINGS:
            for candidate in (folder / f"{name}{ending}", folder / f"{name}{ending.upper()}"):
                if candidate.is_file() and candidate.resolve() != labels.resolve():
                    return candidate
    raise UsageError(
        f"{folder} has no micrograph for {labels.name}: looked for {stem}.tif, {stem}.png, …, "
        f"{stem}_image.tif, …. Rename it, or leave --images out."
    )
