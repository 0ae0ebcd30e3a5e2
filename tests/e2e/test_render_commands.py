# SPDX-License-Identifier: GPL-3.0-or-later
"""`granulo recipes` and `granulo render` on the real standalone."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import trimesh
from pycocotools import mask as rle
from pycocotools.coco import COCO

_COMMAND = Path(sys.executable).with_name("granulo")
_SIZE_PX = 96
_RECIPE = """\
label: parts
classes:
- label: part
  mesh: {file: part.stl}
  diameter_nm: 90
- label: dot
  sphere: {}
  diameter_nm: 60
arrangement: {count: 12, patterns: {agglomerates: 1}, stacking: 0.5}
imaging: {pixel_size_nm: 5}
modality: sem_in_lens
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A recipe file with a mesh beside it, and a standalone that all commands join."""
    folder = tmp_path_factory.mktemp("render")
    (folder / "mine.yaml").write_text(_RECIPE)
    trimesh.creation.box((1, 2, 3)).export(folder / "part.stl")
    words = [_COMMAND, "up", "--listen", "127.0.0.1:0", "--data", folder / "data", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "address" in process.stdout.readline()
            yield folder
        finally:
            process.terminate()


def _granulo(folder: Path, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [_COMMAND, *words, "--data", folder / "data"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def exports(folder: Path) -> dict[str, Path]:
    """The same two scenes in both formats."""
    words = ["render", "mine.yaml", "--count", "2", "--size", str(_SIZE_PX), "--seed", "3"]
    found = {}
    for kind in ("tiff", "coco"):
        found[kind] = folder / kind
        _granulo(folder, *words, "--export", kind, "--format", kind)
    return found


def test_a_shown_preset_can_be_checked_as_a_file(folder: Path) -> None:
    listed = json.loads(_granulo(folder, "recipes", "list", "--json").stdout)["presets"]
    assert {"sio2", "tio2", "mixed_any"} <= {item["preset"] for item in listed}

    (folder / "sio2.yaml").write_text(_granulo(folder, "recipes", "show", "sio2").stdout)
    of_file = json.loads(_granulo(folder, "recipes", "check", "sio2.yaml", "--json").stdout)

    of_preset = json.loads(_granulo(folder, "recipes", "check", "sio2", "--json").stdout)
    assert of_file == of_preset


def test_every_problem_of_a_recipe_is_told_with_its_line(folder: Path) -> None:
    wrong = _RECIPE.replace("diameter_nm: 60", "diameter_nm: -60").replace("count: 12", "count: 0")
    (folder / "wrong.yaml").write_text(wrong)

    told = _granulo(folder, "recipes", "check", "wrong.yaml", "--quiet", code=2).stderr

    assert "wrong.yaml:8: classes[1].diameter_nm" in told
    assert "wrong.yaml:9: arrangement.count" in told


def test_an_open_mesh_is_refused_before_any_work(folder: Path) -> None:
    box = trimesh.creation.box()
    box.faces = box.faces[1:]
    box.export(folder / "open.stl")
    (folder / "open.yaml").write_text(_RECIPE.replace("part.stl", "open.stl"))

    told = _granulo(folder, "recipes", "check", "open.yaml", "--quiet", code=2).stderr

    assert "open.yaml:4: classes[0].mesh" in told


def test_a_preview_is_one_picture_and_leaves_no_dataset(folder: Path) -> None:
    words = ["render", "mine.yaml", "--count", "2", "--size", str(_SIZE_PX)]

    _granulo(folder, *words, "--preview", "sheet.png")

    sheet = cv2.imread(str(folder / "sheet.png"))
    assert sheet is not None
    assert sheet.shape[1] > 2 * _SIZE_PX
    assert sheet.std() > 10


def test_an_export_as_tiff_holds_labels_that_agree(exports: dict[str, Path]) -> None:
    out = exports["tiff"]
    for stem in ("000000", "000001"):
        labels = tifffile.imread(out / f"{stem}_labels.tif")
        image = tifffile.imread(out / f"{stem}_image.tif")
        mask = tifffile.imread(out / f"{stem}_mask.tif")
        pages = tifffile.imread(out / f"{stem}_amodal.tif")
        amodal = pages.reshape(-1, _SIZE_PX, _SIZE_PX)
        depth = tifffile.imread(out / f"{stem}_depth.tif")
        with (out / f"{stem}_particles.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert labels.shape == image.shape == mask.shape == depth.shape == (_SIZE_PX, _SIZE_PX)
        shown = set(np.unique(labels[labels > 0]).tolist())
        assert shown == {int(row["id"]) for row in rows if row["labelled"] == "1"} != set()
        assert (labels[mask > 0] > 0).all()
        for row in rows:
            own = int(row["id"])
            assert (amodal == own).any(axis=0)[labels == own].all()


def test_coco_reads_the_export_and_finds_the_same_masks(exports: dict[str, Path]) -> None:
    coco = COCO(str(exports["coco"] / "annotations.json"))

    assert len(coco.imgs) == 2
    for image in coco.imgs.values():
        stem = Path(image["file_name"]).stem
        assert (exports["coco"] / "images" / image["file_name"]).is_file()
        labels = tifffile.imread(exports["tiff"] / f"{stem}_labels.tif")
        found = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        drawn = np.zeros_like(labels)
        for item in found:
            own = coco.annToMask(item).astype(bool)
            whole = rle.decode(item["amodal_segmentation"]).astype(bool)
            assert whole[own].all()
            assert item["visible_fraction"] == pytest.approx(own.sum() / whole.sum(), abs=0.01)
            drawn[own] = item["label"]
        assert (drawn == labels).all()
    assert {item["name"] for item in coco.cats.values()} == {"part", "dot"}


def test_a_comparison_with_its_own_scenes_finds_them_alike(
    folder: Path, exports: dict[str, Path]
) -> None:
    image = exports["tiff"] / "000000_image.tif"
    words = ["recipes", "compare", "mine.yaml", image, "--out", "compared.png", "--json"]

    done = _granulo(folder, *words, "--frames", "2", "--size", "96", "--curves", "curves.csv")

    found: dict[str, Any] = json.loads(done.stdout)
    assert 0 <= found["grey_level_distance"] < 0.5
    assert cv2.imread(str(folder / "compared.png")) is not None
    with (folder / "curves.csv").open() as file:
        kinds = {row["curve"] for row in csv.DictReader(file)}
    assert kinds == {"profile", "grey_levels", "spectrum"}
