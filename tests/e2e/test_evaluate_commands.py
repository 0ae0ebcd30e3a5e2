# SPDX-License-Identifier: GPL-3.0-or-later
"""`granulo evaluate` of one and of several segmentations, through a real server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from granulo_client.cli import run_command

IMAGES = ("a", "b", "c", "d")


def truth_of(name: str) -> np.ndarray:
    """Sixteen squares of 12 to 18 px."""
    rng = np.random.default_rng(ord(name))
    labels = np.zeros((128, 128), np.uint32)
    for number in range(16):
        side = int(rng.integers(12, 19))
        row, column = (32 * place + 4 for place in divmod(number, 4))
        labels[row : row + side, column : column + side] = number + 1
    return labels


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The truth; predictions that miss one particle of each image; and ones that miss three."""
    root = tmp_path_factory.mktemp("evaluate")
    made = {name: root / name for name in ("truth", "good", "poor")}
    for name, folder in made.items():
        folder.mkdir()
        for image in IMAGES:
            labels = truth_of(image)
            missed = {"truth": 0, "good": 1, "poor": 3}[name]
            labels[labels > 16 - missed] = 0
            tifffile.imwrite(folder / f"{image}_labels.tif", labels)
            if name == "good":
                rows = "".join(f"{label},{1 - label / 100}\n" for label in range(1, 16))
                (folder / f"{image}_particles.csv").write_text("label,confidence\n" + rows)
    return made


@pytest.fixture
def evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        words = ["evaluate", *map(str, arguments), "--data", str(tmp_path / "data"), "--quiet"]
        code = run_command(words)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_one_segmentation_is_scored_image_by_image(
    folders: dict[str, Path], evaluated: Callable[..., tuple[int, str, str]]
) -> None:
    code, printed, _ = evaluated(folders["good"], folders["truth"], "--json")
    assert code == 0
    document: dict[str, Any] = json.loads(printed)
    assert document["metrics"]["ap50"] == pytest.approx(15 / 16)
    # All that was found is true: precision is 1 up to a recall of 15/16, 94 of 101 points.
    assert document["metrics"]["ap50_pr"] == pytest.approx(94 / 101)
    # What remains of a missing square of 12 to 18 px, whose outline moves by a quarter of that.
    assert 1 < 128**2 * document["metrics"]["warping_error"] < 18**2
    assert [item["image"] for item in document["images"]] == list(IMAGES)
    (candidate,) = document["candidates"]
    curve = candidate["detection_curve"]
    assert sum(part["true_particles"] for part in curve) == 16 * len(IMAGES)
    assert all(
        part["recall"]["lower"] <= part["recall"]["value"] <= part["recall"]["upper"]
        for part in curve
    )


def test_several_segmentations_are_compared_side_by_side(
    folders: dict[str, Path], evaluated: Callable[..., tuple[int, str, str]]
) -> None:
    three = folders["good"], folders["poor"], folders["truth"]
    code, printed, _ = evaluated(*three)
    assert code == 0
    assert "good minus poor, 4 images" in printed
    assert "AP50 +0.125 (+0.125 to +0.125)" in printed
    assert "a  " not in printed
    _, listed, _ = evaluated(*three, "--per-image")
    assert "good/a" in listed
    assert "poor/d" in listed


def test_wrong_folders_are_named(
    folders: dict[str, Path], evaluated: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, said = evaluated(folders["truth"])
    assert code == 2
    assert "true labels" in said
    code, _, said = evaluated(folders["good"], folders["good"], folders["truth"])
    assert code == 2
    assert "twice" in said
