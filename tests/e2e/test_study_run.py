# SPDX-License-Identifier: GPL-3.0-or-later
"""`granulo run`: a whole study on real parts, and again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_STUDY = """\
render:
  - {recipe: sio2, count: 2, seed: 1, size_px: 128}
train: {model: tiny, epochs: 1, steps_per_epoch: 2, batch_size: 1, patch_px: 64}
segment:
  images: [images/*.tif]
  heldout:
    - {recipe: tio2, count: 1, seed: 9, size_px: 128}
evaluate: {truth: truth}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with images of its own, which are renders with known labels."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(_STUDY)
    words = ["render", "sio2", "--count", "1", "--size", "128", "--seed", "5"]
    _granulo(folder, *words, "--export", folder / "export")
    (folder / "images").mkdir()
    (folder / "truth").mkdir()
    (folder / "export" / "000000_image.tif").rename(folder / "images" / "mine.tif")
    (folder / "export" / "000000_labels.tif").rename(folder / "truth" / "mine_labels.tif")
    return folder


@pytest.fixture(scope="module")
def first(folder: Path) -> dict[str, Any]:
    return _granulo(folder, "run", folder / "study.yaml", "--out", folder / "out")


def test_a_study_delivers_labels_tables_reports_and_scores(
    folder: Path, first: dict[str, Any]
) -> None:
    out = folder / "out"

    assert first["model_version"] == "models/tiny/versions/1"
    assert set(first["sets"]) == {"images", "heldout-1-tio2"}
    for name, stem in (("images", "mine"), ("heldout-1-tio2", "000000")):
        for file in (f"{stem}_labels.tif", "particles.csv", "summary.json", "report.html"):
            assert (out / name / file).stat().st_size > 0, f"{name}/{file}"
        found = first["sets"][name]
        assert found["model_version"] == "models/tiny/versions/1"
        assert 0.0 <= found["evaluation"]["metrics"]["ap50"] <= 1.0
    assert (out / "heldout-1-tio2" / "truth" / "000000_labels.tif").is_file()
    assert json.loads((out / "study.json").read_text()) == first


def test_the_same_study_again_makes_nothing_again(folder: Path, first: dict[str, Any]) -> None:
    store = folder / "data" / "store"
    before = {path: path.stat().st_mtime_ns for path in store.rglob("manifest.json")}
    # 3 datasets, model version, 2 segmentations, 2 analyses, the model that comes with Granulo
    assert len(before) == 9

    again = _granulo(folder, "run", folder / "study.yaml", "--out", folder / "out")

    assert again == first
    after = {path: path.stat().st_mtime_ns for path in store.rglob("manifest.json")}
    assert after == before


def _granulo(folder: Path, *words: str | Path) -> dict[str, Any]:
    done = subprocess.run(
        [Path(sys.executable).with_name("granulo"), *words, "--data", folder / "data", "--json"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document
