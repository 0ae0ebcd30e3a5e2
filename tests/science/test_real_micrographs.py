# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain on real micrographs, which were never trained on: better than Otsu and watershed."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from granulo_core.imaging.classic import otsu_watershed
from granulo_core.imaging.labels import decode_labels
from granulo_core.imaging.matching import evaluate, mean_metrics
from granulo_core.imaging.read import read_micrograph

GRANULO = Path(sys.executable).parent / "granulo"
# The data bar of these Zeiss images begins here; it is left out on both sides.
TIO2_HEIGHT_PX = 712
SHOWN = ("f1", "ap50", "ap75", "count_true", "count_predicted")


@pytest.fixture(scope="module")
def granulo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run a command on one running standalone and return its JSON document."""
    data = tmp_path_factory.mktemp("granulo") / "data"
    command = [GRANULO, "up", "--listen", "127.0.0.1:0", "--data", data, "--json"]
    up = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert up.stdout is not None
    assert up.stdout.readline(), "the standalone did not start"

    def run(*arguments: object) -> dict[str, Any]:
        command = [str(GRANULO), *map(str, arguments), "--data", str(data), "--json", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    yield run
    up.terminate()
    up.wait(30)
    up.stdout.close()


def otsu_scores(pairs: list[tuple[Path, Path]], height: int | None) -> dict[str, float]:
    """The baseline, scored by the same definition."""
    scores = []
    for image, truth in pairs:
        pixels = read_micrograph(image, max_px=1 << 26).pixels[:height]
        found = otsu_watershed(pixels)
        scores.append(evaluate(decode_labels(truth)[:height], found.astype(np.uint32)))
    return mean_metrics(scores)


def report(
    name: str,
    ours: dict[str, float],
    otsu: dict[str, float],
    record: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Record both, and show them in the run's output."""
    with capsys.disabled():
        for method, found in (("granulo", ours), ("otsu + watershed", otsu)):
            figures = {key: round(found[key], 3) for key in SHOWN}
            record(f"{name} {method}", json.dumps(figures))
            sys.stdout.write(f"\n{name:8} {method:17} {figures}")
        sys.stdout.write("\n")


def test_titania_is_measured_in_nm_and_better_than_by_otsu(
    granulo: Callable[..., dict[str, Any]],
    shared_micrographs: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shared_micrographs / "tio2_sem"
    truths = sorted(folder.glob("*_m.tif"))
    images = [folder / f"{truth.stem.removesuffix('_m')}.tif" for truth in truths]
    granulo("segment", *images, "--out", tmp_path / "labels")
    labels = [tmp_path / "labels" / f"{image.stem}_labels.tif" for image in images]
    for path in labels:
        found = decode_labels(path)
        assert found.shape == (768, 1024)
        assert not found[TIO2_HEIGHT_PX:].any(), "the data bar holds no particle"
    granulo("analyze", *labels, "--images", folder, "--out", tmp_path / "results")
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())
    # The image's own pixel size of the Zeiss tag, not the screen's.
    assert summary["images"][0]["pixel_size_nm"] == pytest.approx([7.344, 7.344], abs=0.01)
    assert "ecd_nm" in (tmp_path / "results" / "particles.csv").read_text().splitlines()[0]
    document = granulo("evaluate", tmp_path / "labels", folder, "--content-height", TIO2_HEIGHT_PX)
    ours = document["metrics"]
    otsu = otsu_scores(list(zip(images, truths, strict=True)), TIO2_HEIGHT_PX)
    report("tio2", ours, otsu, record_property, capsys)
    assert ours["f1"] > otsu["f1"]
    assert ours["ap50"] > otsu["ap50"]


def test_spheres_are_found_better_than_by_otsu(
    granulo: Callable[..., dict[str, Any]],
    shared_micrographs: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shared_micrographs / "spheres_sem"
    truths = sorted(folder.glob("*_labels.png"))
    images = [folder / f"{truth.stem.removesuffix('_labels')}.png" for truth in truths]
    granulo("segment", *images, "--out", tmp_path / "labels")
    ours = granulo("evaluate", tmp_path / "labels", folder)["metrics"]
    otsu = otsu_scores(list(zip(images, truths, strict=True)), None)
    report("spheres", ours, otsu, record_property, capsys)
    assert ours["f1"] > otsu["f1"]
    assert ours["ap50"] > otsu["ap50"]


def test_images_of_unknown_scale_are_reported_in_pixels_only(
    granulo: Callable[..., dict[str, Any]], shared_micrographs: Path, tmp_path: Path
) -> None:
    image = sorted((shared_micrographs / "vendor_tiff").glob("*.tif"))[0]
    granulo("segment", image, "--out", tmp_path / "labels")
    labels = tmp_path / "labels" / f"{image.stem}_labels.tif"
    granulo("analyze", labels, "--images", image.parent, "--out", tmp_path / "results")
    header = (tmp_path / "results" / "particles.csv").read_text().splitlines()[0]
    assert "ecd_px" in header
    assert "_nm" not in header
