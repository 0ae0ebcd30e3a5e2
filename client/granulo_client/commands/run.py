# SPDX-License-Identifier: Apache-2.0
"""`granulo run`."""

from pathlib import Path
from typing import Annotated

import typer

from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    ServerOption,
    open_session,
    prepare_out,
)


def run(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY.yaml", help="`granulo study init` writes one.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for labels, tables and reports. [default: <study>-results]",
        ),
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Work through a study: render, train, promote, segment, analyse, evaluate.

    The same command again continues where the last one stopped.
    """
    # pydantic, which only studies need, takes a third of a second to import.
    from granulo_client.study import load_study
    from granulo_client.study_run import StudyRun, prepare

    session = open_session(server, data, as_json, quiet)
    plan = prepare(load_study(study), study.absolute().parent)
    folder = prepare_out(out or Path(f"{study.stem}-results"))
    with session.client() as client:
        runner = StudyRun(session, client, plan, folder)
        document = runner.run()
    session.show(document, runner.lines())
