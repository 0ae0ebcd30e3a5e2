# SPDX-License-Identifier: GPL-3.0-or-later
"""The segmenter under load, deadlines, promotes and bad files: real processes on both sides."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
import tifffile
from PIL import Image

from granulo.segmenter.v1 import segmenter_service_pb2 as pb
from granulo.segmenter.v1 import segmenter_service_pb2_grpc as rpc
from granulo.type.v1 import artifact_pb2
from granulo_client import Client
from granulo_client.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    GranuloClientError,
    InvalidArgumentError,
)
from granulo_core.store import LocalStore
from granulo_segmenter.predictor import wire
from granulo_segmenter.predictor.sync import ModelSync

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from serving_parts import Running, cpu_s, peak_mib
from tiny_network import DISCS, save_network

LONG_S = 240.0
CALLS_AT_ONCE, CALLS_WAITING = 2, 4


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("serving")
    networks = folder / "networks"
    tile = np.zeros((1, 32, 32, 1), np.uint8)
    save_network(networks / "finds", warmup=tile)
    save_network(networks / "blind", threshold=400.0, warmup=tile)
    save_network(networks / "cannot warm up", warmup=tile.astype(np.float32))
    save_network(networks / "slow", spin=600)
    save_network(networks / "without distance", outputs=1)
    store = LocalStore(folder / "store")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    models = folder / "models"
    ModelSync(store, models, networks / "finds").round()
    server = subprocess.Popen(
        [sys.executable, "-m", "granulo_segmenter.predictor.embedded", "--base", str(models),
         "--threads", "1", "--poll-s", "0.1", "--max-enqueued-batches", "8"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    model_address = json.loads(server.stdout.readline())["address"]
    log = folder / "segmenter.log"
    with log.open("wb") as stderr:
        segmenter = subprocess.Popen(
            [sys.executable, "-m", "granulo_segmenter"], stderr=stderr,
            env={
                **os.environ,
                "GRANULO_STORE_URL": store.url,
                "GRANULO_LISTEN": f"127.0.0.1:{port}",
                "GRANULO_MODEL_SERVER": model_address,
                "GRANULO_PACKAGED_MODEL": str(networks / "finds"),
                "GRANULO_CALLS_AT_ONCE": str(CALLS_AT_ONCE),
                "GRANULO_CALLS_WAITING": str(CALLS_WAITING),
                "GRANULO_CALL_PATIENCE_S": "60",
                "GRANULO_MAX_CALL_PX": str(2000 * 2000),
                "GRANULO_WORKERS": "1",
            },
        )  # fmt: skip
    stop = threading.Event()
    sync = ModelSync(store, models, networks / "finds", interval_s=0.1)
    thread = threading.Thread(target=sync.run, args=(stop,))
    thread.start()
    made = Running(
        store, f"127.0.0.1:{port}", model_address, server, segmenter, networks, log
    )  # fmt: skip
    with grpc.insecure_channel(made.address) as channel:
        grpc.channel_ready_future(channel).result(LONG_S)
    yield made
    stop.set()
    thread.join()
    for process in (segmenter, server):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.address) as made:
        yield made


def picture(side: int = 140, shift: int = 0) -> np.ndarray:
    image = np.random.default_rng(shift).normal(50, 4, (side, side))
    y, x = np.mgrid[:side, :side]
    for row, column in DISCS:
        image[(y - row) ** 2 + (x - column) ** 2 <= 121] += 130
    return image.clip(0, 255).astype(np.uint8)


def encoded(array: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form)
    return buffer.getvalue()


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)


@pytest.mark.parametrize("count", [24, pytest.param(60, marks=pytest.mark.long)])
def test_many_calls_at_once_all_succeed_and_memory_stays_bounded(
    running: Running, client: Client, count: int
) -> None:
    options = pb.SegmentationOptions(tile_px=768)
    images = [running.upload(encoded(picture(640, shift))) for shift in range(3)]
    client.segment_image(images[0], options=options)
    before_mib = peak_mib(running.segmenter)
    with ThreadPoolExecutor(count) as pool:
        answers = list(
            pool.map(
                lambda index: client.segment_image(
                    images[index % 3], options=options, timeout_s=LONG_S
                ),
                range(count),
            )
        )
    assert [answer.result.particle_count for answer in answers] == [len(DISCS)] * count
    # The queue has six places: the others were told to come back, and did.
    log = running.log.read_text()
    assert "SERVER_BUSY" in log or "TOO_MANY_STREAMS" in log
    # Sixty images in memory at once would take a gigabyte, and two dozen half of it.
    assert peak_mib(running.segmenter) - before_mib < 250


def slow_images(running: Running, count: int) -> list[artifact_pb2.Artifact]:
    if 1 not in running.status("slow"):
        running.promote("slow", 1, "slow")
        until(lambda: running.status("slow").get(1, (0, ""))[0] == wire.STATE_AVAILABLE)
    return [running.upload(encoded(picture(600, shift))) for shift in range(count)]


def assert_work_ends(running: Running) -> None:
    """Both processes stop computing soon: dozens of slow tiles were left."""
    end_s = time.monotonic() + 60
    while True:
        before_s = cpu_s(running.server, running.segmenter)
        time.sleep(1.0)
        used_s = cpu_s(running.server, running.segmenter) - before_s
        # Looking for new versions goes on all the time.
        if used_s < 0.35:
            return
        assert time.monotonic() < end_s, f"{used_s} s of work in a second"


def test_a_deadline_that_passes_stops_the_work_and_frees_the_place(
    running: Running, client: Client
) -> None:
    (image,) = slow_images(running, 1)
    for _ in range(CALLS_AT_ONCE + CALLS_WAITING + 1):
        with pytest.raises(DeadlineExceededError):
            client.segment_image(image, model="slow", timeout_s=0.5)
    assert_work_ends(running)
    # Later calls find all the places free.
    answer = client.segment_image(running.upload(encoded(picture())), timeout_s=LONG_S)
    assert answer.result.particle_count == len(DISCS)


def test_a_stream_that_is_cancelled_stops_the_work(running: Running) -> None:
    images = slow_images(running, 6)
    requests = [
        pb.SegmentImagesRequest(
            correlation_id=str(index),
            request=pb.SegmentImageRequest(model="models/slow", artifact=image),
        )
        for index, image in enumerate(images)
    ]
    with grpc.insecure_channel(running.address) as channel:
        call = rpc.SegmenterServiceStub(channel).SegmentImages(iter(requests), timeout=LONG_S)
        before_s = cpu_s(running.server)
        until(lambda: cpu_s(running.server) > before_s + 0.2)
        call.cancel()
        with suppress(grpc.RpcError):
            list(call)
    assert_work_ends(running)


def test_promotes_and_rollbacks_fail_no_request_and_mix_no_versions(
    running: Running, client: Client
) -> None:
    image = running.upload(encoded(picture()))
    found = {1: len(DISCS), 2: 0, 4: len(DISCS)}
    running.promote("switched", 1, "finds")
    seen: list[tuple[float, int, int]] = []
    failures: list[GranuloClientError] = []
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            begun_s = time.monotonic()
            try:
                answer = client.segment_image(image, model="switched", timeout_s=LONG_S)
            except GranuloClientError as error:
                failures.append(error)
                return
            version = int(answer.resolved_model_version.rsplit("/", 1)[1])
            seen.append((begun_s, version, answer.result.particle_count))

    def begun_since(start_s: float) -> list[int]:
        """Versions that answered what was asked since: slow answers may be of an older one."""
        return [version for begun_s, version, _ in seen if begun_s >= start_s]

    def wait_for(version: int) -> None:
        start_s = time.monotonic()
        until(lambda: bool(failures) or version in begun_since(start_s))

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_for(1)
        for version, network in ((2, "blind"), (1, "finds")):
            running.promote("switched", version, network)
            wait_for(version)
        # One that cannot be loaded changes nothing, and its status says why.
        running.promote("switched", 3, "cannot warm up")
        until(lambda: running.status("switched").get(3, (0, ""))[0] == wire.STATE_END)
        start_s = time.monotonic()
        until(lambda: bool(failures) or len(begun_since(start_s)) > 6)
        assert running.status("switched")[3][1]
        assert set(begun_since(start_s)) == {1}
        running.promote("switched", 4, "finds")
        wait_for(4)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert {version for _, version, _ in seen} == {1, 2, 4}
    assert all(count == found[version] for _, version, count in seen)


def test_a_version_that_a_request_names_is_never_replaced(running: Running, client: Client) -> None:
    running.promote("named", 1, "finds")
    running.promote("named", 2, "cannot warm up")
    until(lambda: running.status("named").get(2, (0, ""))[0] == wire.STATE_END)
    image = running.upload(encoded(picture()))
    with pytest.raises(FailedPreconditionError, match="cannot load") as caught:
        client.segment_image(image, model="named/2")
    assert caught.value.reason == "MODEL_SIGNATURE_MISMATCH"


def test_a_model_with_another_signature_is_told(running: Running, client: Client) -> None:
    running.promote("odd", 1, "without distance")
    with pytest.raises(FailedPreconditionError, match="distance") as caught:
        client.segment_image(running.upload(encoded(picture())), model="odd")
    assert caught.value.reason == "MODEL_SIGNATURE_MISMATCH"


def bad_files() -> Iterator[tuple[str, bytes]]:
    whole = {form: encoded(picture(), form) for form in ("PNG", "TIFF", "JPEG", "BMP")}
    for form, data in whole.items():
        yield f"cut {form}", data[: len(data) // 2]
        yield f"head of {form}", data[:20]
    yield "no bytes of an image", b"just text" * 50
    yield "zeros", bytes(5000)
    flipped = bytearray(whole["PNG"])
    flipped[60:90] = bytes(30)
    yield "damaged PNG", bytes(flipped)
    yield "one pixel", encoded(np.full((1, 1), 7, np.uint8))
    yield "one row", encoded(np.full((1, 500), 7, np.uint8))
    yield "too many pixels", encoded(np.zeros((2001, 2000), np.uint8))
    header = bytearray(whole["PNG"])
    header[16:24] = (60000).to_bytes(4, "big") * 2
    yield "PNG that declares 60,000 squared", bytes(header)
    bomb = io.BytesIO()
    tifffile.imwrite(bomb, np.zeros((8000, 8000), np.uint8), compression="zlib")
    yield "bomb", bomb.getvalue()
    noise = np.random.default_rng(0).bytes(4000)
    for form, start in (("TIFF", b"II*\0"), ("PNG", whole["PNG"][:8]), ("JPEG", b"\xff\xd8\xff")):
        yield f"noise that begins like {form}", start + noise
    yield "GIF header", b"GIF89a" + bytes(100)


def odd_images() -> Iterator[tuple[str, bytes]]:
    for name, array in (
        ("black", np.zeros((140, 140), np.uint8)),
        ("white", np.full((140, 140), 255, np.uint8)),
        ("NaN", np.full((140, 140), np.nan, np.float32)),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array)
        yield name, buffer.getvalue()


def test_bad_files_are_refused_and_the_next_request_is_answered(
    running: Running, client: Client
) -> None:
    good = running.upload(encoded(picture()))
    count = 0
    for name, data in bad_files():
        with pytest.raises(InvalidArgumentError) as caught:
            client.segment_image(running.upload(data, f"{name}.tif"), timeout_s=LONG_S)
        assert caught.value.reason.startswith("IMAGE_"), name
        count += 1
    assert count >= 20
    for name, data in odd_images():
        # Nothing to see is a result; no numbers at all may be refused.
        with suppress(InvalidArgumentError) if name == "NaN" else nullcontext():
            answer = client.segment_image(running.upload(data, f"{name}.tif"), timeout_s=LONG_S)
            assert answer.result.particle_count == 0, name
    assert client.segment_image(good, timeout_s=LONG_S).result.particle_count == len(DISCS)
    assert running.segmenter.poll() is None


def test_a_stream_of_the_client_answers_every_image_and_survives_bad_ones(
    running: Running, client: Client
) -> None:
    sources = [running.upload(encoded(picture(shift=shift))) for shift in range(6)]
    sources.insert(3, running.upload(b"no image", "bad.tif"))
    answers = dict(client.segment_images(sources, timeout_s=LONG_S))
    assert sorted(answers) == list(range(7))
    bad = answers.pop(3)
    assert isinstance(bad, pb.SegmentImagesError)
    assert bad.reason == "IMAGE_UNREADABLE"
    for answer in answers.values():
        assert isinstance(answer, pb.SegmentImageResponse)
        assert answer.result.particle_count == len(DISCS)
