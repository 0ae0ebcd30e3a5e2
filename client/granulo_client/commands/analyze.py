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
    tables = [find_table(path) for path in labels] if min_confidence else []
    prepare_out(out)
    with session.client() as client:
        job = client.analyze(
            session.upload_pairs(client, pairs, "analyzer"),
            pixel_size_nm=pixel_size,
            settings=settings,
            particles=tables,
        )
        analysis = session.reporter.follow(job, "Analysing")
        session.download(client, analysis_files(client, analysis, out))
    session.show(
        {**analysis_document(analysis, out), "operation": job.name, "out": str(out)},
        analysis_lines(analysis, out),
    )


def find_table(labels: Path) -> Path:
    """Particle table that `granulo segment` wrote beside a label image.

    Raises
    ------
    UsageError
        There is none.
    """
    table = labels.with_name(f"{labels.stem.removesuffix('_labels')}_particles.csv")
    if not table.is_file():
        raise UsageError(
            f"--min-confidence needs the confidences of {labels.name}: {table} is missing."
        )
    return table


def find_image(labels: Path, folder: Path) -> Path:
    """Micrograph of a label image.

    Raises
    ------
    UsageError
        The folder has none.
    """
    if not folder.is_dir():
        raise UsageError(f"--images {folder} is no folder.")
    stem = labels.stem.removesuffix("_labels")
    for name in (stem, f"{stem}_image"):
        for ending in MICROGRAPH_ENDINGS:
            for candidate in (folder / f"{name}{ending}", folder / f"{name}{ending.upper()}"):
                if candidate.is_file() and candidate.resolve() != labels.resolve():
                    return candidate
    raise UsageError(
        f"{folder} has no micrograph for {labels.name}: looked for {stem}.tif, {stem}.png, …, "
        f"{stem}_image.tif, …. Rename it, or leave --images out."
    )
