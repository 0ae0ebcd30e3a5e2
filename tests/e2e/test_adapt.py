# SPDX-License-Identifier: GPL-3.0-or-later
"""`granulo adapt`: the default model trained further on real parts, and again."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from granulo_client.standalone import Standalone

_RECIPE = """\
version: 1
classes:
  - sphere: {}
    diameter_nm: 60
arrangement: {density_per_um2: 60}
imaging: {pixel_size_nm: 2}
"""
# A hung command fails; a busy machine does not.
_LIMIT_S = 1500
pytestmark = pytest.mark.timeout(2 * _LIMIT_S)
_TINY = ("--scenes", "2", "--size", "64", "--steps", "3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Images with known labels, a recipe that is like them, and a standalone for all commands."""
    folder = tmp_path_factory.mktemp("adapt")
    (folder / "spheres.yaml").write_text(_RECIPE)
    standalone = Standalone.join(folder / "data")
    try:
        _granulo(
            folder, "render", folder / "spheres.yaml", "--count", "2", "--size", "128",
            "--seed", "5", "--export", folder / "export",
        )  # fmt: skip
        for kind, target in (("image", "mine"), ("labels", "truth")):
            (folder / target).mkdir()
            for number in range(2):
                ending = "_labels" if kind == "labels" else ""
                file = folder / "export" / f"{number:06d}_{kind}.tif"
                file.rename(folder / target / f"m{number}{ending}.tif")
        yield folder
    finally:
        standalone.leave()


@pytest.fixture(scope="module")
def first(folder: Path) -> dict[str, Any]:
    return _adapt(folder, "--truth", folder / "truth")


def test_an_adaptation_tells_what_it_gained_and_serves_it_under_its_own_name(
    folder: Path, first: dict[str, Any]
) -> None:
    out = folder / "out"
    assert first["model_version"] == "models/spheres-adapted/versions/1"
    assert first["base_version"].startswith("models/packaged-default/versions/")
    assert first["training"]["steps_trained"] == 3
    for figures in (first["heldout"], first["truth"]):
        for when in ("before", "after"):
            assert 0.0 <= figures["ap50"][when]["value"] <= 1.0
    # Labels of the other image would hardly overlap; three small steps change next to nothing.
    assert first["truth"]["f1"]["before"]["value"] > 0.5
    assert first["images_total"]["agreement_ap50"] > 0.5
    assert first["images_total"]["self_agreement"]["before"] > 0.3
    for image, stem in zip(first["images"], ("m0", "m1"), strict=True):
        assert Path(image["image"]) == folder / "mine" / f"{stem}.tif"
        for when in ("before", "after"):
            assert image[when]["particle_count"] > 0
            for file in (f"{stem}_labels.tif", f"{stem}_overlay.png", "report.html"):
                assert (out / when / "images" / file).stat().st_size > 0
    page = (out / "compared.html").read_text()
    assert 'src="before/images/m0_overlay.png"' in page
    assert 'src="after/images/m1_overlay.png"' in page
    report = json.loads((out / "report.json").read_text())
    assert report == {name: value for name, value in first.items() if name != "out"}

    models = {item["model"]: item for item in _granulo(folder, "models", "list")["models"]}
    assert models["models/spheres-adapted"]["serving_version"] == first["model_version"]
    assert models["models/default"]["serving_version"] == first["base_version"]
    used = _granulo(
        folder, "segment", folder / "mine" / "m0.tif", "--out", folder / "used",
        "--model", "spheres-adapted",
    )  # fmt: skip
    assert used["model_version"] == first["model_version"]


def test_the_same_adaptation_again_makes_nothing_again(folder: Path, first: dict[str, Any]) -> None:
    store = folder / "data" / "store"
    before = {path: path.stat().st_mtime_ns for path in store.rglob("manifest.json")}
    assert _adapt(folder, "--truth", folder / "truth") == first
    assert before == {path: path.stat().st_mtime_ns for path in store.rglob("manifest.json")}


@pytest.mark.long
def test_an_adapted_default_is_not_adapted_again(folder: Path, first: dict[str, Any]) -> None:
    words = ("--truth", folder / "truth", "--name", "default")
    promoted = _adapt(folder, *words, out="default")
    assert promoted["model_version"] == "models/default/versions/1"
    assert _adapt(folder, *words, out="default") == promoted
    assert promoted["base_version"] == first["base_version"]
    other = _adapt(folder, "--truth", folder / "truth", "--name", "other", out="other")
    assert other["base_version"] == "models/default/versions/1"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("image", "m2.tif"),
        ("recipe", "wrong.yaml:4: classes[0].diameter_nm"),
        ("name", "'models/Mine!' is no model name"),
        ("preset", "nothing"),
    ],
)
def test_what_cannot_be_used_is_told_before_any_work(folder: Path, change: str, told: str) -> None:
    store = folder / "data" / "store"
    before = set(store.rglob("manifest.json"))
    images, recipe, more = folder / "mine", folder / "spheres.yaml", ()
    if change == "image":
        images = folder / "broken"
        images.mkdir()
        (images / "m1.tif").write_bytes((folder / "mine" / "m1.tif").read_bytes())
        (images / "m2.tif").write_bytes(b"II*\0 and no more")
    if change == "recipe":
        recipe = folder / "wrong.yaml"
        recipe.write_text(_RECIPE.replace("diameter_nm: 60", "diameter_nm: -60"))
    if change == "name":
        more = ("--name", "Mine!")
    words = ["adapt", "--images", images, "--recipe", recipe, *_TINY, "--out", folder / "no", *more]
    if change == "preset":
        words[words.index(recipe)] = "nothing"
    done = _run(folder, *words)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert set(store.rglob("manifest.json")) == before


def _adapt(folder: Path, *words: str | Path, out: str = "out") -> dict[str, Any]:
    return _granulo(
        folder, "adapt", "--images", folder / "mine", "--recipe", folder / "spheres.yaml", *_TINY,
        "--out", folder / out, *words,
    )  # fmt: skip


def _granulo(folder: Path, *words: str | Path) -> dict[str, Any]:
    done = _run(folder, *words)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _run(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("granulo"), *words, "--data", folder / "data", "--json"],
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
