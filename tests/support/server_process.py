# SPDX-License-Identifier: GPL-3.0-or-later
"""A service as a real process, with its log, and calls of it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import grpc
from certificates import Authority, Pair

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo.analyzer.v1 import analyzer_service_pb2_grpc as rpc

_START_S = 90.0
_LOG_S = 20.0


class ServerProcess:
    """Runs ``python -m granulo_analyzer``, the quickest service to start, or another one.

    Parameters
    ----------
    folder : Path
        For its store and its log.
    settings : str
        By name, without ``GRANULO_``.
    """

    def __init__(
        self, folder: Path, *, module: str = "granulo_analyzer", **settings: object
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.store = folder / "store"
        self.log = folder / "log"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("GRANULO_")}
        chosen = {
            "store_url": self.store,
            "listen": "127.0.0.1:0",
            "log_format": "json",
            "log_level": "debug",
            **settings,
        }
        environment = {f"GRANULO_{name.upper()}": str(value) for name, value in chosen.items()}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module],
                env=inherited | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.address = ""

    def __enter__(self) -> Self:
        try:
            self.address = self.wait_for(lambda e: e.get("event") == "serving", _START_S)["address"]
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def events(self) -> list[dict[str, Any]]:
        """The lines of the log that are events; gRPC writes some of its own."""
        return [
            json.loads(line)
            for line in self.log.read_text().splitlines()
            if line.startswith("{") and line.endswith("}")
        ]

    def wait_for(
        self, fits: Callable[[dict[str, Any]], bool], timeout_s: float = _LOG_S
    ) -> dict[str, Any]:
        """The first event that fits."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            if found := next(filter(fits, self.events()), None):
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"no such event in the log:\n{self.log.read_text()[-3000:]}")

    def _end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def channel_to(
    server: ServerProcess, authority: Authority | None, pair: Pair | None = None
) -> Iterator[grpc.Channel]:
    """A channel with a connection of its own; plaintext without an authority."""
    # As many connections as channels: gRPC shares them otherwise.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    if authority is None:
        made = grpc.insecure_channel(server.address, options)
    else:
        credentials = grpc.ssl_channel_credentials(
            authority.path.read_bytes(),
            pair and pair.key.read_bytes(),
            pair and pair.cert.read_bytes(),
        )
        made = grpc.secure_channel(server.address, credentials, options)
    with made:
        yield made


def list_analyses(channel: grpc.Channel, **options: object) -> pb.ListAnalysesResponse:
    """A small call that needs a role."""
    stub = rpc.AnalyzerServiceStub(channel)
    return stub.ListAnalyses(pb.ListAnalysesRequest(), timeout=30, **options)
