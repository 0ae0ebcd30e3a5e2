# SPDX-License-Identifier: GPL-3.0-or-later
"""The model sync as a process: its settings, its end, and its health for probes."""

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from granulo_core.errors import FieldViolation, GranuloError, invalid_fields
from granulo_core.store import open_store
from granulo_core.telemetry.logs import configure_logging
from granulo_segmenter.predictor import versions
from granulo_segmenter.predictor.sync import Keeping, ModelSync, SyncReport
from granulo_segmenter.settings import SyncSettings

SERVICE = "granulo.model-sync"
"""Name in the health service: SERVING once every promoted version was in its place."""
_CANNOT_START = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; exits with 2 and one sentence when it cannot start."""
    options = _parse(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = SyncSettings.load(
            store_url=options.store, sync_root=options.root, sync_interval_s=options.interval_s
        )
        if not settings.sync_root:
            text = "is required: the model server's base folder (or give --root)"
            raise invalid_fields([FieldViolation("GRANULO_SYNC_ROOT", text)])
        configure_logging(settings)
        sync = _sync(settings)
        if options.once:
            report = sync.round()
            for trouble in report.failed:
                sys.stderr.write(f"model-sync: {trouble}\n")
            return 1 if report.failed else 0
        probe = HealthProbe(settings.sync_health) if settings.sync_health else None
    except GranuloError as error:
        sys.stderr.write(f"model-sync: {error.message}\n")
        return _CANNOT_START
    sync.run(stop, probe.tell if probe else None)
    if probe:
        probe.close()
    return 0


class HealthProbe:
    """gRPC health of the sync.

    The empty service name is SERVING while the process lives; `SERVICE` from the first round on in
    which nothing failed. Later failures do not change it: what is in the folder goes on being
    served, and no probe should take it away.

    Parameters
    ----------
    listen : str
        ``host:port``; port 0 takes a free one.
    """

    def __init__(self, listen: str) -> None:
        self._health = health.HealthServicer()
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        self._health.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._server = grpc.server(ThreadPoolExecutor(2, thread_name_prefix="health"))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            port = self._server.add_insecure_port(listen)
        except RuntimeError:
            port = 0
        if not port:
            text = f"{listen} cannot be bound; choose another host:port"
            raise invalid_fields([FieldViolation("GRANULO_SYNC_HEALTH", text)])
        self.address = f"{listen.rpartition(':')[0]}:{port}"
        self._server.start()

    def tell(self, report: SyncReport) -> None:
        """Take note of a round."""
        if not report.failed:
            self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        """Say NOT_SERVING and stop."""
        self._health.enter_graceful_shutdown()
        self._server.stop(1.0).wait()


def _sync(settings: SyncSettings) -> ModelSync:
    root = Path(settings.sync_root).absolute()
    return ModelSync(
        open_store(settings.store_url),
        root,
        packaged=versions.packaged_folder(),
        keeping=Keeping(settings.sync_keep_older, settings.sync_keep_for_s),
        serving_root=settings.sync_serving_root or str(root),
        interval_s=settings.sync_interval_s,
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m granulo_segmenter.predictor.sync",
        description="Copy promoted model versions from the object store for a model server. "
        "Settings are those of GRANULO_STORE_URL and GRANULO_SYNC_…; options go before them.",
    )
    parser.add_argument("--store", help="url of the object store")
    parser.add_argument("--root", help="the model server's base folder")
    parser.add_argument("--interval-s", type=float, help="pause between rounds")
    parser.add_argument("--once", action="store_true", help="one round, then end")
    return parser.parse_args(arguments)
