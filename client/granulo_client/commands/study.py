# SPDX-License-Identifier: Apache-2.0
"""`granulo study init|schema`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from granulo_client.commands.security import App
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    ServerOption,
    open_session,
)
from granulo_client.errors import UsageError

app = App(help="Study files for `granulo run`.", no_args_is_help=True)


@app.command("init")
def init_study(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("STUDY.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a commented study file."""
    from granulo_client.study import EXAMPLE

    session = open_session(server, data, as_json, quiet)
    if path.is_dir():
        path /= "STUDY.yaml"
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(EXAMPLE)
    except FileExistsError:
        raise UsageError(
            f"{path} exists; name another file, or overwrite it with --force."
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from error
    session.show({"study": str(path)}, [f"wrote {path}; run it with: granulo run {path}"])


@app.command("schema")
def study_schema(
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print the JSON schema of study files."""
    # pydantic, which only studies need, takes a third of a second to import.
    from granulo_client.study import json_schema

    del server, data, as_json, quiet
    sys.stdout.write(json_schema())
