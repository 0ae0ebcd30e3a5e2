# SPDX-License-Identifier: Apache-2.0
"""What all commands share: the four common options, connecting, showing results."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from granulo.type.v1.artifact_pb2 import Artifact
from granulo_client.artifacts import check_readable
from granulo_client.client import Client
from granulo_client.commands.security import given_security
from granulo_client.errors import FieldViolation, UnavailableError, UsageError
from granulo_client.progress import Reporter, make_reporter
from granulo_client.security import Security
from granulo_client.standalone import LOG_NAME, Standalone, default_data_dir

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="GRANULO_SERVER",
        metavar="ADDRESS",
        help="HOST:PORT of running services, or render=…,trainer=…,segmenter=…,analyzer=…. "
        "Without it the standalone runs for the command's duration.",
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="GRANULO_DATA",
        metavar="DIR",
        help="Data folder of the standalone. [default: ~/.local/share/granulo]",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, no notes.")]
PixelSizeOption = Annotated[
    float | None,
    typer.Option(
        "--pixel-size",
        metavar="NM",
        help="Side of a pixel in nm; goes before what the files say. "
        "Where neither tells it, lengths are in pixels.",
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(metavar="MODEL[/VERSION]", help="Model to use. [default: default]"),
]


@dataclass(frozen=True)
class Session:
    """The common options of one command."""

    server: str | None
    data: Path | None
    as_json: bool
    reporter: Reporter
    security: Security

    @property
    def data_dir(self) -> Path:
        """Data folder of the standalone."""
        return self.data or default_data_dir()

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Client of the named server, or of the standalone for the duration of a block."""
        if self.server:
            with Client(self.server, security=self.security) as client:
                yield client
            return
        standalone = self._join()
        try:
            security = standalone.security(self.security)
            with Client(standalone.address, alive=standalone.alive, security=security) as client:
                yield client
        except UnavailableError as error:
            if standalone.alive():
                raise
            raise UnavailableError(
                f"Granulo on {standalone.data} has ended; {standalone.data / LOG_NAME} may say "
                "why. What is finished is kept: the same command again continues."
            ) from error
        finally:
            standalone.leave()

    def _join(self) -> Standalone:
        with ExitStack() as stages:
            return Standalone.join(
                self.data_dir,
                on_start=lambda: stages.enter_context(self.reporter.stage("Starting Granulo")),
            )

    def upload(self, client: Client, paths: Sequence[Path], service: str) -> list[Artifact]:
        """Upload files for a service, with progress."""
        total = sum(path.stat().st_size for path in paths)
        with self.reporter.stage("Uploading", total=total, unit="byte") as stage:
            advance = self.reporter.counter(stage, total, "byte")
            return [client.transfers.upload(path, service, on_bytes=advance) for path in paths]

    def upload_pairs(
        self, client: Client, pairs: Sequence[tuple[Path, Path | None]], service: str
    ) -> list[tuple[Artifact, Artifact | None]]:
        """Upload files that belong together in twos, of which the second may be missing."""
        files = [path for pair in pairs for path in pair if path is not None]
        uploaded = iter(self.upload(client, files, service) if files else ())
        return [(next(uploaded), None if second is None else next(uploaded)) for _, second in pairs]

    def download(self, client: Client, files: Sequence[tuple[Artifact | str, Path]]) -> None:
        """Write artifacts to files, with progress."""
        with self.reporter.stage("Saving", total=len(files), unit="file") as stage:
            for done, (artifact, path) in enumerate(files, 1):
                client.download(artifact, path)
                stage.update(done=done, total=len(files), unit="file")

    def show(self, document: Mapping[str, Any], lines: Sequence[str]) -> None:
        """Print a result: the document with ``--json``, the lines otherwise."""
        if self.as_json:
            print_json(document)
        else:
            for line in lines:
                sys.stdout.write(f"{line}\n")

    def show_table(
        self, document: Mapping[str, Any], columns: Sequence[str], rows: Sequence[Sequence[str]]
    ) -> None:
        """Print a result as a table, or the document with ``--json``."""
        if self.as_json:
            print_json(document)
            return
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for row in (columns, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            sys.stdout.write("  ".join(cells).rstrip() + "\n")


def open_session(server: str | None, data: Path | None, as_json: bool, quiet: bool) -> Session:
    """Take in the common options."""
    return Session(server, data, as_json, make_reporter(quiet), given_security())


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Check that all files can be read.

    Raises
    ------
    UsageError
        One does not exist, is a folder, or stands there twice.
    """
    seen: set[Path] = set()
    for path in paths:
        check_readable(path)
        if path.resolve() in seen:
            raise UsageError(f"{path} is named twice; name it once.")
        seen.add(path.resolve())
    return list(paths)


def check_pixel_size(size_nm: float | None) -> float | None:
    """Return a usable pixel size.

    Raises
    ------
    UsageError
        It is no positive number.
    """
    if size_nm is not None and not 0 < size_nm < float("inf"):
        raise UsageError(f"--pixel-size is {size_nm:g}; give a positive number of nm, e.g. 7.3.")
    return size_nm


def prepare_out(folder: Path) -> Path:
    """Make an output folder, before any work, and check that it can be written.

    Raises
    ------
    UsageError
        It cannot be made or written.
    """
    probe = folder / ".granulo-write-test"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written: {error.strerror}. Choose another folder."
        ) from error
    return folder


def prepare_file(path: Path) -> Path:
    """Make the folder of an output file, before any work, and check that it can be written.

    Raises
    ------
    UsageError
        It cannot, or the path is a folder.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it.")
    prepare_out(path.parent)
    return path


def check_at_least(option: str, field: str, value: int, least: int) -> None:
    """Refuse a number that is too small.

    Raises
    ------
    UsageError
        Names the option.
    """
    if value < least:
        text = f"is {value}; give a whole number of {least} or more"
        raise UsageError(
            f"{option} {text}.", reason="FIELD_INVALID", violations=[FieldViolation(field, text)]
        )
