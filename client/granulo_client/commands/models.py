# SPDX-License-Identifier: Apache-2.0
"""`granulo models list|show|promote|rollback|export`."""

from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from granulo.trainer.v1.trainer_service_pb2 import ModelVersion
from granulo_client import names
from granulo_client.client import Client
from granulo_client.commands.security import App
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    ServerOption,
    open_session,
    prepare_out,
)
from granulo_client.commands.train import version_document
from granulo_client.errors import FailedPreconditionError, NotFoundError

app = App(help="Trained models and which of their versions is served.", no_args_is_help=True)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL[/VERSION]")]


@app.command("list")
def list_models(
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the models."""
    session = open_session(server, data, as_json, quiet)
    with session.client() as client:
        models = client.models()
        versions = {model.name: client.model_versions(model.name) for model in models}
    document = {
        "models": [
            {
                "model": model.name,
                "serving_version": model.serving_version or None,
                "versions": [version.name for version in versions[model.name]],
            }
            for model in models
        ]
    }
    rows = [
        [
            model.name.removeprefix("models/"),
            _number(model.serving_version, model.name) or "none",
            ", ".join(_number(version.name, model.name) for version in versions[model.name]),
        ]
        for model in models
    ]
    session.show_table(document, ["MODEL", "SERVED", "VERSIONS"], rows)


@app.command("show")
def show_model(
    model: ModelArgument,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show a model with its versions, or one version."""
    session = open_session(server, data, as_json, quiet)
    is_version = names.model_or_version(model).count("/") == 3
    with session.client() as client:
        if is_version:
            document = _details(client, client.model_version(model))
        else:
            found = client.model(model)
            document = {
                "model": found.name,
                "serving_version": found.serving_version or None,
                "versions": [_details(client, item) for item in client.model_versions(model)],
            }
    hidden = ("versions", "tuning")
    lines = [
        f"{key}: {_shown(value)}"
        for key, value in document.items()
        if key not in hidden and (value is not None or key == "serving_version")
    ]
    for version in document.get("versions", []):
        metrics = ", ".join(f"{key} {value:.3f}" for key, value in version["metrics"].items())
        told = metrics or version["failure"] or "no figures yet"
        kind = version["preset"] or version["state"]
        lines.append(f"  {version['model_version']} ({kind}): {told}")
    session.show(document, lines)


def _details(client: Client, version: ModelVersion) -> dict[str, Any]:
    """A version as plain values, with what only its manifest says."""
    facts = client.manifest(version.manifest)["facts"] if version.HasField("manifest") else {}
    return {
        **version_document(version),
        "thresholds": facts.get("instances"),
        "tuning": facts.get("tuning"),
        "model_card": version.model_card.uri or None,
        "failure": version.failure or None,
    }


def _shown(value: object) -> str:
    """A value for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item is not None)
    return "none" if value is None else str(value)


def _number(version: str, model: str) -> str:
    """``3`` for a version of the model, ``other/3`` for one of another that stands in for it."""
    prefix = f"{model}/versions/"
    if version.startswith(prefix):
        return version.removeprefix(prefix)
    return version.removeprefix("models/").replace("/versions/", "/")


@app.command("promote")
def promote_model(
    model: ModelArgument,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Serve a version of a model; without a VERSION its newest one."""
    session = open_session(server, data, as_json, quiet)
    name = names.model_or_version(model)
    with session.client() as client:
        if name.count("/") == 1:
            versions = client.model_versions(name)
            if not versions:
                raise NotFoundError(
                    f"{name} has no version to promote. `granulo models list` shows what exists."
                )
            name = max((item.name for item in versions), key=lambda n: int(n.rsplit("/", 1)[-1]))
        promoted = client.promote(name)
    session.show(
        {"model": promoted.name, "serving_version": promoted.serving_version},
        [f"{promoted.name} now serves {promoted.serving_version}"],
    )


@app.command("rollback")
def roll_back_model(
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Serve again what was served before the last promotion; once more goes further back."""
    session = open_session(server, data, as_json, quiet)
    with session.client() as client:
        found = client.rollback(model)
    session.show(
        {"model": found.name, "serving_version": found.serving_version},
        [f"{found.name} serves {found.serving_version} again"],
    )


@app.command("export")
def export_model(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files.")],
    file_format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="saved-model or onnx.")
    ] = "saved-model",
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a version's files for use outside of Granulo; without a VERSION the served one."""
    session = open_session(server, data, as_json, quiet)
    names.export_format(file_format)
    name = names.model_or_version(model)
    prepare_out(out)
    with session.client() as client:
        if name.count("/") == 1:
            name = client.model(name).serving_version
            if not name:
                raise FailedPreconditionError(
                    f"{model} serves no version. Name one as MODEL/VERSION; `granulo models list` "
                    "shows what exists."
                )
        job = client.export_model(name, file_format)
        files = session.reporter.follow(job, "Exporting").files
        targets = [out.joinpath(*PurePosixPath(item.display_name).parts) for item in files]
        session.download(client, list(zip(files, targets, strict=True)))
    session.show(
        {"model_version": name, "format": file_format, "files": [str(path) for path in targets]},
        [f"{name} as {file_format}: {len(targets)} files in {out}"],
    )
