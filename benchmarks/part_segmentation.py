# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds per segmented 2048 x 2048 px image with the default model, through its real server."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from scenes import micrograph
from stopwatch import Stopwatch, emit

from granulo_core.imaging.labels import encode_tiff
from granulo_core.imaging.read import read_micrograph
from granulo_core.store import ObjectStore, open_store
from granulo_segmenter.domain.overlay import draw_overlay, encode_png
from granulo_segmenter.domain.segmentation import segment
from granulo_segmenter.predictor import sync, versions
from granulo_segmenter.predictor.client import Predictor
from granulo_segmenter.predictor.versions import ResolvedModel

SIDE_PX = 2048
ROUNDS = 5


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(str(Path(folder) / "store"))
        served = Path(folder) / "served"
        sync.sync_once(store, served, versions.packaged_folder())
        command = [sys.executable, "-m", "granulo_segmenter.predictor.embedded"]
        command += ["--listen", "127.0.0.1:0", "--base", str(served)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        # Read on, or the server would block on a full pipe.
        line = server.stdout.readline() if server.stdout else ""
        threading.Thread(target=server.communicate, daemon=True).start()
        try:
            _measure(store, json.loads(line)["address"])
        finally:
            server.terminate()


def _measure(store: ObjectStore, address: str) -> None:
    pixels, layers = micrograph(SIDE_PX, 64, seed=1)
    size = (layers.pixel_size_nm, layers.pixel_size_nm)
    data = encode_tiff(pixels, size, kind="micrograph")
    model = versions.resolve(store, "")
    watch = Stopwatch()
    with Predictor(address) as predictor:
        for round_ in range(ROUNDS + 1):
            # The first round loads and warms up.
            _one(data, model, predictor, store, watch if round_ else Stopwatch())
    true = int(layers.instances.max())
    emit("segment", "s per image", watch.medians(), f"{SIDE_PX} px, {true} particles")


def _one(
    data: bytes,
    model: ResolvedModel,
    predictor: Predictor,
    store: ObjectStore,
    watch: Stopwatch,
) -> None:
    waiting_s = [0.0]

    def predict(
        tiles: Iterable[NDArray[Any]], names: Sequence[str]
    ) -> Iterator[Mapping[str, NDArray[Any]]]:
        started = time.perf_counter()
        found = list(predictor.predict_many(model.served, list(tiles), names))
        waiting_s[0] += time.perf_counter() - started
        return iter(found)

    with watch.stage("read"):
        image = read_micrograph(data, max_px=SIDE_PX**2)
    started = time.perf_counter()
    found = segment(image, model.facts, predict)
    seconds = time.perf_counter() - started
    watch.add("network and its server", waiting_s[0])
    watch.add("normalise, tiles, instances", seconds - waiting_s[0])
    with watch.stage("write labels and overlay"):
        store.put("bench/labels.tif", encode_tiff(found.labels, image.pixel_size, kind="labels"))
        store.put("bench/overlay.png", encode_png(draw_overlay(image.pixels, found.labels)))


if __name__ == "__main__":
    main()
