# SPDX-License-Identifier: Apache-2.0
"""`granulo train`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from granulo.trainer.v1.trainer_service_pb2 import Criterion, ModelVersion, Selection
from granulo_client.artifacts import check_readable
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    ServerOption,
    check_at_least,
    open_session,
)
from granulo_client.errors import UsageError

DEFAULT_MODEL = "particles"


def train(
    datasets: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET...",
            help="Rendered datasets, by id or name, and annotated ones as annotated/NAME.",
        ),
    ],
    preset: Annotated[
        str,
        typer.Option(help="Network: small, base or paper. [default: that of --base, else small]"),
    ] = "",
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Epochs. [default: the preset's]")
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="IMAGE[,LABELS]",
            help="Predict this micrograph after every epoch, and score it where labels are given; "
            "it is never trained on. May be given several times.",
        ),
    ] = None,
    name: Annotated[str, typer.Option(metavar="MODEL", help="Name of the model.")] = DEFAULT_MODEL,
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
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of the training.")] = 0,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET=W",
            help="Share of the patches from this dataset, relative to the others (1 where one is "
            "not named). May be given several times. [default: by the numbers of images]",
        ),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="End after so many steps, where epochs do not before."),
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(metavar="T", help="End after so many minutes, where epochs do not before."),
    ] = None,
    early_stopping: Annotated[
        int | None,
        typer.Option(metavar="N", help="End after N epochs in a row without a better figure."),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(help="auto, float32, mixed_bfloat16 or mixed_float16."),
    ] = "auto",
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic", help="The same weights bit by bit, interrupted or not; slower."
        ),
    ] = False,
    base: Annotated[
        str,
        typer.Option(
            "--base",
            "--base-version",
            metavar="MODEL[/VERSION]",
            help="Begin with the weights of this version (fine-tuning), e.g. default.",
        ),
    ] = "",
    width: Annotated[
        float | None,
        typer.Option(
            metavar="F",
            help="Factor on the numbers of feature maps. [default: that of --base, else 1]",
        ),
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train one version of a model on datasets; `granulo models promote` serves it."""
    session = open_session(server, data, as_json, quiet)
    pairs = [_validation_pair(text) for text in validation or []]
    weights = dict(_weight(text) for text in weight or [])
    for option, field, value in (
        ("--epochs", "epochs", epochs),
        ("--steps-per-epoch", "steps_per_epoch", steps_per_epoch),
        ("--batch-size", "batch_size", batch_size),
        ("--patch", "patch_px", patch),
        ("--max-steps", "max_steps", max_steps),
        ("--early-stopping", "early_stopping_epochs", early_stopping),
    ):
        if value is not None:
            check_at_least(option, f"model_version.config.{field}", value, 1)
    with session.client() as client:
        job = client.train(
            datasets,
            model=name,
            preset=preset or ("" if base else "small"),
            epochs=epochs or 0,
            steps_per_epoch=steps_per_epoch or 0,
            batch_size=batch_size or 0,
            patch_px=patch or 0,
            learning_rate=learning_rate or 0.0,
            seed=seed,
            validation=session.upload_pairs(client, pairs, "trainer"),
            weights=weights,
            max_steps=max_steps or 0,
            max_minutes=max_minutes or 0.0,
            early_stopping_epochs=early_stopping or 0,
            precision="" if precision == "auto" else precision,
            deterministic=deterministic,
            base_version=base,
            width=width or 0.0,
        )
        version = session.reporter.follow(job, "Training")
    if job.progress.message:
        session.reporter.note(job.progress.message)
    short = version.name.removeprefix("models/").replace("/versions/", "/")
    metrics = ", ".join(f"{key} {value:.3f}" for key, value in sorted(version.metrics.items()))
    session.show(
        {**version_document(version), "operation": job.name},
        [f"{version.name}: {metrics}", f"serve it with: granulo models promote {short}"],
    )


def version_document(version: ModelVersion) -> dict[str, Any]:
    """A model version as plain values."""
    config = version.config
    return {
        "model": version.name.rsplit("/versions/", 1)[0],
        "model_version": version.name,
        "state": ModelVersion.State.Name(version.state).removeprefix("STATE_"),
        "preset": config.preset,
        "datasets": list(config.datasets),
        "epochs": config.epochs,
        "parameter_count": version.parameter_count or None,
        "weights_digest": version.weights_digest,
        "base_version": config.base_version or None,
        "failure": version.failure or None,
        "metrics": dict(sorted(version.metrics.items())),
        "selection": selection_document(version.selection)
        if version.HasField("selection")
        else None,
    }


def selection_document(selection: Selection) -> dict[str, Any]:
    """How a version's checkpoint was chosen, as plain values."""
    return {
        "criterion": Criterion.Name(selection.criterion).removeprefix("CRITERION_"),
        "checkpoint": selection.checkpoint,
        "selected_by": selection.selected_by or None,
        "reason": selection.reason or None,
        "averaged_epochs": selection.averaged_epochs,
    }


def _validation_pair(text: str) -> tuple[Path, Path | None]:
    image, comma, labels = text.partition(",")
    if not image or (comma and not labels) or "," in labels:
        raise UsageError(f"--validation {text!r}: give IMAGE or IMAGE,LABELS.")
    check_readable(Path(image))
    return Path(image), check_readable(Path(labels)) if labels else None


def _weight(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        weight = float(number)
    except ValueError:
        weight = -1.0
    if not name or not 0 <= weight < float("inf"):
        raise UsageError(f"--weight {text!r}: give DATASET=W with a number of 0 or more.")
    return name, weight
