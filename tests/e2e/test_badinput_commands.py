# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input through the command and through gRPC: refused before any work, with a remedy."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from granulo_client import Client, InvalidArgumentError, load_recipe
from granulo_client.cli import run_command
from granulo_client.standalone import command

_SIDE_PX = 192
_LIMIT_PX = 500_000
_RECIPE = """\
classes:
  - sphere: {}
    diameter_nm: {normal: {mean: 100, stddev: 10}}
imaging: {pixel_size_nm: 5, size_px: 128}
"""


@dataclass(frozen=True)
class Granulo:
    """A running standalone and a micrograph that it rendered."""

    address: str
    micrograph: NDArray[np.uint8]
    dataset: str

    def operations(self) -> set[str]:
        with Client(self.address) as client:
            return {operation.name for operation in client.operations.list()}


@pytest.fixture(scope="module")
def granulo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Granulo]:
    folder = tmp_path_factory.mktemp("badinput")
    with ExitStack() as stack:
        process = subprocess.Popen(
            command(folder / "data", ["--announce"]),
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "GRANULO_MAX_IMAGE_PX": str(_LIMIT_PX)},
        )
        stack.callback(process.communicate)
        stack.callback(process.terminate)
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        with Client(address) as client:
            dataset = client.render("sio2", count=1, seed=3, size_px=_SIDE_PX).result()
            image = client.download(dataset.images[0], folder / "image.tif")
        yield Granulo(address, tifffile.imread(image), dataset.name)


