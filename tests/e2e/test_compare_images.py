# SPDX-License-Identifier: GPL-3.0-or-later
"""`granulo compare-images` and `Client.compare_image_sets` through a real standalone."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo_client import Client
from granulo_client.cli import run_command
from granulo_client.errors import CancelledError, InvalidArgumentError, NotFoundError
from granulo_client.standalone import Standalone

PATCH_PX = 48
IMAGES = 5


@dataclass(frozen=True)
class Running:
    """A standalone, folders that hold halves of one set of micrographs, and white noise."""

    address: str
    real: Path
    synthetic: Path
    noise: Path


def discs(seed: int, height: int = 110, width: int = 160) -> np.ndarray:
    """Discs of a brightness of their own on every image, with noise."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), rng.uniform(30, 60))
    for _ in range(12):
        centre = int(rng.integers(width)), int(rng.integers(height))
        cv2.circle(image, centre, int(rng.integers(6, 14)), rng.uniform(120, 200), -1)
    image = cv2.GaussianBlur(image, (0, 0), 1) + rng.normal(0, rng.uniform(3, 6), image.shape)
    return image.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("realism")
    folders = [root / name for name in ("real", "synthetic", "noise")]
    for folder in folders:
        folder.mkdir()
    for number in range(IMAGES):
        cv2.imwrite(str(folders[0] / f"r{number}.png"), discs(number))
        cv2.imwrite(str(folders[1] / f"s{number}.png"), discs(100 + number))
        white = np.random.default_rng(number).integers(0, 256, (110, 160), np.uint8)
        cv2.imwrite(str(folders[2] / f"n{number}.png"), white)
    standalone = Standalone.join(root / "data")
    try:
        yield Running(standalone.address, *folders)
    finally:
        standalone.leave()


@pytest.fixture
def compared(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, Any]]]:
    def run(*words: object) -> tuple[int, dict[str, Any]]:
        options = ["--out", str(tmp_path / "out"), "--patch", str(PATCH_PX), "--json", "--quiet"]
        arguments = ["compare-images", *map(str, words), "--server", running.address, *options]
        capsys.readouterr()
        code = run_command(arguments)
        return code, json.loads(capsys.readouterr().out)

    return run


def values(document: dict[str, Any]) -> dict[str, float]:
    return {name: figure["value"] for name, figure in document["figures"].items()}


