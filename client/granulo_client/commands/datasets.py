# SPDX-License-Identifier: Apache-2.0
"""`granulo datasets import|list|show`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from granulo.render.v1.render_service_pb2 import Dataset
from granulo.trainer.v1.trainer_service_pb2 import AnnotatedDataset
from granulo_client.client import Client
from granulo_client.commands.security import App
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    PixelSizeOption,
    QuietOption,
    ServerOption,
    check_pixel_size,
    open_session,
)
from granulo_client.errors import NotFoundError, UsageError
from granulo_client.results import pixel_size
from granulo_client.truth import find_labels

app = App(
    help="Datasets: rendered ones, and annotated micrographs to train on or to cross-validate.",
    no_args_is_help=True,
)


@app.command("import")
def import_dataset(
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES_DIR", help="Folder with micrographs X.tif, X.png, …")
    ],
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS_DIR",
            help="Folder with their labels: X_labels.tif, X_labels.png, X_m.tif (binary, one "
            "particle per 4-connected component), X.png or X.tif, the first that exists.",
        ),
    ],
    name: Annotated[str, typer.Option(metavar="N", help="Name of the dataset.")],
    pixel_size_nm: PixelSizeOption = None,
    content_height: Annotated[
        int,
        typer.Option(
            metavar="PX",
            help="Leave out rows from here on, e.g. a data bar. [default: bars that are found]",
        ),
    ] = 0,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Import micrographs with instance labels as a dataset."""
    session = open_session(server, data, as_json, quiet)
    check_pixel_size(pixel_size_nm)
    if content_height < 0:
        raise UsageError(f"--content-height is {content_height}; give a number of rows, or 0.")
    pairs = find_labels(images, labels)
    with session.client() as client:
        uploaded = session.upload_pairs(client, pairs, "trainer")
        with session.reporter.stage("Checking and importing"):
            dataset = client.import_dataset(
                [(image, truth) for image, truth in uploaded if truth is not None],
                dataset_id=name.removeprefix("annotated/"),
                pixel_size_nm=pixel_size_nm,
                content_height_px=content_height,
            )
    session.show(
        annotated_document(dataset),
        [
            f"{dataset.name}: {len(dataset.images)} images, {dataset.particle_count} particles",
            f"train on it with: granulo train {dataset.name}",
        ],
    )


@app.command("list")
def list_datasets(
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the rendered and the annotated datasets."""
    session = open_session(server, data, as_json, quiet)
    with session.client() as client:
        annotated, rendered = client.annotated_datasets(), client.datasets()
    found: list[AnnotatedDataset | Dataset] = [*annotated, *rendered]
    found.sort(key=lambda item: item.create_time.ToNanoseconds())
    document = {
        "datasets": [
            {"dataset": item.name, "particle_count": item.particle_count} for item in found
        ]
    }
    rows = [
        [item.name, str(item.particle_count), f"{item.create_time.ToDatetime():%Y-%m-%d %H:%M}"]
        for item in found
    ]
    session.show_table(document, ["DATASET", "PARTICLES", "CREATED (UTC)"], rows)


@app.command("show")
def show_dataset(
    dataset: Annotated[str, typer.Argument(metavar="DATASET")],
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show a dataset, by id or name."""
    session = open_session(server, data, as_json, quiet)
    with session.client() as client:
        document = _document(client, dataset)
    shown = {key: value for key, value in document.items() if key != "images" and value is not None}
    lines = [f"{key}: {value}" for key, value in shown.items()]
    lines += [f"  {item['image']}, labels {item['labels']}" for item in document.get("images", [])]
    session.show(document, lines)


def annotated_document(dataset: AnnotatedDataset) -> dict[str, Any]:
    """An annotated dataset as plain values."""
    return {
        "dataset": dataset.name,
        "image_count": len(dataset.images),
        "particle_count": dataset.particle_count,
        "pixel_size_nm": pixel_size(dataset.pixel_size) if dataset.HasField("pixel_size") else None,
        "content_height_px": dataset.content_height_px or None,
        "images": [
            {"image": item.image.display_name, "labels": item.labels.display_name}
            for item in dataset.images
        ],
    }


def _document(client: Client, name: str) -> dict[str, Any]:
    """A dataset of either kind; an id alone is looked for among the annotated ones first."""
    if not name.startswith("datasets/"):
        try:
            return annotated_document(client.annotated_dataset(name))
        except NotFoundError:
            if name.startswith("annotated/"):
                raise
    return _rendered_document(client.dataset(name))


def _rendered_document(dataset: Dataset) -> dict[str, Any]:
    return {
        "dataset": dataset.name,
        "image_count": dataset.image_count,
        "particle_count": dataset.particle_count,
        "size_px": dataset.size_px,
        "seed": dataset.seed,
        "source": dataset.preset or "a recipe of its own",
    }
