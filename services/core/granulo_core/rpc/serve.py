# SPDX-License-Identifier: GPL-3.0-or-later
"""How a service is put together and run as a process of its own."""

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from granulo_core.engine.choice import open_engine
from granulo_core.engine.port import Engine
from granulo_core.errors import GranuloError
from granulo_core.rpc.server import BuiltService, build_server
from granulo_core.settings import CoreSettings
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore
from granulo_core.telemetry import traces
from granulo_core.telemetry.logs import configure_logging

__all__ = ["BuiltService", "ServiceParts", "for_tenant", "serve_service"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ServiceParts:
    """What every service is built from."""

    store: ObjectStore
    engine: Engine
    settings: CoreSettings | None = None
    """The service's own settings; its defaults and environment where absent."""


def for_tenant(built: Sequence[BuiltService]) -> Callable[[ObjectStore], Sequence[BuiltService]]:
    """How `build_server` builds these services once more over a tenant's store."""
    return lambda store: [
        service.for_tenant(store) for service in built if service.for_tenant is not None
    ]


def serve_service(
    name: str,
    build: Callable[[ServiceParts], BuiltService],
    load_settings: Callable[[], CoreSettings],
) -> None:
    """Run one service until SIGTERM or SIGINT; the main of ``python -m granulo_<service>``.

    Exits with status 2 and one sentence when it cannot start.

    Parameters
    ----------
    name : str
        For people and logs.
    build : callable
        The service's ``servicer.build``.
    load_settings : callable
        The ``load`` of the service's settings; called here, so that its errors end as others do.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = load_settings()
        configure_logging(settings)
        traces.configure_traces(settings.otlp_endpoint, f"granulo-{name}")
        store = open_store(settings.store_url)
        store.check_writable()
        engine = open_engine(settings)
        built = build(ServiceParts(store, engine, settings))
        server = build_server(
            [built.registration],
            runners=[built.runner],
            store=store,
            settings=settings,
            for_tenant=for_tenant([built]),
            checks=built.dependencies,
        )
        server.start(settings.listen)
    except GranuloError as error:
        _log.error("cannot start", service=name, reason=error.reason.value)
        sys.stderr.write(f"{name}: {error.message}\n")
        sys.exit(2)
    server.resume()
    stop.wait()
    server.stop()
    server.close()
    built.close()
    engine.close()
    traces.flush()
