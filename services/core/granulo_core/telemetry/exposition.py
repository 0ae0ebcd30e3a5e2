# SPDX-License-Identifier: GPL-3.0-or-later
"""The port at which Prometheus asks for metrics: plaintext HTTP, nothing but numbers."""

import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import start_http_server

from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.telemetry.metrics import REGISTRY


class MetricsPort:
    """Serves the metrics of this process while it is open."""

    def __init__(self) -> None:
        self.address = ""
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None

    def listen(self, address: str) -> None:
        """Bind and serve.

        Parameters
        ----------
        address : str
            ``host:port``; port 0 takes a free one.

        Raises
        ------
        GranuloError
            FIELD_INVALID when the address cannot be bound.
        """
        host, _, port = address.rpartition(":")
        try:
            self._server, self._thread = start_http_server(
                int(port), host.strip("[]"), registry=REGISTRY
            )
        except (OSError, ValueError, OverflowError) as error:
            text = (
                f"{address} cannot be bound ({error}): it is no host:port of this machine, or "
                "another program has the port. Choose another port; 0 takes a free one."
            )
            raise invalid_fields([FieldViolation("metrics_listen", text)]) from error
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None
