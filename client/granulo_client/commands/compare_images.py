# SPDX-License-Identifier: Apache-2.0
"""`granulo compare-images`."""

from pathlib import Path
from typing import Annotated

import typer

from granulo.analyzer.v1.analyzer_service_pb2 import IntensityProfile
from granulo_client.artifacts import check_readable
from granulo_client.commands.profiles import profile_ends
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    ServerOption,
    check_at_least,
    open_session,
    prepare_out,
)
from granulo_client.errors import UsageError
from granulo_client.realism import comparison_document, comparison_files, comparison_lines
from granulo_client.truth import find_micrographs

_FEATURES = ("built-in", "vgg16")


def compare_images(
    real: Annotated[Path, typer.Argument(metavar="REAL_DIR", help="Folder with real micrographs.")],
    synthetic: Annotated[
        Path, typer.Argument(metavar="SYNTHETIC_DIR", help="Folder with rendered ones.")
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder for embedding.png, embedding.csv, profile.png."),
    ],
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1",
            help="Draw the grey levels along this line through the first image of each folder, in "
            "pixels from the upper left corner.",
        ),
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            metavar="built-in|vgg16", help="What describes a patch; vgg16 needs --weights."
        ),
    ] = "built-in",
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Keras' ImageNet weights of VGG16 with its top, an .h5 file."
        ),
    ] = None,
    patch: Annotated[int, typer.Option(metavar="PX", help="Side of the patches.")] = 144,
    max_patches: Annotated[
        int, typer.Option(metavar="N", help="Patches of each set, at most.")
    ] = 1000,
    seed: Annotated[
        int,
        typer.Option(metavar="S", help="Of the synthetic patches' places, map and intervals."),
    ] = 0,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Tell how much alike real and synthetic micrographs are: a map of patches, and figures."""
    session = open_session(server, data, as_json, quiet)
    check_at_least("--patch", "patch_px", patch, 24)
    check_at_least("--max-patches", "max_patches", max_patches, 8)
    check_at_least("--seed", "seed", seed, 0)
    if features not in _FEATURES:
        raise UsageError(f"--features {features!r}: known are {', '.join(_FEATURES)}.")
    if (features == "vgg16") != (weights is not None):
        raise UsageError("--features vgg16 and --weights FILE belong together; give both or none.")
    line = None
    if profile is not None:
        x0, y0, x1, y1 = profile_ends(profile)
        line = IntensityProfile(x0_px=x0, y0_px=y0, x1_px=x1, y1_px=y1)
    folders = [find_micrographs(folder) for folder in (real, synthetic)]
    files = [*folders[0], *folders[1], *([weights] if weights is not None else [])]
    for path in files:
        check_readable(path)
    prepare_out(out)
    with session.client() as client:
        uploaded = session.upload(client, files, "analyzer")
        first, second = (len(folder) for folder in folders)
        job = client.compare_image_sets(
            uploaded[:first],
            uploaded[first : first + second],
            vgg16_weights=uploaded[-1] if weights is not None else None,
            profile=line,
            patch_px=patch,
            max_patches=max_patches,
            seed=seed,
        )
        found = session.reporter.follow(job, "Comparing")
        session.download(client, comparison_files(found, out))
    session.show(comparison_document(found, out), comparison_lines(found, out))
