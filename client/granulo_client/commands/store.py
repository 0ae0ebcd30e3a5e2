# SPDX-License-Identifier: Apache-2.0
"""`granulo store gc`."""

import json
import os
import subprocess
import sys
from typing import Annotated, Any

import typer

from granulo_client.commands.security import App
from granulo_client.commands.session import DataOption, JsonOption, QuietOption, open_session
from granulo_client.errors import UnavailableError, UsageError

app = App(help="The object store of a data folder.", no_args_is_help=True)


@app.command("gc")
def collect(
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove it; otherwise it is listed only.")
    ] = False,
    older_than: Annotated[
        str,
        typer.Option(metavar="AGE", help="Younger objects stay, whatever they are: 12h, 7d, 4w."),
    ] = "7d",
    keep_operations: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Finished operations that are older go, too."),
    ] = None,
    # Without the environment variable, which may well be set for the other commands.
    server: Annotated[
        str | None,
        typer.Option("--server", metavar="ADDRESS", help="Refused: a server's store is its own."),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List, or remove, what the store of a data folder holds for nobody."""
    if server:
        raise UsageError(
            "The store of a server is collected where its credentials are: "
            "python -m granulo_core.gc (docs/operations/store.md)."
        )
    session = open_session(server, data, as_json, quiet)
    store = session.data_dir.expanduser().absolute() / "store"
    if not store.is_dir():
        raise UsageError(f"--data {session.data_dir} has no store; nothing was made there yet.")
    words = [sys.executable, "-m", "granulo_core.gc", "--older-than", older_than]
    words += ["--keep-operations", keep_operations] if keep_operations else []
    words += ["--delete"] if delete else []
    environment = {**os.environ, "GRANULO_STORE_URL": str(store)}
    done = subprocess.run(
        [*words, "--json"], env=environment, capture_output=True, text=True, check=False
    )
    if not done.stdout:
        said = done.stderr.strip().splitlines()
        raise UsageError(said[-1] if said else f"The collection ended with {done.returncode}.")
    document = json.loads(done.stdout)
    session.show(document, _lines(document))
    if document["failed"]:
        raise UnavailableError(f"{len(document['failed'])} objects could not be removed.")
    if document["stopped"]:
        raise UnavailableError(f"It ended before all was looked at: {document['stopped']}")


def _lines(document: dict[str, Any]) -> list[str]:
    lines = [
        f"{name}: {item['objects']} objects, {item['size_bytes'] / 1e6:.1f} MB, "
        f"oldest {item['oldest']}"
        for name, item in document["garbage"].items()
    ]
    if not lines:
        lines.append("Nothing to remove.")
    elif not document["deleted"]:
        lines.append("Nothing was removed; --delete removes it.")
    lines += [
        f"{name}/ is not Granulo's and was left alone: {item['objects']} objects"
        for name, item in document["unknown"].items()
    ]
    lines += [f"{key}: {why}" for key, why in document["failed"].items()]
    return lines
