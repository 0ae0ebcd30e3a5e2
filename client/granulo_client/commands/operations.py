# SPDX-License-Identifier: Apache-2.0
"""`granulo operations list|watch|cancel`."""

from typing import Annotated, Any

import typer
from google.longrunning.operations_pb2 import Operation

from granulo.type.v1 import progress_pb2
from granulo_client.commands.security import App
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    QuietOption,
    ServerOption,
    open_session,
)
from granulo_client.errors import from_status
from granulo_client.jobs import progress_of, service_of
from granulo_client.progress import amount, show_progress

app = App(help="Jobs that run or have run.", no_args_is_help=True)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="As `granulo operations list` shows it.")
]


@app.command("list")
def list_operations(
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the operations of all services."""
    session = open_session(server, data, as_json, quiet)
    with session.client() as client:
        documents = [_document(operation) for operation in client.operations.list()]
    rows = [
        [
            item["name"],
            item["kind"],
            item["state"].lower(),
            amount(item["units_done"], item["units_total"] or None, item["unit"]),
            item["create_time"] or "",
            item["message"] if item["error"] is None else item["error"]["message"],
        ]
        for item in documents
    ]
    columns = ["NAME", "KIND", "STATE", "DONE", "CREATED", ""]
    session.show_table({"operations": documents}, columns, rows)


@app.command("watch")
def watch_operation(
    name: NameArgument,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Follow an operation to its end."""
    session = open_session(server, data, as_json, quiet)
    name = _full_name(name)
    with session.client() as client, session.reporter.stage(name) as stage:
        last = client.operations.get(name)
        for operation in client.operations.watch(name):
            last = operation
            show_progress(progress_of(operation), stage)
    if last.HasField("error"):
        raise from_status(last.error)
    document = _document(last)
    session.show(document, [f"{name}: {document['state'].lower()}"])


@app.command("cancel")
def cancel_operation(
    name: NameArgument,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Stop an operation; what it finished is kept for the next attempt."""
    session = open_session(server, data, as_json, quiet)
    name = _full_name(name)
    with session.client() as client:
        client.operations.cancel(name)
        last = client.operations.get(name)
        for operation in client.operations.watch(name):
            last = operation
    document = _document(last)
    session.show(document, [f"{name}: {document['state'].lower()}"])


def _full_name(text: str) -> str:
    name = text if text.startswith("operations/") else f"operations/{text}"
    service_of(name)  # refuses what is no name before anything is started
    return name


def _document(operation: Operation) -> dict[str, Any]:
    progress = progress_of(operation)
    metadata = operation.metadata.type_url.rsplit(".", 1)[-1]
    error = from_status(operation.error).to_dict() if operation.HasField("error") else None
    return {
        "name": operation.name,
        "kind": metadata.removesuffix("Metadata"),
        "done": operation.done,
        "state": progress_pb2.Progress.State.Name(progress.state).removeprefix("STATE_"),
        "unit": progress.unit,
        "units_done": progress.units_done,
        "units_total": progress.units_total,
        "units_failed": progress.units_failed,
        "message": progress.message,
        "figures": dict(sorted(progress.figures.items())),
        "create_time": progress.create_time.ToJsonString()
        if progress.HasField("create_time")
        else None,
        "error": error,
    }
