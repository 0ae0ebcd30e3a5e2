# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m granulo_standalone``: everything on one machine, in one process with its workers."""

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

from granulo_core.errors import GranuloError

_CANNOT_START = 2


def main() -> None:
    """Run until SIGTERM, Ctrl-C, or the last command has left an ephemeral one.

    Exits with status 2 and one sentence on standard error where it cannot start.
    """
    options = _parser().parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    # The terminal, before standard error is sent to the log.
    terminal = os.fdopen(os.dup(2), "w", buffering=1)
    try:
        from granulo_standalone.launcher import run, shown_settings

        data = options.data.expanduser().absolute()
        if options.show_settings:
            sys.stdout.write(json.dumps(shown_settings(data, options.listen)) + "\n")
            return
        run(
            data,
            options.listen,
            stop,
            terminal,
            announce=options.announce,
            ephemeral=options.ephemeral,
            quiet=options.quiet,
        )
    except GranuloError as error:
        terminal.write(f"{error.message}\n")
        sys.exit(_CANNOT_START)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m granulo_standalone",
        description="All Granulo services, the model server and the store on one machine.",
    )
    parser.add_argument("--data", type=Path, required=True, help="data folder")
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT; port 0 is a free one")
    parser.add_argument(
        "--announce", action="store_true", help="print the address as a line of JSON when ready"
    )
    parser.add_argument(
        "--ephemeral", action="store_true", help="stop when no command uses it any more"
    )
    parser.add_argument(
        "--show-settings", action="store_true", help="print all settings as JSON, and end"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing on the terminal")
    return parser


if __name__ == "__main__":
    main()
