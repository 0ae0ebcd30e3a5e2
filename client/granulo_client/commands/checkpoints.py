# SPDX-License-Identifier: Apache-2.0
"""`granulo checkpoints list|rank|select`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from granulo.trainer.v1.trainer_service_pb2 import Checkpoint, Criterion, RankedCheckpoint
from granulo_client import names
from granulo_client.commands.security import App
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    ServerOption,
    open_session,
    prepare_file,
)
from granulo_client.commands.train import version_document
from granulo_client.errors import UsageError

app = App(help="Checkpoints of a training, one an epoch: look, rank, choose.", no_args_is_help=True)

# Figures by which checkpoints are ranked, by column; docs/selection.md explains them.
_FIGURES = {
    "AP50": "validation_ap50",
    "F1": "validation_dsc",
    "LABEL-FREE": "label_free",
    "HELD-OUT": "heldout_ap50",
    "LOSS": "loss",
}
_RANKED_BY = {
    Criterion.CRITERION_AP50: "validation_ap50",
    Criterion.CRITERION_F1: "validation_dsc",
    Criterion.CRITERION_LABEL_FREE: "label_free",
    Criterion.CRITERION_HELD_OUT_AP50: "heldout_ap50",
}

VersionArgument = Annotated[str, typer.Argument(metavar="MODEL/VERSION")]


@app.command("list")
def list_checkpoints(
    version: VersionArgument,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the checkpoints of a version with their figures, also while it trains."""
    session = open_session(server, data, as_json, quiet)
    name = names.model_version(version)
    with session.client() as client:
        found = client.checkpoints(name)
    session.show_table(
        {"model_version": name, "checkpoints": [_document(item) for item in found]},
        ["EPOCH", *_FIGURES],
        [_row(item) for item in found],
    )


@app.command("rank")
def rank_checkpoints(
    version: VersionArgument,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(names.CRITERIA),
            help="What to rank by. [default: the first of ap50, label-free and last that the "
            "version has figures for]",
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Also save a page with the predictions of all epochs side by side, to pick from.",
        ),
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Rank the checkpoints of a version, best first, and say why; changes nothing."""
    session = open_session(server, data, as_json, quiet)
    name = names.model_version(version)
    if by is not None:
        names.criterion(by)
    if page is not None:
        prepare_file(page)
    with session.client() as client:
        answer = client.rank_checkpoints(name, by=by or "", page=page is not None)
        if page is not None:
            session.download(client, [(answer.page, page)])
    document = {
        "model_version": name,
        "criterion": Criterion.Name(answer.criterion).removeprefix("CRITERION_"),
        "ranking": [
            {
                **_document(item.checkpoint),
                "score": item.score if _has_score(item, answer.criterion) else None,
                "parts": dict(sorted(item.parts.items())),
                "explanation": item.explanation,
            }
            for item in answer.ranking
        ],
        "page": None if page is None else str(page),
    }
    if page is not None:
        session.reporter.note(f"open {page} in a browser to compare the predictions")
    rows = [[*_row(item.checkpoint), item.explanation] for item in answer.ranking]
    session.show_table(document, ["EPOCH", *_FIGURES, "WHY"], rows)


@app.command("select")
def select_checkpoint(
    checkpoint: Annotated[str, typer.Argument(metavar="MODEL/VERSION/EPOCH")],
    by: Annotated[str, typer.Option(metavar="NAME", help="Who chooses.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why this checkpoint.")],
    average: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Mean of the weights of the last N epochs up to this one."
        ),
    ] = 1,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a new version of a checkpoint that you chose; works for failed trainings too."""
    session = open_session(server, data, as_json, quiet)
    name = names.checkpoint(checkpoint)
    for option, text in (("--by", by), ("--reason", reason)):
        if not text.strip():
            raise UsageError(f"{option} is empty; it is kept with the version.")
    with session.client() as client:
        job = client.select_checkpoint(name, selected_by=by, reason=reason, averaged_epochs=average)
        version = session.reporter.follow(job, "Exporting")
    short = version.name.removeprefix("models/").replace("/versions/", "/")
    source, epoch = name.split("/checkpoints/")
    chosen = version.selection
    session.show(
        {**version_document(version), "operation": job.name},
        [
            f"{version.name}: epoch {epoch} of {source}",
            f"chosen by {chosen.selected_by}: {chosen.reason}",
            f"serve it with: granulo models promote {short}",
        ],
    )


def _document(item: Checkpoint) -> dict[str, Any]:
    return {
        "checkpoint": item.name,
        "epoch": item.epoch,
        "metrics": dict(sorted(item.metrics.items())),
        "predictions": [
            {"image": artifact.display_name, "uri": artifact.uri} for artifact in item.predictions
        ],
    }


def _row(item: Checkpoint) -> list[str]:
    figures = item.metrics
    values = (f"{figures[name]:.3f}" if name in figures else "–" for name in _FIGURES.values())
    return [str(item.epoch), *values]


def _has_score(item: RankedCheckpoint, criterion: "Criterion.ValueType") -> bool:
    figure = _RANKED_BY.get(criterion)
    return figure is None or figure in item.checkpoint.metrics
