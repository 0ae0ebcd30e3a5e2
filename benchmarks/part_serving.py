# SPDX-License-Identifier: GPL-3.0-or-later
"""Images a second through the whole serving path: one client, and eight at once.

The servers are processes as in operation: the segmenter, and the embedded model server with the
default model. Rounds of one client and of eight alternate, so that other work on the machine meets
both alike; what counts is the ratio.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
from scenes import micrograph
from stopwatch import emit

from granulo.type.v1 import artifact_pb2
from granulo_client import Client
from granulo_client.errors import GranuloClientError
from granulo_core.imaging.labels import encode_tiff
from granulo_core.store import ObjectStore, open_store
from granulo_segmenter.predictor import versions
from granulo_segmenter.predictor.sync import sync_once

SIDE_PX = 1024
CLIENTS = 8
ROUNDS = 5
IMAGES = 8
"""Of one round."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(str(Path(folder) / "store"))
        served = Path(folder) / "served"
        sync_once(store, served, versions.packaged_folder())
        with _servers(store, served) as address:
            _measure(store, address)


def _measure(store: ObjectStore, address: str) -> None:
    images = []
    for seed in range(2):
        pixels, layers = micrograph(SIDE_PX, 64, seed=seed)
        size = (layers.pixel_size_nm, layers.pixel_size_nm)
        stored = store.put(f"uploads/bench-{seed}", encode_tiff(pixels, size, kind="micrograph"))
        images.append(artifact_pb2.Artifact(uri=stored.key, display_name=f"{seed}.tif"))
    seconds: dict[int, list[float]] = {1: [], CLIENTS: []}
    failed: list[GranuloClientError] = []
    with Client(address) as client:

        def one(index: int) -> None:
            try:
                client.segment_image(images[index % len(images)], timeout_s=600)
            except GranuloClientError as error:
                failed.append(error)

        one(0)  # the first one loads and warms up
        for _ in range(ROUNDS):
            for clients, rounds in seconds.items():
                with ThreadPoolExecutor(clients) as pool:
                    started = time.perf_counter()
                    list(pool.map(one, range(IMAGES)))
                    rounds.append((time.perf_counter() - started) / IMAGES)
    if failed:
        sys.exit(f"{len(failed)} requests failed, the first with: {failed[0].message}")
    single, many = (statistics.median(rounds) for rounds in seconds.values())
    # Of neighbouring rounds: other work on the machine meets both.
    ratios = sorted(one / other for one, other in zip(*seconds.values(), strict=True))
    note = (
        f"{statistics.median(ratios):.2f} x one client's rate (rounds {ratios[0]:.2f} to "
        f"{ratios[-1]:.2f}); none failed"
    )
    emit(f"serve {SIDE_PX} px, one client", "s per image", {"call": single})
    emit(f"serve {SIDE_PX} px, {CLIENTS} clients", "s per image", {"call": many}, note)


@contextmanager
def _servers(store: ObjectStore, served: Path) -> Iterator[str]:
    """Address of a segmenter with its model server."""
    command = [sys.executable, "-m", "granulo_segmenter.predictor.embedded", "--base", str(served)]
    model_server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = model_server.stdout.readline() if model_server.stdout else ""
    # Read on, or the server would block on a full pipe.
    threading.Thread(target=model_server.communicate, daemon=True).start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {
        "GRANULO_STORE_URL": store.url,
        "GRANULO_LISTEN": address,
        "GRANULO_MODEL_SERVER": json.loads(line)["address"],
        "GRANULO_LOG_LEVEL": "error",
    }
    segmenter = subprocess.Popen(
        [sys.executable, "-m", "granulo_segmenter"], env={**os.environ, **environment}
    )
    try:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(120)
        yield address
    finally:
        for process in (segmenter, model_server):
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
