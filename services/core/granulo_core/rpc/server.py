# SPDX-License-Identifier: GPL-3.0-or-later
"""A gRPC server as every service has it: what it serves, and everything around that."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from google.longrunning import operations_pb2_grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from granulo.artifact.v1 import artifact_service_pb2_grpc
from granulo.operations.v1 import operation_watch_service_pb2_grpc
from granulo_core.errors import GranuloError, not_found
from granulo_core.operations.runner import OperationRunner
from granulo_core.rpc.artifacts import ArtifactServicer
from granulo_core.rpc.channel import MAX_MESSAGE_BYTES
from granulo_core.rpc.health import HealthPort
from granulo_core.rpc.interceptor import EdgeInterceptor
from granulo_core.rpc.operations import (
    OperationRouter,
    OperationsServicer,
    OperationWatchServicer,
)
from granulo_core.rpc.ports import bind, server_options
from granulo_core.rpc.readiness import Check, Readiness
from granulo_core.rpc.tenants import HandlerTable, Offer, Tenants
from granulo_core.security import tls
from granulo_core.security.access import TENANT
from granulo_core.security.authentication import make_gate
from granulo_core.settings import CoreSettings
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore
from granulo_core.store.tenants import PREFIX, tenant_url
from granulo_core.telemetry.exposition import MetricsPort
from granulo_core.telemetry.live import LIVE

_log = structlog.get_logger(__name__)
_NO_OBJECT = "readiness"
"""Asked for to see that the store answers; whether it is there does not matter."""
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


@dataclass(frozen=True)
class BuiltService:
    """A service, ready to be added to a server."""

    registration: ServiceRegistration
    runner: OperationRunner
    for_tenant: "Callable[[ObjectStore], BuiltService] | None" = None
    """The same service over the store of a tenant; None where there are none."""
    dependencies: Mapping[str, Check] = field(default_factory=dict)
    """What else than the store must answer for this service to be of use, by name."""
    close: Callable[[], None] = lambda: None
    """Ends what its tenants share, its child processes; called when the server has stopped."""


class GranuloServer:
    """A server with health, reflection, operations and artifacts around its services."""

    def __init__(
        self,
        server: grpc.Server,
        services: Sequence[str],
        health_port: HealthPort,
        readiness: Readiness,
        runners: Sequence[OperationRunner],
        tenants: Tenants,
        settings: CoreSettings,
        store: ObjectStore,
    ) -> None:
        self._server = server
        self._roots = runners
        self._services = services
        self._health = health_port
        self._readiness = readiness
        self._tenants = tenants
        self._settings = settings
        self._store = store
        self._metrics = MetricsPort()
        self._forget: Callable[[], None] | None = None
        self.address = ""

    @property
    def metrics_address(self) -> str:
        """Bound address of the metrics' port; empty without one."""
        return self._metrics.address

    @property
    def health_address(self) -> str:
        """Bound address of the plaintext health port; empty without one."""
        return self._health.address

    def start(self, listen: str, socket: str = "") -> str:
        """Bind and serve.

        Parameters
        ----------
        listen : str
            ``host:port``; port 0 takes a free one.
        socket : str
            ``unix:PATH`` where the same services answer unencrypted, for the services of this
            server itself; who may enter its folder may call. None where empty.

        Returns
        -------
        str
            The bound address, with the port that was taken for port 0.

        Raises
        ------
        GranuloError
            FIELD_INVALID when an address cannot be bound.
        """
        host = listen.rpartition(":")[0]
        port = bind(self._server, listen, tls.server_credentials(self._settings))
        if socket:
            bind(self._server, socket, None, "socket")
        if self._settings.health_listen:
            self._health.listen(self._settings.health_listen)
        if self._settings.metrics_listen:
            self._metrics.listen(self._settings.metrics_listen)
        self._forget = LIVE.watch_operations(self._count_operations)
        self._server.start()
        self._health.serving(self._services)
        self._readiness.start()
        self.address = f"{host}:{port}"
        _log.info(
            "serving",
            address=self.address,
            tls=bool(self._settings.tls_cert),
            client_certificates=bool(self._settings.tls_client_ca),
            auth=self._settings.auth,
        )
        return self.address

    def resume(self) -> None:
        """Go on with all operations that are not done, those of tenants included."""
        for runner in self._roots:
            runner.resume_all()
        if self._settings.auth != "none":
            for tenant in filter(TENANT.fullmatch, self._store.children(PREFIX)):
                try:
                    self._tenants.of(tenant)
                except GranuloError as error:  # tried again at its next call
                    _log.error("tenant not opened", tenant=tenant, message=error.message)

    def stop(self, grace_s: float = 5.0) -> None:
        """Say NOT_SERVING, refuse new calls, give running ones their time.

        Running operations are interrupted and watchers sent away; who starts the server again
        goes on with them. `close` afterwards, then close the engine.
        """
        self._readiness.stop()
        self._health.stop()
        stopped = self._server.stop(grace_s)
        for runner in (*self._roots, *self._tenants.runners):
            runner.interrupt()
        stopped.wait()

    def close(self) -> None:
        """End the operations' threads; what runs stays resumable."""
        for runner in (*self._roots, *self._tenants.runners):
            runner.close()
        if self._forget is not None:
            self._forget()
        self._metrics.close()

    def wait(self) -> None:
        """Block until the server has stopped."""
        self._server.wait_for_termination()

    def _count_operations(self) -> Mapping[tuple[str, str], int]:
        counts: Counter[tuple[str, str]] = Counter()
        for runner in (*self._roots, *self._tenants.runners):
            counts.update(runner.counts())
        return counts


