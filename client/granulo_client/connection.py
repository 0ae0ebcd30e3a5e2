# SPDX-License-Identifier: Apache-2.0
"""Connection to the services: addresses, files in and out."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from granulo.type.v1 import artifact_pb2
from granulo_client import names
from granulo_client.artifacts import Transfers
from granulo_client.calls import Calls
from granulo_client.channels import Channels, parse_server
from granulo_client.errors import UsageError
from granulo_client.jobs import Operations
from granulo_client.security import Security

Source = Path | str | artifact_pb2.Artifact
"""A file on this machine, which is uploaded, or an artifact that the server has already."""

PixelSizeNm = float | tuple[float, float]
"""Side of a square pixel, or width and height."""


class Connection:
    """Reaches Granulo's services; use it as a context manager.

    Parameters
    ----------
    server : str, optional
        ``HOST:PORT`` behind which all services answer, or
        ``render=HOST:PORT,trainer=…,segmenter=…,analyzer=…``.
    render, trainer, segmenter, analyzer : str, optional
        Address of one service; goes before ``server``.
    alive : callable, optional
        Says whether waiting for a server that has gone silent makes sense.
    security : Security, optional
        Certificates and token; without it calls are plaintext and nameless.
    """

    def __init__(
        self,
        server: str = "",
        *,
        render: str = "",
        trainer: str = "",
        segmenter: str = "",
        analyzer: str = "",
        alive: Callable[[], bool] = lambda: True,
        security: Security | None = None,
    ) -> None:
        given = {
            "render": render,
            "trainer": trainer,
            "segmenter": segmenter,
            "analyzer": analyzer,
        }
        routes = parse_server(server) if server else {}
        routes |= {service: address for service, address in given.items() if address}
        if not routes:
            raise UsageError('Client needs an address, e.g. Client("127.0.0.1:50050").')
        self._on_close: list[Callable[[], None]] = []
        self.channels = Channels(routes, security or Security())
        self.operations = Operations(self.channels, alive)
        self.transfers = Transfers(self.channels)
        self._calls = Calls(self.channels, self.operations)

    @classmethod
    def standalone(
        cls, data: Path | str | None = None, *, security: Security | None = None
    ) -> Self:
        """Client of the standalone on a data folder, which is started where none runs.

        It stops when the client is closed, unless another command uses it or it was there before.

        Parameters
        ----------
        data : Path or str, optional
            Data folder; ``GRANULO_DATA`` or ``~/.local/share/granulo`` by default.
        security : Security, optional
            Certificates, where it speaks TLS, and token, where it asks for one.
        """
        from granulo_client.standalone import Standalone, default_data_dir

        standalone = Standalone.join(Path(data) if data else default_data_dir())
        try:
            client = cls(
                standalone.address,
                alive=standalone.alive,
                security=standalone.security(security or Security()),
            )
        except BaseException:
            standalone.leave()
            raise
        client._on_close.append(standalone.leave)
        return client

    def close(self) -> None:
        """Close the channels, and the standalone where this client started it."""
        self.channels.close()
        while self._on_close:
            self._on_close.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def upload(self, path: Path | str, service: str = "analyzer") -> artifact_pb2.Artifact:
        """Upload a file for a service; see `Transfers.upload`."""
        return self.transfers.upload(Path(path), service)

    def download(
        self,
        artifact: artifact_pb2.Artifact | str,
        target: Path | str,
    ) -> Path:
        """Write an artifact to a file; see `Transfers.download`."""
        uri = artifact if isinstance(artifact, str) else artifact.uri
        service = names.owner(uri, self.channels.routes)
        return self.transfers.download(artifact, Path(target), service)

    def read(self, artifact: artifact_pb2.Artifact | str) -> bytes:
        """Bytes of a small artifact."""
        uri = artifact if isinstance(artifact, str) else artifact.uri
        return self.transfers.read(artifact, names.owner(uri, self.channels.routes))

    def manifest(self, artifact: artifact_pb2.Artifact) -> Mapping[str, Any]:
        """Content of a resource's manifest: its objects, inputs, producer and request."""
        content: Mapping[str, Any] = json.loads(self.read(artifact))
        return content

    def _artifact(self, source: Source, service: str) -> artifact_pb2.Artifact:
        if isinstance(source, artifact_pb2.Artifact):
            return source
        return self.upload(source, service)


def pixel_size_message(size_nm: PixelSizeNm) -> artifact_pb2.PixelSize:
    """Width and height of a pixel as a message."""
    x_nm, y_nm = size_nm if isinstance(size_nm, tuple) else (size_nm, size_nm)
    return artifact_pb2.PixelSize(x_nm=x_nm, y_nm=y_nm)
