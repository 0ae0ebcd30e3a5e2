# SPDX-License-Identifier: Apache-2.0
"""`granulo cross-validate`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from granulo.trainer.v1.trainer_service_pb2 import CrossValidation, TrainingConfig
from granulo_client import names
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    ServerOption,
    check_at_least,
    open_session,
)

_COLUMNS = (
    ("dsc", "DSC"),
    ("ap50", "AP50"),
    ("ap75", "AP75"),
    ("count_error", "count error"),
    ("loss", "loss"),
)


def cross_validate(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Annotated dataset, by id or name.")
    ],
    folds: Annotated[
        int | None,
        typer.Option(metavar="K", help="Number of folds. [default: leave out one image at a time]"),
    ] = None,
    preset: Annotated[str, typer.Option(help="Network: small, base or paper.")] = "small",
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Epochs of every fold. [default: the preset's]")
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET",
            help="Train every fold on this dataset besides. May be given several times.",
        ),
    ] = None,
    steps_per_epoch: Annotated[
        int | None, typer.Option(metavar="N", help="Steps per epoch. [default: the preset's]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Patches per step. [default: the preset's]")
    ] = None,
    patch: Annotated[
        int | None, typer.Option(metavar="PX", help="Side of a patch. [default: the preset's]")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate. [default: the preset's]")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of folds and trainings.")] = 0,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train for every fold of annotated images and score the images left out."""
    session = open_session(server, data, as_json, quiet)
    for option, field, value, least in (
        ("--folds", "folds", folds, 2),
        ("--epochs", "config.epochs", epochs, 1),
        ("--steps-per-epoch", "config.steps_per_epoch", steps_per_epoch, 1),
        ("--batch-size", "config.batch_size", batch_size, 1),
        ("--patch", "config.patch_px", patch, 1),
    ):
        if value is not None:
            check_at_least(option, f"cross_validation.{field}", value, least)
    config = TrainingConfig(
        datasets=[names.dataset(name) for name in also or []],
        preset=preset,
        epochs=epochs or 0,
        steps_per_epoch=steps_per_epoch or 0,
        batch_size=batch_size or 0,
        patch_px=patch or 0,
        learning_rate=learning_rate or 0.0,
        seed=seed,
    )
    with session.client() as client:
        job = client.cross_validate(dataset, folds=folds or 0, config=config)
        done = session.reporter.follow(job, "Cross-validating")
        # The message has means over folds; what each image scored is in the manifest.
        scored = client.manifest(done.manifest)["facts"]["folds"]
    document = {**cross_validation_document(done, scored), "operation": job.name}
    session.show_table(document, *cross_validation_table(done, scored))
    if not as_json:
        session.show({}, [f"{done.name} (each fold at the epoch of the lowest loss on its images)"])


def cross_validation_document(
    done: CrossValidation, folds: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A cross-validation as plain values."""
    return {
        "cross_validation": done.name,
        "dataset": done.dataset,
        "preset": done.config.preset,
        "metrics": dict(sorted(done.metrics.items())),
        "images": [
            {
                "image": image["name"],
                "fold": number,
                "epoch": fold["epoch"],
                "metrics": dict(sorted(image["metrics"].items())),
            }
            for number, fold in enumerate(folds, 1)
            for image in fold["images"]
        ],
    }


def cross_validation_table(
    done: CrossValidation, folds: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: every image, then mean and standard deviation over the images."""
    rows = [
        [image["name"], str(number), str(fold["epoch"])]
        + [f"{image['metrics'][key]:.3f}" for key, _ in _COLUMNS]
        for number, fold in enumerate(folds, 1)
        for image in fold["images"]
    ]
    for title, ending in (("mean", ""), ("std. deviation", "_stddev")):
        rows.append([title, "", ""] + [f"{done.metrics[key + ending]:.3f}" for key, _ in _COLUMNS])
    return ["IMAGE", "FOLD", "EPOCH", *(title for _, title in _COLUMNS)], rows
