# SPDX-License-Identifier: Apache-2.0
"""`granulo version`."""

import platform
from importlib import metadata

from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    ServerOption,
    open_session,
)


def version(
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show the version of this command."""
    session = open_session(server, data, as_json, quiet)
    found = metadata.version("granulo-client")
    session.show({"granulo": found, "python": platform.python_version()}, [f"granulo {found}"])
