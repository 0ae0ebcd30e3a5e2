# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts all services, their workers, the store and the model server together on one machine."""

import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

import structlog

import granulo_analyzer.servicer
import granulo_analyzer.settings
import granulo_render.servicer
import granulo_render.settings
import granulo_segmenter.servicer
import granulo_segmenter.settings
import granulo_trainer.servicer
import granulo_trainer.settings
from granulo_core.engine.choice import open_engine
from granulo_core.engine.port import Engine
from granulo_core.errors import GranuloError
from granulo_core.rpc.serve import BuiltService, ServiceParts, for_tenant
from granulo_core.rpc.server import build_server
from granulo_core.settings import CoreSettings
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore
from granulo_core.telemetry import traces
from granulo_core.telemetry.logs import configure_logging
from granulo_segmenter.predictor import sync, versions
from granulo_standalone.folder import DataFolder
from granulo_standalone.model_server import ModelServer

_log = structlog.get_logger(__name__)

_GRACE_S = 2.0
_USERS_POLL_S = 0.25


def run(
    data: Path,
    listen: str,
    stop: threading.Event,
    terminal: TextIO,
    *,
    announce: bool,
    ephemeral: bool,
    quiet: bool,
) -> None:
    """Serve until ``stop`` is set.

    Parameters
    ----------
    data : Path
        Data folder; everything that is written goes below it.
    listen : str
        ``HOST:PORT``; port 0 takes a free one.
    stop : threading.Event
    terminal : text stream
        For the person who started this; logs go to the data folder.
    announce : bool
        Write ``{"address": …}`` to standard output when ready.
    ephemeral : bool
        Stop when no command uses the data folder any more.
    quiet : bool
        Say nothing on the terminal.

    Raises
    ------
    GranuloError
        It cannot start: the folder cannot be used, the address cannot be bound.
    """
    with ExitStack() as cleanup:
        folder = DataFolder.open(data)
        cleanup.callback(folder.close)
        log = cleanup.enter_context(folder.open_log())
        os.dup2(log.fileno(), 2)
        arguments = _arguments(data, listen)
        settings = CoreSettings.load(**arguments)
        configure_logging(settings)
        traces.configure_traces(settings.otlp_endpoint, "granulo-standalone")
        cleanup.callback(traces.flush)
        store = open_store(settings.store_url)
        cleanup.enter_context(_synced_models(store, data / "model-server"))
        if not (model_address := settings.model_server):
            models = ModelServer(
                data / "model-server",
                eager=not ephemeral,
                metrics_listen=settings.model_server_metrics_listen,
                float32=settings.model_server_float32,
            )
            model_address = cleanup.enter_context(models).address
        engine = open_engine(settings)
        cleanup.callback(engine.close)
        private = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="granulo-"))
        socket = f"unix:{private}/services"
        services = _build_services(
            store,
            engine,
            {**arguments, "model_server": model_address, "segmenter_address": socket},
        )
        for service in services:
            cleanup.callback(service.close)
        server = build_server(
            [service.registration for service in services],
            runners=[service.runner for service in services],
            store=store,
            settings=settings,
            for_tenant=for_tenant(services),
        )
        cleanup.callback(server.close)
        address = server.start(listen, socket)
        cleanup.callback(server.stop, _GRACE_S)
        server.resume()
        folder.publish(address, ephemeral=ephemeral, tls=bool(settings.tls_cert))
        if announce:
            sys.stdout.write(json.dumps({"address": address, "data": str(data)}) + "\n")
            sys.stdout.flush()
        elif not quiet:
            terminal.write(f"Granulo answers at {address} with its data in {data}.\n")
            terminal.write(
                "Ctrl-C stops it; operations that run then continue at the next start.\n"
            )
        _wait(stop, folder if ephemeral else None)
        _log.info("stopping")


def shown_settings(data: Path, listen: str) -> dict[str, dict[str, Any]]:
    """What `run` would set each service to, without secrets.

    Raises
    ------
    GranuloError
        FIELD_INVALID for unusable settings.
    """
    kinds: dict[str, type[CoreSettings]] = {
        "render": granulo_render.settings.RenderSettings,
        "trainer": granulo_trainer.settings.TrainerSettings,
        "segmenter": granulo_segmenter.settings.SegmenterSettings,
        "analyzer": granulo_analyzer.settings.AnalyzerSettings,
    }
    arguments = _arguments(data, listen)
    return {name: kind.load(**arguments).shown() for name, kind in kinds.items()}


def _arguments(data: Path, listen: str) -> dict[str, str]:
    return {"store_url": str(data / "store"), "listen": listen}


def _build_services(
    store: ObjectStore, engine: Engine, arguments: dict[str, str]
) -> list[BuiltService]:
    def parts(settings: type[CoreSettings], **more: str) -> ServiceParts:
        return ServiceParts(store, engine, settings.load(**arguments, **more))

    return [
        granulo_render.servicer.build(parts(granulo_render.settings.RenderSettings)),
        granulo_trainer.servicer.build(
            parts(granulo_trainer.settings.TrainerSettings, **_packaged_model(store))
        ),
        granulo_segmenter.servicer.build(parts(granulo_segmenter.settings.SegmenterSettings)),
        granulo_analyzer.servicer.build(parts(granulo_analyzer.settings.AnalyzerSettings)),
    ]


def _packaged_model(store: ObjectStore) -> dict[str, str]:
    """Settings by which the trainer knows the network that the segmenter's distribution carries."""
    folder = versions.packaged_folder()
    try:
        found = versions.resolve(store, f"models/{versions.PACKAGED}", folder)
    except GranuloError as error:
        _log.warning("no packaged network", message=error.message)
        return {}
    return {"packaged_model": str(folder), "packaged_name": found.resource}


@contextmanager
def _synced_models(store: ObjectStore, folder: Path) -> Iterator[None]:
    """Keep the model server's folder up to date while the block runs."""
    stop = threading.Event()
    models = sync.ModelSync(store, folder, packaged=versions.packaged_folder())
    thread = threading.Thread(target=models.run, args=(stop,), name="model-sync", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _wait(stop: threading.Event, folder: DataFolder | None) -> None:
    """Wait for ``stop``, or for the end of the last command on an ephemeral folder."""
    while not stop.wait(_USERS_POLL_S):
        if folder is not None and not folder.has_users():
            _log.info("no command uses this standalone any more")
            return