def build_server(
    services: Sequence[ServiceRegistration],
    *,
    runners: Sequence[OperationRunner],
    store: ObjectStore,
    settings: CoreSettings,
    for_tenant: Callable[[ObjectStore], Sequence[BuiltService]] | None = None,
    checks: Mapping[str, Check] | None = None,
) -> GranuloServer:
    """Put a server together; `GranuloServer.start` binds it.

    Parameters
    ----------
    services : sequence of ServiceRegistration
    runners : sequence of OperationRunner
    store : ObjectStore
        The root's.
    settings : CoreSettings
    for_tenant : callable, optional
        Builds the same services over a tenant's store; without it tenants are refused.
    checks : mapping of str to callable, optional
        What must answer, beside the store, for the server to be ready.
    """
    threads = settings.max_rpc_threads

    def offer_for(tenant: str) -> Offer:
        if for_tenant is None:
            raise not_found(f"tenants/{tenant}", "This server has no tenants.")
        below = open_store(tenant_url(store.url, tenant))
        built = for_tenant(below)
        own = [service.runner for service in built]
        table = HandlerTable()
        _add_all(table, [service.registration for service in built], own, below, settings)
        return Offer(table, own)

    tenants = Tenants(offer_for)
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
                gate=make_gate(settings),
                tenants=tenants,
            )
        ],
        # Beyond it grpc answers RESOURCE_EXHAUSTED at once instead of queueing without end.
        maximum_concurrent_rpcs=threads * 4,
        options=server_options(settings, MAX_MESSAGE_BYTES),
    )
    _add_all(server, services, runners, store, settings)
    health_port = HealthPort()
    needed: dict[str, Check] = {"store": lambda: store.exists(_NO_OBJECT), **(checks or {})}
    readiness = Readiness(health_port.servicer, needed)
    health_pb2_grpc.add_HealthServicer_to_server(health_port.servicer, server)
    names = [*(service.full_name for service in services), *_COMMON]
    if settings.reflection:
        reflection.enable_server_reflection(
            [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
        )
    return GranuloServer(server, names, health_port, readiness, runners, tenants, settings, store)


def _add_all(
    server: Any,
    services: Sequence[ServiceRegistration],
    runners: Sequence[OperationRunner],
    store: ObjectStore,
    settings: CoreSettings,
) -> None:
    """Add everything that answers over one store."""
    for service in services:
        service.add(server)
    router = OperationRouter(runners)
    operations_pb2_grpc.add_OperationsServicer_to_server(OperationsServicer(router), server)
    operation_watch_service_pb2_grpc.add_OperationWatchServiceServicer_to_server(
        OperationWatchServicer(router), server
    )
    artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(
        ArtifactServicer(store, settings), server
    )
