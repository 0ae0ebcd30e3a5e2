# SPDX-License-Identifier: Apache-2.0
"""`granulo render`."""

from pathlib import Path
from typing import Annotated

import typer

from granulo.render.v1.recipe_pb2 import Recipe
from granulo.render.v1.render_service_pb2 import Dataset
from granulo.type.v1.artifact_pb2 import Artifact
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    ServerOption,
    open_session,
    prepare_out,
)
from granulo_client.errors import FieldViolation, UsageError
from granulo_client.recipes import load_recipe

_RECIPE_ENDINGS = (".yaml", ".yml", ".json")


def render(
    recipe: Annotated[
        str, typer.Argument(metavar="PRESET|RECIPE.yaml", help="A preset's name or a recipe file.")
    ],
    count: Annotated[int, typer.Option(metavar="N", help="Number of scenes.")],
    seed: Annotated[int, typer.Option(metavar="S", help="Equal seeds give equal bytes.")] = 0,
    size: Annotated[
        int | None,
        typer.Option(metavar="PX", help="Side of the images and labels. [default: the recipe's]"),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also save DIR/000000_image.tif, DIR/000000_labels.tif …"),
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Render scenes with exact labels into a dataset."""
    session = open_session(server, data, as_json, quiet)
    source = recipe_source(recipe)
    check_at_least("--count", "dataset.image_count", count, 1)
    if size is not None:
        check_at_least("--size", "dataset.size_px", size, 1)
    if export is not None:
        prepare_out(export)
    with session.client() as client:
        job = client.render(source, count=count, seed=seed, size_px=size or 0)
        dataset = session.reporter.follow(job, "Rendering")
        if export is not None:
            session.download(client, export_files(dataset, export))
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


def recipe_source(text: str, base: Path | None = None) -> str | Recipe:
    """A preset's name, or the recipe in the file that the text names.

    Parameters
    ----------
    text : str
        What ends like a YAML or JSON file, or holds a slash, is a file.
    base : Path, optional
        Folder against which relative paths are read; the working directory by default.
    """
    if text.lower().endswith(_RECIPE_ENDINGS) or "/" in text:
        return load_recipe(base / text if base else Path(text))
    return text


def export_files(dataset: Dataset, folder: Path) -> list[tuple[Artifact | str, Path]]:
    """Artifacts of a dataset and the files they become."""
    files: list[tuple[Artifact | str, Path]] = []
    for index, (image, labels) in enumerate(zip(dataset.images, dataset.labels, strict=True)):
        files.append((image, folder / f"{index:06d}_image.tif"))
        files.append((labels, folder / f"{index:06d}_labels.tif"))
    return files


def check_at_least(option: str, field: str, value: int, least: int) -> None:
    """Refuse a number that is too small.

    Raises
    ------
    UsageError
        Names the option.
    """
    if value < least:
        text = f"is {value}; give a whole number of {least} or more"
        raise UsageError(
            f"{option} {text}.", reason="FIELD_INVALID", violations=[FieldViolation(field, text)]
        )
