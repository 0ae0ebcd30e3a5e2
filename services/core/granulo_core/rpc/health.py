# SPDX-License-Identifier: GPL-3.0-or-later
"""`grpc.health.v1`: on the server's port, and on a plaintext one for probes without certificates.

Kubernetes' kubelet has no client certificate, so that its probes ask the second port. The name
``liveness`` is SERVING while the process answers; ``readiness`` while its dependencies do, too
(`granulo_core.rpc.readiness`).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from granulo_core.rpc.ports import bind

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthPort:
    """Health of a server, and the port that serves it alone."""

    def __init__(self) -> None:
        self.servicer = health.HealthServicer()
        self.servicer.set("", _NOT_SERVING)
        self.address = ""
        self._server: grpc.Server | None = None

    def listen(self, address: str) -> None:
        """Serve health, and nothing else, on a plaintext port of its own.

        Raises
        ------
        GranuloError
            FIELD_INVALID when the address cannot be bound.
        """
        server = grpc.server(
            ThreadPoolExecutor(2, thread_name_prefix="health"),
            maximum_concurrent_rpcs=64,
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 4096)],
        )
        health_pb2_grpc.add_HealthServicer_to_server(self.servicer, server)
        port = bind(server, address, None, "health_listen")
        server.start()
        self._server = server
        self.address = f"{address.rpartition(':')[0]}:{port}"

    def serving(self, services: Sequence[str]) -> None:
        """Say SERVING from now on."""
        for name in ("", *services):
            self.servicer.set(name, _SERVING)

    def stop(self) -> None:
        """Say NOT_SERVING for good."""
        self.servicer.enter_graceful_shutdown()
        if self._server is not None:
            self._server.stop(1.0)
