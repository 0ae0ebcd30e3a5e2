# SPDX-License-Identifier: Apache-2.0
"""`granulo adapt`."""

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
    open_session,
    prepare_out,
)
from granulo_client.errors import UsageError
from granulo_client.truth import find_micrographs

_MINUTES = 3.0
_MOST_MINUTES = 24 * 60
_MOST = 2**31 - 1


def adapt(
    images: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder with micrographs of the material.")
    ],
    recipe: Annotated[
        str,
        typer.Option(metavar="RECIPE", help="A preset, or a recipe file that imitates them."),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder for the report, labels and overlays."),
    ],
    pixel_size: PixelSizeOption = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="M", help="Minutes of training. [default: 3]")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Steps of training, instead of minutes.")
    ] = None,
    scenes: Annotated[
        int,
        typer.Option(metavar="N", help="Rendered scenes of the material; half as many others."),
    ] = 24,
    size: Annotated[
        int | None,
        typer.Option(metavar="PX", help="Side of the scenes. [default: the recipe's]"),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Of scenes and training.")] = 0,
    name: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Name of the model. [default: <recipe>-adapted]"),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with true labels of the images, X_labels.tif and so on, to measure with; "
            "nothing is trained or chosen on them.",
        ),
    ] = None,
    content_height: Annotated[
        int,
        typer.Option(
            metavar="PX", help="Leave out rows from here on of images and true labels. [default: 0]"
        ),
    ] = 0,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the default model further for a material, and tell what that gained.

    The same command again continues where the last one stopped.
    """
    # pydantic, which only studies need, takes a third of a second to import.
    from granulo_client.adaptation import plan
    from granulo_client.adaptation.run import AdaptRun, check_files

    session = open_session(server, data, as_json, quiet)
    check_pixel_size(pixel_size)
    if minutes is not None and steps is not None:
        raise UsageError("--minutes and --steps exclude each other; give one of them.")
    if minutes is not None and not 0 < minutes <= _MOST_MINUTES:
        raise UsageError(f"--minutes is {minutes:g}; give more than 0 and at most {_MOST_MINUTES}.")
    for option, value, least, most in (
        ("--steps", steps, 1, 1_000_000),
        ("--scenes", scenes, 2, 10_000),
        ("--size", size, 64, 4096),
        ("--content-height", content_height, 0, _MOST),
        ("--seed", seed, 0, _MOST),
    ):
        if value is not None and not least <= value <= most:
            raise UsageError(f"{option} is {value}; give a whole number from {least} to {most}.")
    asked = plan.Adaptation(
        images=tuple(path.absolute() for path in find_micrographs(images)),
        recipe=recipe,
        model=name or plan.model_name(recipe),
        scenes=scenes,
        minutes=None if steps else minutes or _MINUTES,
        steps=steps,
        seed=seed,
        pixel_size_nm=pixel_size,
        size_px=size,
        truth=truth,
        content_height_px=content_height,
    )
    check_files(asked)
    prepare_out(out)
    with session.client() as client:
        run = AdaptRun(session, client, asked, out.absolute())
        report = run.run()
    session.show({**report.document(), "out": str(out)}, run.lines(report))