@pytest.fixture
def refused(granulo: Granulo, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run a command that must be refused without starting anything; its error."""

    def run(*words: str | Path) -> dict[str, Any]:
        before = granulo.operations()
        code = run_command([*map(str, words), "--server", granulo.address, "--json", "--quiet"])
        printed = capsys.readouterr()
        assert code == 2, printed.err
        assert printed.err.startswith("Error: ")
        assert granulo.operations() == before
        error: dict[str, Any] = json.loads(printed.out)["error"]
        return error

    return run


def test_an_unknown_preset(refused: Callable[..., dict[str, Any]]) -> None:
    error = refused("render", "gold", "--count", "2")

    assert error["violations"][0]["field"] == "dataset.preset"
    assert "sio2, tio2" in error["message"]


def test_a_negative_count(refused: Callable[..., dict[str, Any]], granulo: Granulo) -> None:
    assert "--count is -3" in refused("render", "sio2", "--count", "-3")["message"]
    with Client(granulo.address) as client, pytest.raises(InvalidArgumentError) as caught:
        client.render("sio2", count=-3)
    assert caught.value.violations[0].field == "dataset.image_count"


def test_nan_sizes_in_a_recipe(
    refused: Callable[..., dict[str, Any]], granulo: Granulo, tmp_path: Path
) -> None:
    path = tmp_path / "nan.yaml"
    path.write_text(_RECIPE.replace("mean: 100", "mean: .nan"))
    error = refused("render", path, "--count", "2")
    assert f"{path}:3: classes[0].diameter_nm.normal.mean: is nan" in error["message"]

    path.write_text(_RECIPE)
    recipe = load_recipe(path)
    recipe.classes[0].diameter_nm.normal.mean = float("nan")
    with Client(granulo.address) as client, pytest.raises(InvalidArgumentError) as caught:
        client.render(recipe, count=2)
    assert "classes[0].diameter_nm" in caught.value.violations[0].field


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("truncated", "IMAGE_UNREADABLE"),
        ("text", "IMAGE_UNREADABLE"),
        ("empty", "IMAGE_UNREADABLE"),
        ("one pixel", "IMAGE_TOO_SMALL"),
        ("over the limit", "IMAGE_TOO_LARGE"),
    ],
)
def test_an_unusable_image(
    refused: Callable[..., dict[str, Any]],
    granulo: Granulo,
    tmp_path: Path,
    kind: str,
    reason: str,
) -> None:
    good, bad = tmp_path / "good.tif", tmp_path / "bad.tif"
    tifffile.imwrite(good, granulo.micrograph)
    if kind == "truncated":
        bad.write_bytes(good.read_bytes()[:-5000])
    elif kind == "text":
        bad.write_text("no picture\n" * 100)
    elif kind == "empty":
        bad.touch()
    elif kind == "one pixel":
        tifffile.imwrite(bad, np.zeros((1, 1), np.uint8))
    else:
        tifffile.imwrite(bad, np.zeros((_LIMIT_PX // 500 + 1, 500), np.uint8))

    error = refused("segment", good, bad, "--out", tmp_path / "out")

    assert error["reason"] == reason
    assert "bad.tif" in error["message"]
    assert "images[1]" in error["violations"][0]["field"]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_model_that_does_not_exist(
    refused: Callable[..., dict[str, Any]], granulo: Granulo, tmp_path: Path
) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, granulo.micrograph)

    for model in ("nosuch", "nosuch/3"):
        error = refused("segment", path, "--out", tmp_path / "out", "--model", model)
        assert error["code"] == "NOT_FOUND"
        assert "models/nosuch" in error["message"]
    assert refused("models", "promote", "nosuch/3")["code"] == "NOT_FOUND"


def test_a_dataset_that_does_not_exist(refused: Callable[..., dict[str, Any]]) -> None:
    error = refused("train", "ds-000000000000", "--name", "x")

    assert "datasets/ds-000000000000" in error["message"]


def test_a_grey_level_image_is_no_truth(
    refused: Callable[..., dict[str, Any]], granulo: Granulo, tmp_path: Path
) -> None:
    found, truth = tmp_path / "found", tmp_path / "truth"
    found.mkdir()
    truth.mkdir()
    tifffile.imwrite(truth / "X.tif", granulo.micrograph)
    labels = np.zeros(granulo.micrograph.shape, np.uint16)
    labels[20:60, 20:60], labels[80:120, 80:120] = 1, 2
    tifffile.imwrite(found / "X_labels.tif", labels)

    error = refused("evaluate", found, truth)

    assert "X.tif" in error["message"]
    assert "grey-level" in error["message"]


def test_a_useless_pixel_size(
    refused: Callable[..., dict[str, Any]], granulo: Granulo, tmp_path: Path
) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, granulo.micrograph)

    for size in ("-1", "0", "nan", "inf"):
        words = ["segment", path, "--out", tmp_path / "out", "--pixel-size", size]
        assert "--pixel-size" in refused(*words)["message"]


def test_8_bit_16_bit_and_colour_images_work_and_without_pixel_size_there_are_no_nm(
    granulo: Granulo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = granulo.micrograph
    images = {
        "grey.tif": grey,
        "deep.tif": grey.astype(np.uint16) * 257,
        "colour.tif": np.repeat(grey[:, :, None], 3, axis=2),
    }
    for name, pixels in images.items():
        photometric = "rgb" if pixels.ndim == 3 else "minisblack"
        tifffile.imwrite(tmp_path / name, pixels, photometric=photometric)
    common = ["--server", granulo.address, "--json", "--quiet"]
    files = [str(tmp_path / name) for name in images]

    assert run_command(["segment", *files, "--out", str(tmp_path / "found"), *common]) == 0

    document = json.loads(capsys.readouterr().out)
    assert [item["pixel_size_nm"] for item in document["results"]] == [None] * 3
    labels = [tifffile.imread(item["labels"]) for item in document["results"]]
    assert [array.shape for array in labels] == [grey.shape] * 3
    assert document["results"][0]["particle_count"] > 0
    np.testing.assert_array_equal(labels[0], labels[2])

    found = [item["labels"] for item in document["results"]]
    words = ["analyze", *found, "--images", str(tmp_path), "--out", str(tmp_path / "measured")]
    assert run_command([*words, *common]) == 0
    summary = json.loads(capsys.readouterr().out)
    header = (tmp_path / "measured" / "particles.csv").read_text().splitlines()[0]
    assert "_nm" not in header
    assert "area_px" in header
    assert "nm" not in {item["unit"] for item in summary["summaries"]}
    assert (tmp_path / "measured" / "report.html").is_file()
    for name in ("particles.parquet", "coco.json", "rois/0001_grey_rois.zip"):
        assert (tmp_path / "measured" / name).is_file(), name


def test_a_port_in_use(granulo: Granulo, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            Path(sys.executable).with_name("granulo"),
            *("up", "--data", tmp_path, "--listen", granulo.address),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 2
    assert f"{granulo.address} cannot be bound" in done.stderr
    assert "Choose another port" in done.stderr


def test_nothing_was_lost(granulo: Granulo) -> None:
    with Client(granulo.address) as client:
        assert client.dataset(granulo.dataset).image_count == 1
