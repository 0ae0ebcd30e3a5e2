# SPDX-License-Identifier: Apache-2.0
"""`granulo up`."""

import os
from typing import Annotated

import typer

from granulo_client import standalone
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    open_session,
)
from granulo_client.errors import UsageError


def up(
    listen: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Address to answer at; port 0 takes a free one."),
    ] = "127.0.0.1:50050",
    # Without the environment variable, which may well be set for the other commands.
    server: Annotated[
        str | None,
        typer.Option("--server", metavar="ADDRESS", help="Refused: this starts the services."),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run all services on this machine until Ctrl-C.

    Other commands with the same --data join it; with --server they reach it from elsewhere.
    With --json the address is announced as one JSON document on standard output.
    """
    if server:
        raise UsageError("`granulo up` starts the services here; --server names running ones.")
    folder = open_session(server, data, as_json, quiet).data_dir.expanduser().absolute()
    arguments = ["--listen", listen]
    if as_json:
        arguments.append("--announce")
    if quiet:
        arguments.append("--quiet")
    words = standalone.command(folder, arguments)
    # Replaces this process: signals and exit codes need no passing on.
    os.execv(words[0], words)
