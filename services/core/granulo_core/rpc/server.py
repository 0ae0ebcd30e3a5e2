# SPDX-License-Identifier: GPL-3.0-or-later
"""A gRPC server as every service has it: what it serves, and everything around that."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import structlog
from google.longrunning import operations_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from granulo.artifact.v1 import artifact_service_pb2_grpc
from granulo.operations.v1 import operation_watch_service_pb2_grpc
from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.operations.runner import OperationRunner
from granulo_core.rpc.artifacts import ArtifactServicer
from granulo_core.rpc.channel import MAX_MESSAGE_BYTES
from granulo_core.rpc.interceptor import EdgeInterceptor
from granulo_core.rpc.operations import (
    OperationRouter,
    OperationsServicer,
    OperationWatchServicer,
)
from granulo_core.settings import CoreSettings
from granulo_core.store.port import ObjectStore

_log = structlog.get_logger(__name__)
_COMMON = (
    "google.longrunning.Operations",
    "granulo.operations.v1.OperationWatchService",
    "granulo.artifact.v1.ArtifactService",
)


@dataclass(frozen=True)
class ServiceRegistration:
    """A service that a server offers."""

    full_name: str
    """e.g. ``granulo.render.v1.RenderService``"""
    add: Callable[[grpc.Server], None]
    """Adds its servicer to the server."""
    long_calls: frozenset[str] = frozenset()
    """Unary methods that may take seconds: they share the streams' limit, so that the others
    always find a thread."""


class GranuloServer:
    """A server with health, reflection, operations and artifacts around its services."""

    def __init__(
        self,
        server: grpc.Server,
        services: Sequence[str],
        health_servicer: health.HealthServicer,
        runners: Sequence[OperationRunner],
    ) -> None:
        self._server = server
        self._runners = runners
        self._services = services
        self.health = health_servicer
        self.address = ""

    def start(self, listen: str) -> str:
        """Bind and serve.

        Returns
        -------
        str
            The bound address, with the port that was taken for port 0.

        Raises
        ------
        GranuloError
            FIELD_INVALID when the address cannot be bound.
        """
        host = listen.rpartition(":")[0]
        try:
            port = self._server.add_insecure_port(listen)
        except RuntimeError:
            port = 0
        if not host or port == 0:
            raise invalid_fields(
                [
                    FieldViolation(
                        "listen",
                        f"{listen} cannot be bound: it is no host:port of this machine, or another "
                        "program has the port. Choose another port; 0 takes a free one.",
                    )
                ]
            )
        self._server.start()
        for name in ("", *self._services):
            self.health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self.address = f"{host}:{port}"
        _log.info("serving", address=self.address)
        return self.address

    def stop(self, grace_s: float = 5.0) -> None:
        """Say NOT_SERVING, refuse new calls, give running ones their time.

        Running operations are interrupted and watchers sent away; who starts the server again
        goes on with them. Close the runners and the engine afterwards.
        """
        self.health.enter_graceful_shutdown()
        stopped = self._server.stop(grace_s)
        for runner in self._runners:
            runner.interrupt()
        stopped.wait()

    def wait(self) -> None:
        """Block until the server has stopped."""
        self._server.wait_for_termination()


def build_server(
    services: Sequence[ServiceRegistration],
    *,
    runners: Sequence[OperationRunner],
    store: ObjectStore,
    settings: CoreSettings,
) -> GranuloServer:
    """Put a server together; `GranuloServer.start` binds it."""
    threads = settings.max_rpc_threads
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="rpc"),
        interceptors=[
            EdgeInterceptor(
                max_streams=threads // 2,
                long_calls=frozenset(
                    f"/{service.full_name}/{method}"
                    for service in services
                    for method in service.long_calls
                ),
            )
        ],
        # Beyond it grpc answers RESOURCE_EXHAUSTED at once instead of queueing without end.
        maximum_concurrent_rpcs=threads * 4,
        options=[
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            # Two servers on one port would share its calls silently.
            ("grpc.so_reuseport", 0),
        ],
    )
    for service in services:
        service.add(server)
    router = OperationRouter(runners)
    operations_pb2_grpc.add_OperationsServicer_to_server(OperationsServicer(router), server)
    operation_watch_service_pb2_grpc.add_OperationWatchServiceServicer_to_server(
        OperationWatchServicer(router), server
    )
    artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(ArtifactServicer(store), server)
    health_servicer = health.HealthServicer()
    health_servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = [*(service.full_name for service in services), *_COMMON]
    reflection.enable_server_reflection(
        [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
    )
    return GranuloServer(server, names, health_servicer, runners)
