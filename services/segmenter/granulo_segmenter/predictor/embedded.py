# SPDX-License-Identifier: GPL-3.0-or-later
"""The model server of one machine: TensorFlow Serving's protocol, in a process of its own.

``python -m granulo_segmenter.predictor.embedded --listen 127.0.0.1:0 --base FOLDER`` serves
``FOLDER/<model>/<version>/`` as TensorFlow Serving would, with the same messages and error codes,
and writes its address to stdout as one line of JSON when it answers. It looks for new versions
every second and ends with the process that started it. ``GRANULO_TLS_CERT``, ``…_KEY`` and
``…_CLIENT_CA`` encrypt it as they do the services.
"""

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import grpc

from granulo_core.errors import GranuloError
from granulo_core.rpc.incoming import ObservingInterceptor
from granulo_core.rpc.ports import bind, server_options
from granulo_core.security import tls
from granulo_core.security.settings import SecuritySettings
from granulo_core.settings import CoreSettings
from granulo_core.telemetry import traces
from granulo_core.telemetry.exposition import MetricsPort
from granulo_core.telemetry.logs import configure_worker_logging
from granulo_segmenter.predictor.batching import BatchingParameters

_MESSAGE_BYTES = 64 << 20
_SHORT_CALLS = 8
"""Threads beside those of predictions: status and health are answered while the queue is full."""
_GRACE_S = 5.0


