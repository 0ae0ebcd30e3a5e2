# SPDX-License-Identifier: Apache-2.0
"""`granulo render`."""

from pathlib import Path
from typing import Annotated

import typer

from granulo_client.client import Client
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    ServerOption,
    Session,
    check_at_least,
    open_session,
    prepare_file,
    prepare_out,
)
from granulo_client.errors import UnavailableError, UsageError
from granulo_client.exports import FORMATS, export_dataset
from granulo_client.files import write_whole
from granulo_client.recipes import RecipeSource, recipe_source

_MAX_FRAMES = 4
_PREVIEW_PX = 512


def render(
    recipe: Annotated[
        str, typer.Argument(metavar="PRESET|RECIPE.yaml", help="A preset's name or a recipe file.")
    ],
    count: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of scenes; of a preview 1 to 4. [preview: 4]"),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Equal seeds give equal bytes.")] = 0,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PX",
            help="Side of the images and labels. [default: the recipe's; preview: 512]",
        ),
    ] = None,
    preview: Annotated[
        Path | None,
        typer.Option(
            metavar="SHEET.png",
            help="Only save one contact sheet of a few scenes, labels drawn in; nothing is stored.",
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also save the dataset's files to DIR.")
    ] = None,
    export_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="tiff|coco",
            help="Of --export: DIR/000000_image.tif, DIR/000000_labels.tif …, or "
            "DIR/images/000000.tif … with DIR/annotations.json. [default: tiff]",
        ),
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Render scenes with exact labels into a dataset."""
    session = open_session(server, data, as_json, quiet)
    source = recipe_source(recipe)
    if size is not None:
        check_at_least("--size", "dataset.size_px", size, 1)
    if preview is not None:
        if export is not None or export_format is not None:
            raise UsageError("--preview stores nothing that --export could save; leave one out.")
        frames = _MAX_FRAMES if count is None else count
        if not 1 <= frames <= _MAX_FRAMES:
            raise UsageError(f"--count is {frames}; a preview has 1 to {_MAX_FRAMES} scenes.")
        prepare_file(preview)
        _preview(session, source, preview, frames, seed, size or _PREVIEW_PX)
        return
    if count is None:
        raise UsageError("--count is missing; give the number of scenes, e.g. --count 32.")
    check_at_least("--count", "dataset.image_count", count, 1)
    if export_format is not None and export is None:
        raise UsageError("--format goes with --export DIR.")
    if export_format not in (None, *FORMATS):
        raise UsageError(f"--format is {export_format!r}; known are {', '.join(FORMATS)}.")
    if export is not None:
        prepare_out(export)
    with session.client() as client:
        with source.located():
            job = client.render(source.recipe, count=count, seed=seed, size_px=size or 0)
            dataset = session.reporter.follow(job, "Rendering")
        if export is not None:
            with session.reporter.stage("Saving") as stage:
                export_dataset(client, dataset, export, export_format or FORMATS[0], stage)
    document = {
        "dataset": dataset.name,
        "image_count": dataset.image_count,
        "particle_count": dataset.particle_count,
        "seed": dataset.seed,
        "size_px": dataset.size_px,
        "operation": job.name,
        "export": str(export) if export is not None else None,
    }
    lines = [f"{dataset.name}: {dataset.image_count} scenes, {dataset.particle_count} particles"]
    if export is not None:
        lines.append(f"images and labels in {export}")
    session.show(document, lines)


def _preview(
    session: Session, source: RecipeSource, sheet: Path, frames: int, seed: int, size_px: int
) -> None:
    """Render a few scenes and save their contact sheet."""
    with session.client() as client:
        data, particles, unplaced = _frames(session, client, source, frames, seed, size_px)
    with write_whole(sheet) as file:
        file.write(data)
    document = {
        "preview": str(sheet),
        "frames": frames,
        "seed": seed,
        "size_px": size_px,
        "particle_count": particles,
        "unplaced_count": unplaced,
    }
    missing = f", {unplaced} more found no place" if unplaced else ""
    session.show(document, [f"{sheet}: {frames} scenes, {particles} particles{missing}"])


def _frames(
    session: Session, client: Client, source: RecipeSource, frames: int, seed: int, size_px: int
) -> tuple[bytes, int, int]:
    """Contact sheet as PNG, and the numbers of particles shown and without a place."""
    particles = unplaced = done = 0
    stage_of = session.reporter.stage("Rendering a preview", total=frames, unit="scene")
    with stage_of as stage, source.located():
        for answer in client.preview(
            source.recipe, frames=frames, seed=seed, size_px=size_px, sheet=True
        ):
            if answer.sheet_png:
                return answer.sheet_png, particles, unplaced
            done += 1
            particles += answer.particle_count
            unplaced += answer.unplaced_count
            stage.update(done=done, total=frames, unit="scene")
    raise UnavailableError("The server ended the preview without a contact sheet. Try again.")
