# SPDX-License-Identifier: Apache-2.0
"""`granulo segment`."""

from pathlib import Path
from typing import Annotated

import typer

from granulo.segmenter.v1.segmenter_service_pb2 import SegmentationOptions
from granulo_client import names
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    ModelOption,
    PixelSizeOption,
    QuietOption,
    ServerOption,
    check_pixel_size,
    image_files,
    open_session,
    prepare_out,
)
from granulo_client.errors import from_status
from granulo_client.results import segmentation_files, segmented_document, unique_stems


def segment(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Micrographs.")],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder for DIR/<stem>_labels.tif, <stem>_overlay.png."),
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
    flips: Annotated[
        bool, typer.Option("--flips", help="Average over flips: slower, a little better.")
    ] = False,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find the particles in micrographs and save them as label images."""
    session = open_session(server, data, as_json, quiet)
    names.method(method)
    check_pixel_size(pixel_size)
    image_files(images)
    prepare_out(out)
    stems = unique_stems([path.name for path in images])
    with session.client() as client:
        job = client.segment(
            session.upload(client, images, "segmenter"),
            model=model,
            method=method,
            pixel_size_nm=pixel_size,
            options=SegmentationOptions(test_time_flips=flips),
        )
        done = session.reporter.follow(job, "Segmenting")
        files = segmentation_files(client, done.manifest, done.results, stems, out)
        session.download(client, files)
    results = [
        segmented_document(result, str(image), stem, out)
        for result, image, stem in zip(done.results, images, stems, strict=True)
    ]
    failures = [from_status(status) for status in job.progress.partial_failures]
    session.show(
        {
            "segmentation": done.name,
            "model_version": done.resolved_model_version,
            "operation": job.name,
            "out": str(out),
            "results": results,
            "failures": [failure.to_dict() for failure in failures],
        },
        [
            f"{item['labels']}: {item['particle_count']} particles"
            for item in results
            if item["labels"]
        ],
    )
    if failures:
        raise failures[0]