def add_services(server: grpc.Server, shelf: Any, parameters: BatchingParameters) -> Any:
    """Add PredictionService and ModelService over a ``ModelShelf`` (imports TensorFlow).

    Returns
    -------
    PredictionServicer
        To be closed at the end.
    """
    from tensorflow_serving.apis import (  # type: ignore[import-untyped,unused-ignore]
        model_service_pb2_grpc,
        prediction_service_pb2_grpc,
    )

    from granulo_segmenter.predictor.management import ModelServicer
    from granulo_segmenter.predictor.servicers import PredictionServicer

    predictions = PredictionServicer(shelf, parameters)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(predictions, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(shelf), server)
    return predictions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until SIGTERM or SIGINT."""
    options = _parse(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # As whoever started it; to stderr, because stdout carries the address and nothing else.
    configure_worker_logging()
    traces.configure_worker_traces("granulo-model-server")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if options.die_with_parent:
        _die_with_parent()

    parameters = _parameters(options)
    # Bound before TensorFlow is imported: a port in use is told at once.
    server, health, address = _bind(options.listen, parameters, _security(options.listen))
    metrics = _open_metrics(options.metrics_listen)
    predictions = None
    try:
        models = _open_models(Path(options.base), options.threads, float32=options.float32)
        predictions = add_services(server, models, parameters)
        models.scan()
        server.start()
        _set_health(health, serving=True)
        sys.stdout.write(json.dumps({"address": address}) + "\n")
        sys.stdout.flush()
        while not stop.wait(options.poll_s):
            models.scan()
    finally:
        _set_health(health, serving=False)
        server.stop(_GRACE_S).wait()
        if predictions is not None:
            predictions.close()
        metrics.close()
        traces.flush()
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m granulo_segmenter.predictor.embedded",
        description="Serve SavedModels by the protocol of TensorFlow Serving.",
    )
    parser.add_argument(
        "--listen", default="127.0.0.1:0", help="host:port; port 0 takes a free one; or unix:PATH"
    )
    parser.add_argument("--base", required=True, help="folder with <model>/<version>/")
    parser.add_argument(
        "--threads", type=int, default=0, help="cores for one prediction; 0 takes all"
    )
    for name, meaning in (
        ("max_batch_size", "requests of equal shape that are computed together"),
        ("batch_timeout_micros", "how long a batch that is not full waits for more"),
        ("max_enqueued_batches", "batches that wait at most; UNAVAILABLE beyond them"),
        ("num_batch_threads", "batches that are computed at the same time"),
    ):
        default = getattr(BatchingParameters, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=default, help=f"{meaning} ({default})"
        )
    parser.add_argument(
        "--float32", action="store_true", help="no bfloat16, also where the processor has it"
    )
    parser.add_argument(
        "--metrics-listen", default="", help="host:port at which Prometheus may ask for metrics"
    )
    parser.add_argument("--poll-s", type=float, default=1.0, help="seconds between looks at BASE")
    parser.add_argument(
        "--die-with-parent", action=argparse.BooleanOptionalAction, default=True,
        help="end when the process that started this one has ended",
    )  # fmt: skip
    return parser.parse_args(arguments)


def _parameters(options: argparse.Namespace) -> BatchingParameters:
    try:
        return BatchingParameters(
            max_batch_size=options.max_batch_size,
            batch_timeout_micros=options.batch_timeout_micros,
            max_enqueued_batches=options.max_enqueued_batches,
            num_batch_threads=options.num_batch_threads,
        )
    except ValueError as error:
        _fail(f"the model server cannot start: {error}")


def _security(listen: str) -> SecuritySettings:
    """Certificates and limits from the environment; a Unix socket needs none."""
    if listen.startswith("unix:"):
        return SecuritySettings.model_construct()
    try:
        return CoreSettings.load(listen=listen)
    except GranuloError as error:
        _fail(f"the model server cannot start: {error.message}")


def _open_metrics(listen: str) -> MetricsPort:
    port = MetricsPort()
    try:
        if listen:
            port.listen(listen)
    except GranuloError as error:
        _fail(f"the model server cannot start: {error.message}")
    return port


def _open_models(base: Path, threads: int, *, float32: bool) -> Any:
    import tensorflow as tf

    from granulo_segmenter.predictor.processor import has_bfloat16
    from granulo_segmenter.predictor.shelf import ModelShelf

    threads = threads or len(os.sched_getaffinity(0))
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(min(2, threads))
    if has_bfloat16() and not float32:
        # Convolutions only, chosen by TensorFlow; how fast it is: docs/performance.md.
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": True})
    return ModelShelf(base)


def _bind(
    listen: str, parameters: BatchingParameters, security: SecuritySettings
) -> tuple[grpc.Server, Any, str]:
    from grpc_health.v1 import health, health_pb2_grpc

    predicting = parameters.capacity + parameters.num_batch_threads * parameters.max_batch_size
    threads = predicting + _SHORT_CALLS
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="rpc"),
        # Calls beyond it hold their messages in memory: RESOURCE_EXHAUSTED at once instead.
        maximum_concurrent_rpcs=2 * threads,
        interceptors=[ObservingInterceptor()],
        options=server_options(security, _MESSAGE_BYTES),
    )
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    try:
        port = bind(server, listen, tls.server_credentials(security))
    except GranuloError:
        _fail(f"the model server cannot listen on {listen}: the port is in use or not allowed")
    if listen.startswith("unix:"):
        return server, servicer, listen
    return server, servicer, f"{listen.rsplit(':', 1)[0]}:{port}"


def _set_health(servicer: Any, *, serving: bool) -> None:
    from grpc_health.v1 import health_pb2

    state = (
        health_pb2.HealthCheckResponse.SERVING
        if serving
        else health_pb2.HealthCheckResponse.NOT_SERVING
    )
    for service in ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"):
        servicer.set(service, state)


def _die_with_parent() -> None:
    """End when the parent does, also when it was killed and could not say so.

    The kernel's own signal for this comes when the *thread* that started us ends, which may be
    long before the parent does, so the parent's id is watched instead.
    """
    parent = os.getppid()
    if parent == 1:
        return

    def watch() -> None:
        pause = threading.Event()
        while not pause.wait(0.5):
            if os.getppid() != parent:
                os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _fail(message: str) -> NoReturn:
    sys.stderr.write(message + "\n")
    raise SystemExit(2)


if __name__ == "__main__":
    raise SystemExit(main())
