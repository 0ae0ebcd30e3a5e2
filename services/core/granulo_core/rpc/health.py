# SPDX-License-Identifier: GPL-3.0-or-later
"""`grpc.health.v1`: on the server's port, and on a plaintext one for probes without certificates.

Kubernetes' kubelet has no client certificate, so that its probes ask the second port. The name
``liveness`` is SERVING while the process answers; ``readiness`` while the object store does, too.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from granulo_core.errors import GranuloError
from granulo_core.rpc.ports import bind
from granulo_core.store.port import ObjectStore

LIVENESS = "liveness"
READINESS = "readiness"

_log = structlog.get_logger(__name__)
_POLL_S = 10.0
_ANY_KEY = "refs/models/default.json"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthPort:
    """Health of a server and of what it depends on.

    Parameters
    ----------
    store : ObjectStore
        Asked every ten seconds.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.servicer = health.HealthServicer()
        self.servicer.set("", _NOT_SERVING)
        self.address = ""
        self._store = store
        self._server: grpc.Server | None = None
        self._stop = threading.Event()

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
        """Say SERVING from now on, and look after what the server depends on."""
        for name in ("", LIVENESS, *services):
            self.servicer.set(name, _SERVING)
        self.servicer.set(READINESS, _NOT_SERVING)
        threading.Thread(target=self._look_after, name="readiness", daemon=True).start()

    def stop(self) -> None:
        """Say NOT_SERVING for good."""
        self._stop.set()
        self.servicer.enter_graceful_shutdown()
        if self._server is not None:
            self._server.stop(1.0)

    def _look_after(self) -> None:
        while not self._stop.is_set():
            try:
                self._store.exists(_ANY_KEY)
                self.servicer.set(READINESS, _SERVING)
            except GranuloError as error:
                _log.warning("not ready", message=error.message)
                self.servicer.set(READINESS, _NOT_SERVING)
            self._stop.wait(_POLL_S)