def test_halves_of_one_set_mix_as_expected_and_come_with_map_table_and_profile(
    running: Running, compared: Callable[..., tuple[int, dict[str, Any]]], tmp_path: Path
) -> None:
    code, document = compared(running.real, running.synthetic, "--profile", "10,20,150,90")
    assert code == 0
    expected = document["figures"]["mixed_neighbours_expected"]
    found = values(document)
    assert expected["lower"] <= found["mixed_neighbours"] <= expected["upper"]
    assert 0.3 < found["classifier_accuracy"] < 0.75
    assert found["noise_ratio"] == pytest.approx(1.0, abs=0.4)
    assert document["real_patches"] == document["synthetic_patches"] == 6 * IMAGES
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "embedding.csv").read_text())))
    assert len(rows) == 2 * 6 * IMAGES
    assert {row["image"] for row in rows if row["set"] == "real"} == {
        f"r{number}.png" for number in range(IMAGES)
    }
    for name in ("embedding.png", "profile.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.width > 1000
    with Client(running.address) as client:
        again = client.image_set_comparison(document["comparison"])
        assert client.read(again.embedding) == (tmp_path / "out" / "embedding.csv").read_bytes()
        inputs = client.manifest(again.manifest)["inputs"]
        assert len(inputs) == 2 * IMAGES
        # The same request meets the same comparison.
        line = pb.IntensityProfile(x0_px=10, y0_px=20, x1_px=150, y1_px=90)
        job = client.compare_image_sets(
            sorted(running.real.iterdir()),
            sorted(running.synthetic.iterdir()),
            patch_px=PATCH_PX,
            max_patches=1000,
            profile=line,
        )
        assert job.result().name == document["comparison"]


def test_micrographs_and_white_noise_do_not_mix(
    running: Running, compared: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    code, document = compared(running.real, running.noise)
    assert code == 0
    found = values(document)
    assert found["mixing"] < 0.05
    assert found["classifier_accuracy"] > 0.95
    assert found["noise_ratio"] > 5
    assert document["figures"]["edge_width_synthetic"]["value"] is None


def test_files_in_both_sets_and_single_images_are_told_of(running: Running) -> None:
    real = sorted(running.real.iterdir())
    with Client(running.address) as client:
        job = client.compare_image_sets(real, [real[0]], patch_px=24, max_patches=40)
        warnings = " ".join(job.result().warnings)
    assert "in both sets, which makes them alike: r0.png" in warnings
    assert "one synthetic image only" in warnings
    assert "perplexity" in warnings


def test_a_comparison_can_be_cancelled_and_asked_for_again(running: Running) -> None:
    real, synthetic = sorted(running.real.iterdir()), sorted(running.synthetic.iterdir())
    with Client(running.address) as client:
        job = client.compare_image_sets(real, synthetic, patch_px=PATCH_PX, seed=5)
        job.cancel()
        with pytest.raises(CancelledError):
            job.result()
        again = client.compare_image_sets(real, synthetic, patch_px=PATCH_PX, seed=5)
        assert again.result().real_patches == 6 * IMAGES


def test_what_cannot_be_compared_is_refused_with_its_field(
    running: Running, tmp_path: Path
) -> None:
    real, synthetic = sorted(running.real.iterdir()), sorted(running.synthetic.iterdir())
    text, small = tmp_path / "notes.tif", tmp_path / "small.png"
    text.write_text("no image")
    cv2.imwrite(str(small), discs(1, 40, 160))
    outside = pb.IntensityProfile(x0_px=0, y0_px=0, x1_px=500, y1_px=10)
    cases: list[tuple[list[Path], list[Path], dict[str, Any], set[str]]] = [
        ([*real, text], [small, *synthetic], {}, {"real[5]", "synthetic[0]"}),
        (real, synthetic, {"profile": outside}, {"profile"}),
        ([real[0]], synthetic, {"patch_px": 100}, {"real", "synthetic"}),
        (real, synthetic, {"patch_px": 3, "max_patches": 2, "seed": -1},
         {"patch_px", "max_patches", "seed"}),
        (real, synthetic, {"vgg16_weights": text}, {"vgg16_weights"}),
        ([], synthetic, {}, {"real"}),
    ]  # fmt: skip
    with Client(running.address) as client:
        for first, second, options, fields in cases:
            with pytest.raises(InvalidArgumentError) as caught:
                client.compare_image_sets(first, second, **{"patch_px": PATCH_PX, **options})
            assert {item.field for item in caught.value.violations} == fields
        with pytest.raises(NotFoundError):
            client.image_set_comparison("cmp-000000000000")
        with pytest.raises(InvalidArgumentError, match="comparisons/<id>"):
            client.image_set_comparison("a b")


def save_network(path: Path, *, is_vgg16: bool) -> None:
    """A network with random weights, in the format of Keras' ImageNet weights."""
    import keras

    keras.utils.set_random_seed(0)
    if is_vgg16:
        model = keras.applications.VGG16(weights=None)
    else:
        inputs = keras.Input((8, 8, 3))
        model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
    model.save(path)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_vgg16_describes_patches_and_weights_of_another_network_are_refused(
    running: Running, tmp_path: Path
) -> None:
    real, synthetic = sorted(running.real.iterdir()), sorted(running.synthetic.iterdir())
    for name, is_vgg16 in (("other.h5", False), ("vgg16.h5", True)):
        save_network(tmp_path / name, is_vgg16=is_vgg16)
    with Client(running.address) as client:
        job = client.compare_image_sets(
            real, synthetic, patch_px=PATCH_PX, vgg16_weights=tmp_path / "other.h5"
        )
        with pytest.raises(InvalidArgumentError, match="no ImageNet weights of VGG16") as caught:
            job.result()
        assert [item.field for item in caught.value.violations] == ["vgg16_weights"]
        assert "other.h5" in str(caught.value)
        job = client.compare_image_sets(
            real, synthetic, patch_px=PATCH_PX, vgg16_weights=tmp_path / "vgg16.h5"
        )
        found = job.result()
    assert found.features.startswith("VGG16")
    assert found.real_patches == found.synthetic_patches == 6 * IMAGES
    figures = {item.name: item.value for item in found.figures}
    assert 0 <= figures["mixed_neighbours"] <= 1


@pytest.mark.long
@pytest.mark.timeout(900)
def test_renders_mix_with_renders_of_their_recipe_and_not_with_white_noise(
    running: Running, compared: Callable[..., tuple[int, dict[str, Any]]], tmp_path: Path
) -> None:
    halves = [tmp_path / name for name in ("first", "second")]
    for seed, folder in enumerate(halves):
        words = ["render", "sio2", "--count", "8", "--size", "320", "--seed", str(seed)]
        words += ["--export", str(folder), "--server", running.address, "--quiet"]
        assert run_command(words) == 0
    # Masks, depths and labels lie in the same folders.
    code, document = compared(*halves)
    assert code == 0
    assert document["real_patches"] == 8 * 36
    expected = document["figures"]["mixed_neighbours_expected"]
    assert expected["lower"] <= values(document)["mixed_neighbours"] <= expected["upper"]
    _, against_noise = compared(halves[0], running.noise)
    assert values(against_noise)["mixing"] < 0.05
