# SPDX-License-Identifier: Apache-2.0
"""`granulo recipes list|show|check|compare`."""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from granulo.render.v1.render_service_pb2 import ProfileLine, RecipeComparison
from granulo_client.commands.profiles import profile_ends
from granulo_client.commands.security import App
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    ServerOption,
    check_at_least,
    image_files,
    open_session,
    prepare_file,
)
from granulo_client.errors import NotFoundError, UnavailableError
from granulo_client.files import write_whole
from granulo_client.progress import show_progress
from granulo_client.recipe_summary import summary_document, summary_lines
from granulo_client.recipe_text import recipe_document, recipe_yaml
from granulo_client.recipes import recipe_source

app = App(help="Recipes: what `granulo render` shows.", no_args_is_help=True)

RecipeArgument = Annotated[
    str, typer.Argument(metavar="PRESET|RECIPE.yaml", help="A preset's name or a recipe file.")
]


@app.command("list")
def list_recipes(
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the presets."""
    session = open_session(server, data, as_json, quiet)
    with session.client() as client:
        presets = client.presets()
    document = {"presets": [{"preset": i.id, "description": i.description} for i in presets]}
    rows = [[item.id, item.description] for item in presets]
    session.show_table(document, ["PRESET", "DESCRIPTION"], rows)


@app.command("show")
def show_recipe(
    preset: Annotated[str, typer.Argument(metavar="PRESET")],
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print a preset as a recipe file to start from: granulo recipes show sio2 > mine.yaml."""
    session = open_session(server, data, as_json, quiet)
    with session.client() as client:
        presets = {item.id: item for item in client.presets()}
    if preset not in presets:
        raise NotFoundError(f"{preset!r} is no preset; there are {', '.join(sorted(presets))}.")
    found = presets[preset]
    if as_json:
        session.show(recipe_document(found.recipe), [])
    else:
        sys.stdout.write(recipe_yaml(found.recipe, f"{found.id}: {found.description}"))


@app.command("check")
def check_recipe(
    recipe: RecipeArgument,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check a recipe and tell what it amounts to; renders nothing."""
    session = open_session(server, data, as_json, quiet)
    source = recipe_source(recipe)
    with session.client() as client, source.located():
        checked = client.check_recipe(source.recipe)
    summary = summary_document(checked)
    session.show(
        {**summary, "recipe": recipe_document(checked)},
        [f"{recipe} can be rendered.", *summary_lines(summary)],
    )


@app.command("compare")
def compare_recipe(
    recipe: RecipeArgument,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Reference micrographs, at most 32.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="SHEET.png", help="Pairs side by side, profiles and spectra.")
    ],
    frames: Annotated[
        int, typer.Option(metavar="N", help="Rendered frames to compare with, 1 to 16.")
    ] = 4,
    seed: Annotated[int, typer.Option(metavar="S", help="Equal seeds give equal frames.")] = 0,
    size: Annotated[
        int, typer.Option(metavar="PX", help="Side of the rendered frames, at most 1024.")
    ] = 512,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1",
            help="Line of the intensity profile, in pixels from the upper left corner. "
            "[default: the horizontal middle line]",
        ),
    ] = None,
    curves: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Also save profiles, grey levels and spectra."),
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare rendered frames of a recipe with your own micrographs; stores nothing."""
    session = open_session(server, data, as_json, quiet)
    source = recipe_source(recipe)
    check_at_least("--frames", "frame_count", frames, 1)
    check_at_least("--size", "size_px", size, 1)
    line = None if profile is None else _profile_line(profile)
    image_files(images)
    for path in (out, curves):
        if path is not None:
            prepare_file(path)
    comparison = RecipeComparison()
    with session.client() as client:
        uploaded = session.upload(client, images, "render")
        with session.reporter.stage("Comparing") as stage, source.located():
            for answer in client.compare_recipe(
                source.recipe, uploaded, frames=frames, seed=seed, size_px=size, profile=line
            ):
                if answer.HasField("comparison"):
                    comparison = answer.comparison
                else:
                    show_progress(answer.progress, stage)
    if not comparison.sheet_png:
        raise UnavailableError("The server ended the comparison without a result. Try again.")
    with write_whole(out) as file:
        file.write(comparison.sheet_png)
    if curves is not None:
        with write_whole(curves) as file:
            file.write(curves_csv(comparison).encode())
    document: dict[str, Any] = {
        "grey_level_distance": comparison.grey_level_distance,
        "spectrum_distance_db": comparison.spectrum_distance_db,
        "feature_distance": comparison.feature_distance,
        "feature_distance_ratio": comparison.feature_distance_ratio,
        "sheet": str(out),
        "curves": None if curves is None else str(curves),
    }
    session.show(
        document,
        [
            f"grey levels: {comparison.grey_level_distance:.3f} of the full range apart",
            f"spectra: {comparison.spectrum_distance_db:.1f} dB apart",
            f"texture: {comparison.feature_distance_ratio:.1f} x the difference among references",
            f"sheet: {out}",
            *([f"curves: {curves}"] if curves is not None else []),
        ],
    )


def curves_csv(comparison: RecipeComparison) -> str:
    """All curves of a comparison as one table with the columns curve, label, x and y."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["curve", "label", "x", "y"])
    rows.writerows(_curve_rows(comparison))
    return text.getvalue()


def _curve_rows(comparison: RecipeComparison) -> Iterator[tuple[str, str, str, str]]:
    for name, found in (
        ("profile", comparison.profiles),
        ("grey_levels", comparison.grey_levels),
        ("spectrum", comparison.spectra),
    ):
        for curve in found:
            for x, y in zip(curve.x, curve.y, strict=True):
                yield name, curve.label, f"{x:.6g}", f"{y:.6g}"


def _profile_line(text: str) -> ProfileLine:
    x0, y0, x1, y1 = profile_ends(text)
    return ProfileLine(x0_px=x0, y0_px=y0, x1_px=x1, y1_px=y1)
