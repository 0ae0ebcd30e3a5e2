# SPDX-License-Identifier: GPL-3.0-or-later
"""`granulo screen` and ScreenMicrographs: a running measurement through the real segmenter."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
import tifffile

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo.analyzer.v1 import analyzer_service_pb2_grpc as rpc
from granulo_client import Client
from granulo_client.errors import InvalidArgumentError
from granulo_client.standalone import Standalone

_GRANULO = (str(Path(sys.executable).with_name("granulo")),)
_DIAMETER_PX = 25
_FIELDS = 4
_LIMIT_S = 240
pytestmark = pytest.mark.timeout(2 * _LIMIT_S)


def field(seed: int, size: int = 256) -> np.ndarray:
    """Bright discs of one size on a grid, with noise."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size), 50.0)
    for row in range(25, size - 20, 50):
        for column in range(25, size - 20, 50):
            shift = rng.uniform(-6, 6, 2)
            cv2.circle(
                image,
                (round((column + shift[0]) * 16), round((row + shift[1]) * 16)),
                round(_DIAMETER_PX / 2 * 16),
                170.0,
                -1,
                shift=4,
            )
    image = cv2.GaussianBlur(image, (0, 0), 1) + rng.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Folder with micrographs, one file that is none, and a standalone; and its address."""
    folder = tmp_path_factory.mktemp("screen")
    images = folder / "images"
    images.mkdir()
    for number in range(_FIELDS):
        tifffile.imwrite(images / f"field{number}.tif", field(number))
    (images / "torn.tif").write_bytes((images / "field0.tif").read_bytes()[:300])
    standalone = Standalone.join(folder / "data")
    try:
        yield folder, standalone.address
    finally:
        standalone.leave()


@pytest.fixture(scope="module")
def folder(running: tuple[Path, str]) -> Path:
    return running[0]


@pytest.fixture(scope="module")
def address(running: tuple[Path, str]) -> str:
    return running[1]


def screen(folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    words = [*_GRANULO, "screen", *map(str, options), "--data", str(folder / "data")]
    return subprocess.run(words, capture_output=True, text=True, timeout=_LIMIT_S)


def test_a_folder_is_screened_and_a_bad_file_does_not_end_it(folder: Path) -> None:
    done = screen(folder, folder / "images", "--pixel-size", 2, "--target", "10%", "--json")
    result = json.loads(done.stdout)
    assert done.returncode != 0
    assert "torn.tif" in done.stderr
    assert result["images"] == _FIELDS
    assert result["running"]["median"] == pytest.approx(2 * _DIAMETER_PX, rel=0.08)
    bad = [item for item in result["micrographs"] if "error" in item]
    assert [Path(item["image"]).name for item in bad] == ["torn.tif"]
    assert all(item["counted"] == 25 for item in result["micrographs"] if "error" not in item)


def test_watching_ends_with_what_was_found(folder: Path, tmp_path: Path) -> None:
    words = [
        *_GRANULO, "screen", str(tmp_path), "--watch", "--settle", "0.2",
        "--json", "--data", str(folder / "data"),
    ]  # fmt: skip
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        # A shell's background jobs ignore Ctrl-C, and the test run may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stderr is not None
        for number in range(2):
            part = tmp_path / f".field{number}.tif"
            tifffile.imwrite(part, field(number))
            part.rename(tmp_path / f"field{number}.tif")
            lines: list[str] = []
            while not any(f"field{number}.tif:" in line for line in lines):
                line = process.stderr.readline()
                assert line, "".join(lines)
                lines.append(line)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=_LIMIT_S)
    finally:
        process.kill()
    assert json.loads(printed)["images"] == 2


def test_a_micrograph_of_a_name_is_counted_once(folder: Path, address: str) -> None:
    first, second = (folder / "images" / f"field{number}.tif" for number in range(2))
    with Client(address) as client:
        answers = list(client.screen([first, second, first], pixel_size_nm=2.0))
    assert [answer.correlation_id for answer in answers].count(str(first)) == 2
    assert max(answer.images for answer in answers) == 2
    assert {answer.image_particle_count for answer in answers} == {25}


def test_settings_come_first_and_are_checked(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = rpc.AnalyzerServiceStub(channel)
        micrograph = pb.ScreenedMicrograph(correlation_id="a", inline=b"no image")
        call = stub.ScreenMicrographs(
            iter([pb.ScreenMicrographsRequest(micrograph=micrograph)]), timeout=60
        )
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "settings" in caught.value.details()
    with Client(address) as client, pytest.raises(InvalidArgumentError, match="min_images"):
        list(client.screen([], min_images=-1))


def test_what_is_wrong_with_a_micrograph_is_its_answer(address: str) -> None:
    requests: list[Any] = [pb.ScreenMicrographsRequest(settings=pb.ScreeningSettings())]
    for name, content in (("none", {}), ("empty", {"inline": b""}), ("bad", {"inline": b"x" * 9})):
        micrograph = pb.ScreenedMicrograph(correlation_id=name, **content)
        requests.append(pb.ScreenMicrographsRequest(micrograph=micrograph))
    good = cv2.imencode(".png", field(7))[1].tobytes()
    micrograph = pb.ScreenedMicrograph(correlation_id="good", inline=good)
    requests.append(pb.ScreenMicrographsRequest(micrograph=micrograph))
    with grpc.insecure_channel(address) as channel:
        stub = rpc.AnalyzerServiceStub(channel)
        answers = {
            answer.correlation_id: answer
            for answer in stub.ScreenMicrographs(iter(requests), timeout=_LIMIT_S)
        }
    assert set(answers) == {"none", "empty", "bad", "good"}
    assert all(answers[name].error.message for name in ("none", "empty", "bad"))
    assert not answers["good"].HasField("error")
    assert answers["good"].running.unit == "[px]"
