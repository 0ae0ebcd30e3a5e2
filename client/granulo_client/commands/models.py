# SPDX-License-Identifier: Apache-2.0
"""`granulo models list|show|promote`."""

from typing import Annotated

import typer

from granulo_client import names
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    ServerOption,
    open_session,
)
from granulo_client.commands.train import version_document
from granulo_client.errors import NotFoundError

app = typer.Typer(
    help="Trained models and which of their versions is served.", no_args_is_help=True
)

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
            model.serving_version.rsplit("/", 1)[-1] or "none",
            ", ".join(version.name.rsplit("/", 1)[-1] for version in versions[model.name]),
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
            document = version_document(client.model_version(model))
        else:
            found = client.model(model)
            document = {
                "model": found.name,
                "serving_version": found.serving_version or None,
                "versions": [version_document(item) for item in client.model_versions(model)],
            }
    lines = [
        f"{key}: {value}"
        for key, value in document.items()
        if key != "versions" and (value is not None or key == "serving_version")
    ]
    for version in document.get("versions", []):
        metrics = ", ".join(f"{key} {value:.3f}" for key, value in version["metrics"].items())
        told = metrics or version["failure"] or "no figures yet"
        kind = version["preset"] or version["state"]
        lines.append(f"  {version['model_version']} ({kind}): {told}")
    session.show(document, lines)


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
