# SPDX-License-Identifier: Apache-2.0
"""`granulo config show`."""

import json
import subprocess

from granulo_client import standalone
from granulo_client.commands.security import App
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    ServerOption,
    open_session,
)
from granulo_client.errors import UsageError

app = App(help="Settings of the services on this machine.", no_args_is_help=True)


@app.command("show")
def show_config(
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show what the services would be set to here: defaults, file and environment together.

    Secrets are no settings: they stand in the files that settings name, and are not shown.
    """
    session = open_session(server, data, as_json, quiet)
    words = standalone.command(session.data_dir, ["--show-settings"])
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(done.stderr.strip().splitlines()[-1])
    document = json.loads(done.stdout)
    lines = [
        f"{service}.{name}: {value}"
        for service, settings in document.items()
        for name, value in settings.items()
    ]
    session.show(document, lines)
