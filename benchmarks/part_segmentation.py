# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds per segmented 2048 x 2048 px image with the default model, stage by stage.

Beside it, in the same rounds: the paper's post-processing written plainly with scikit-image, and
the whole service (gRPC, store, engine, worker) against the same functions called in process.
"""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.longrunning import operations_pb2, operations_pb2_grpc
from numpy.typing import NDArray
from scenes import micrograph
from scipy import ndimage
from skimage.exposure import equalize_adapthist
from skimage.morphology import h_maxima, remove_small_objects
from skimage.segmentation import watershed
from stopwatch import Stopwatch, emit

from granulo.segmenter.v1 import segmenter_service_pb2 as pb
from granulo.segmenter.v1 import segmenter_service_pb2_grpc as rpc
from granulo_core.engine.local import LocalEngine
from granulo_core.imaging import instances
from granulo_core.imaging.labels import encode_tiff
from granulo_core.imaging.normalise import to_network_input
from granulo_core.imaging.read import read_micrograph
from granulo_core.rpc.serve import ServiceParts
from granulo_core.rpc.server import build_server
from granulo_core.settings import CoreSettings
from granulo_core.store import ObjectStore, open_store
from granulo_segmenter.domain import blocks, particles, segmentation
from granulo_segmenter.domain.jobs import Outputs
from granulo_segmenter.domain.maps import Maps
from granulo_segmenter.domain.options import Options, tile_plan
from granulo_segmenter.domain.planes import ArrayPlane, whole
from granulo_segmenter.domain.segmentation import Segmented, segment
from granulo_segmenter.domain.tiling import cut_tiles
from granulo_segmenter.predictor import sync, versions
from granulo_segmenter.predictor.client import Predictor
from granulo_segmenter.predictor.versions import ResolvedModel
from granulo_segmenter.servicer import build
from granulo_segmenter.settings import SegmenterSettings
from granulo_segmenter.writing import Written, write_results

SIDE_PX = 2048
ROUNDS = 3


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(str(Path(folder) / "store"))
        served = Path(folder) / "served"
        sync.sync_once(store, served, versions.packaged_folder())
        command = [sys.executable, "-m", "granulo_segmenter.predictor.embedded"]
        command += ["--listen", "127.0.0.1:0", "--base", str(served)]
        command += ["--float32"] if CoreSettings.load().model_server_float32 else []
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
    stages, plain, in_process, service = Stopwatch(), Stopwatch(), Stopwatch(), Stopwatch()
    with Predictor(address) as predictor, Service(store, address) as create:
        for round_ in range(ROUNDS + 1):
            # The first round loads and warms up.
            kept = bool(round_)
            maps = _stages(data, model, predictor, stages if kept else Stopwatch())
            _plainly(pixels, maps, plain if kept else Stopwatch())
            with (in_process if kept else Stopwatch()).stage("the same functions in process"):
                _in_process(data, model, predictor)
            # Another image every time, or the result would be found and not made.
            other = data + bytes(round_ + 1)
            with (service if kept else Stopwatch()).stage("CreateSegmentation, worker and store"):
                create(other)
    true = int(layers.instances.max())
    note = f"{SIDE_PX} px, {true} particles"
    emit("segment", "s per image", stages.medians(), note)
    emit("the paper's post-processing, plain scikit-image", "s per image", plain.medians(), note)
    both = {**in_process.medians(), **service.medians()}
    emit("segment, once in process and once as a service", "s", both, note)


def _stages(
    data: bytes, model: ResolvedModel, predictor: Predictor, watch: Stopwatch
) -> dict[str, NDArray[np.float32]]:
    """All that `tasks.segment_shard` does, taken apart."""
    facts = model.facts
    with watch.stage("read"):
        image = read_micrograph(data, max_px=SIDE_PX**2)
    with watch.stage("normalise"):
        seen = ArrayPlane(to_network_input(image.content, facts.convention))
    with watch.stage("tiles"):
        plan = tile_plan(seen.shape, Options(), facts)
        tiles = list(cut_tiles(seen, plan))
    names = (segmentation.FOREGROUND, segmentation.DISTANCE)
    with watch.stage("network and its server"):
        outputs = list(predictor.predict_many(model.served, tiles, names))
    with watch.stage("stitch"):
        planes = {name: ArrayPlane.zeros(seen.shape, np.float16) for name in names}
        segmentation.tiles.store_tiles(plan, outputs, planes)
        maps = Maps(planes, seen.shape)
    with watch.stage("split"):
        found, keep, labels = _split(maps, seen, model)
    with watch.stage("confidence"):
        calibration = segmentation.CALIBRATIONS["distance"]
        described = particles.describe(found, keep, labels, maps, calibration)
        particles.renumber(labels, keep)
    with watch.stage("write"), tempfile.TemporaryDirectory() as folder:
        result = Segmented(labels, described, False, maps)
        plane = ArrayPlane(image.pixels)
        written = Written(result, plane, seen.shape, "a.tif", image.pixel_size, in_memory=True)
        write_results(written, Outputs(), Path(folder))
    return {name: maps.read(name, whole(seen.shape)) for name in names}


def _split(
    maps: Maps, seen: ArrayPlane, model: ResolvedModel
) -> tuple[blocks.Found, NDArray[np.bool_], ArrayPlane]:
    params = model.facts.instances
    labels = ArrayPlane.zeros(seen.shape, np.uint32)
    found = blocks.stitch(
        lambda window: instances.find(*(maps.read(name, window) for name in maps.planes), params),
        labels,
    )
    keep = found.area_px > 0
    keep &= instances.is_no_scrap(found.area_px, params.min_area_px, params.min_area_fraction)
    keep &= ~particles.faint(found, keep, labels, seen, params.min_contrast_fraction)
    return found, keep, labels


def _plainly(pixels: NDArray[Any], maps: Mapping[str, NDArray[Any]], watch: Stopwatch) -> None:
    """M13 and M20 to M22 as one would write them."""
    with watch.stage("CLAHE"):
        equalize_adapthist(pixels)
    with watch.stage("threshold, area opening"):
        mask = remove_small_objects(maps[segmentation.FOREGROUND] > 0.51, max_size=400)
    with watch.stage("distance transform"):
        distance = ndimage.distance_transform_edt(mask)
    with watch.stage("h-maxima"):
        markers, _ = ndimage.label(h_maxima(distance, 4))
    with watch.stage("watershed"):
        watershed(-distance, markers, mask=mask)


def _in_process(data: bytes, model: ResolvedModel, predictor: Predictor) -> None:
    def predict(
        tiles: Iterable[NDArray[Any]], names: Sequence[str]
    ) -> Iterator[Mapping[str, NDArray[Any]]]:
        return predictor.predict_many(model.served, tiles, names)

    image = read_micrograph(data, max_px=SIDE_PX**2)
    found = segment(image, model.facts, predict)
    result = Segmented(ArrayPlane(found.labels), found.particles, found.inverted, found.maps)
    shape = image.pixels.shape[0], image.pixels.shape[1]
    with tempfile.TemporaryDirectory() as folder:
        plane = ArrayPlane(image.pixels)
        written = Written(result, plane, shape, "a.tif", image.pixel_size, in_memory=True)
        write_results(written, Outputs(), Path(folder))


class Service:
    """A segmenter with its engine; calling it segments one image through it."""

    def __init__(self, store: ObjectStore, address: str) -> None:
        self._store = store
        settings = SegmenterSettings(store_url=store.url, model_server=address)
        self._engine = LocalEngine(cpus=1)
        self._built = build(ServiceParts(store, self._engine, settings))
        self._server = build_server(
            [self._built.registration], runners=[self._built.runner], store=store,
            settings=settings,
        )  # fmt: skip

    def __enter__(self) -> Callable[[bytes], None]:
        self._channel = grpc.insecure_channel(self._server.start("127.0.0.1:0"))
        return self._create

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._server.stop()
        self._built.runner.close()
        self._built.close()
        self._engine.close()

    def _create(self, data: bytes) -> None:
        key = f"uploads/{versions.digest_of(data).removeprefix('sha256:')}"
        stored = self._store.put(key, data, "image/tiff")
        request = pb.CreateSegmentationRequest()
        request.segmentation.images.images.add(uri=stored.key, display_name="a.tif")
        operation = rpc.SegmenterServiceStub(self._channel).CreateSegmentation(request)
        wait = operations_pb2.WaitOperationRequest(name=operation.name)
        stub = operations_pb2_grpc.OperationsStub(self._channel)
        while not operation.done:
            operation = stub.WaitOperation(wait)
        if operation.error.code:
            raise RuntimeError(operation.error.message)


if __name__ == "__main__":
    main()
