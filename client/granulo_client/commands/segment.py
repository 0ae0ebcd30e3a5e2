# SPDX-License-Identifier: Apache-2.0
"""`granulo segment`."""

import os
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from granulo.segmenter.v1.segmenter_service_pb2 import SegmentationOptions, SegmentationOutputs
from granulo_client import names
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    ModelOption,
    PixelSizeOption,
    QuietOption,
    ServerOption,
    Session,
    check_pixel_size,
    image_files,
    open_session,
    prepare_out,
)
from granulo_client.errors import UsageError, from_status
from granulo_client.results import by_image, segmentation_files, segmented_documents, unique_stems
from granulo_client.standalone import read_lock

_Number = TypeVar("_Number", int, float)


def segment(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Micrographs.")],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder for DIR/<stem>_labels.tif and the other files."),
    ],
    model: ModelOption = "",
    method: Annotated[
        str,
        typer.Option(
            metavar="default|paper",
            help="default: instances from the network's distance output; paper: threshold 0.51, "
            "area opening, distance-transform watershed.",
        ),
    ] = "default",
    pixel_size: PixelSizeOption = None,
    invert: Annotated[
        str,
        typer.Option(
            metavar="auto|yes|no",
            help="Whether particles are darker than the ground; auto finds out for every image.",
        ),
    ] = "auto",
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Probability above which a pixel is foreground. [default: the model's]",
        ),
    ] = None,
    min_area: Annotated[
        float | None,
        typer.Option(metavar="PX", help="Smaller particles are dropped. [default: the model's]"),
    ] = None,
    dynamics: Annotated[
        float | None,
        typer.Option(
            metavar="H",
            help="Depth that divides touching particles: of the normalised distance, 0 to 1; in "
            "pixels with --method paper. [default: the model's]",
        ),
    ] = None,
    flips: Annotated[
        bool, typer.Option("--flips", help="Average over flips: slower, a little better.")
    ] = False,
    tile_px: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Largest side of the network's tiles. [default: the model's]"
        ),
    ] = None,
    overlay: Annotated[
        bool,
        typer.Option(
            "--overlay/--no-overlay", help="Write the particles' outlines over the image."
        ),
    ] = True,
    rois: Annotated[
        bool, typer.Option("--roi", help="Write the outlines as ImageJ's regions of interest.")
    ] = False,
    coco: Annotated[bool, typer.Option("--coco", help="Write COCO's JSON with scores.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write the network's outputs as float16 TIFF.")
    ] = False,
    model_server: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="HOST:PORT of a TensorFlow Serving that the standalone is to use. "
            "[default: its own]",
        ),
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find the particles in micrographs and save them as label images."""
    session = open_session(server, data, as_json, quiet)
    names.method(method)
    options = SegmentationOptions(
        tile_px=_positive("--tile-px", tile_px),
        foreground_threshold=_positive("--threshold", threshold),
        min_area_px=_positive("--min-area", min_area),
        dynamics=_positive("--dynamics", dynamics),
        test_time_flips=flips,
        polarity=names.polarity(invert),
    )
    outputs = SegmentationOutputs(
        no_overlay=not overlay, rois=rois, coco=coco, probabilities=probabilities
    )
    check_pixel_size(pixel_size)
    image_files(images)
    _use_model_server(session, model_server)
    prepare_out(out)
    stems = unique_stems([path.name for path in images])
    with session.client() as client:
        uploaded = session.upload(client, images, "segmenter")
        job = client.segment(
            uploaded,
            model=model,
            method=method,
            pixel_size_nm=pixel_size,
            options=options,
            outputs=outputs,
        )
        done = session.reporter.follow(job, "Segmenting")
        results = by_image(done.results, uploaded)
        session.download(client, segmentation_files(results, stems, out))
    documents = segmented_documents(results, [str(path) for path in images], stems, out)
    failures = [from_status(status) for status in job.progress.partial_failures]
    session.show(
        {
            "segmentation": done.name,
            "model_version": done.resolved_model_version,
            "operation": job.name,
            "out": str(out),
            "results": documents,
            "failures": [failure.to_dict() for failure in failures],
        },
        [
            f"{item['labels']}: {item['particle_count']} particles"
            + (" (dark on bright ground)" if item["inverted"] else "")
            for item in documents
            if item["labels"]
        ],
    )
    if failures:
        failures[0].in_document = True
        raise failures[0]


def _positive(option: str, value: _Number | None) -> _Number:
    """Return what is sent: zero means the model's own value."""
    if value is not None and not value > 0:
        raise UsageError(f"{option} is {value:g}; give a number above 0, or leave it out.")
    return 0 if value is None else value


def _use_model_server(session: Session, address: str | None) -> None:
    """Let the standalone that this command starts use another model server."""
    if address is None:
        return
    if session.server:
        raise UsageError(
            "--model-server is for the standalone; running services have one of their own "
            "(GRANULO_MODEL_SERVER where they are started)."
        )
    if read_lock(session.data_dir.expanduser().absolute()) is not None:
        raise UsageError(
            f"The standalone on {session.data_dir} runs already, with a model server of its own; "
            "stop it, or name another folder with --data."
        )
    os.environ["GRANULO_MODEL_SERVER"] = address
