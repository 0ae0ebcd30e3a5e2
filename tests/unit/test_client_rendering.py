# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes, previews, comparisons and exports of the command, against a small server."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format

from granulo.artifact.v1 import artifact_service_pb2_grpc as artifact_grpc
from granulo.render.v1 import recipe_pb2
from granulo.render.v1 import render_service_pb2 as render_pb
from granulo.render.v1 import render_service_pb2_grpc as render_grpc
from granulo_client import load_recipe, progress
from granulo_client.cli import run_command
from granulo_client.exports import merge_coco

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from render_stub import DATASET, PNG, RECIPE, SCENES, RenderStub, annotations_of


@pytest.fixture
def server() -> Iterator[RenderStub]:
    fake = RenderStub()
    running = grpc.server(ThreadPoolExecutor(8))
    render_grpc.add_RenderServiceServicer_to_server(fake, running)
    artifact_grpc.add_ArtifactServiceServicer_to_server(fake, running)
    fake.address = f"127.0.0.1:{running.add_insecure_port('127.0.0.1:0')}"
    running.start()
    yield fake
    running.stop(None).wait()


def _run(server: RenderStub, *words: str | Path) -> int:
    return run_command([*map(str, words), "--server", server.address, "--quiet"])


def test_presets_are_listed(server: RenderStub, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(server, "recipes", "list") == 0

    assert capsys.readouterr().out.splitlines()[1].split(maxsplit=1) == ["dots", "Dots in a row."]


def test_a_shown_preset_is_a_recipe_file(
    server: RenderStub, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for ending, options in (("yaml", []), ("json", ["--json"])):
        assert _run(server, "recipes", "show", "dots", *options) == 0
        path = tmp_path / f"mine.{ending}"
        path.write_text(capsys.readouterr().out)
        assert load_recipe(path) == json_format.ParseDict(RECIPE, recipe_pb2.Recipe())


def test_an_unknown_preset_names_the_known_ones(
    server: RenderStub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(server, "recipes", "show", "sand") == 2
    assert "'sand' is no preset; there are dots" in capsys.readouterr().err


def test_a_check_tells_what_a_recipe_amounts_to(
    server: RenderStub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(server, "recipes", "check", "dots", "--json") == 0

    found = json.loads(capsys.readouterr().out)
    assert found["classes"][0]["diameter_px"] == [20, 20]
    assert found["recipe"]["imaging"]["pixel_size_nm"] == 4


@pytest.mark.parametrize(
    "words",
    [
        ["recipes", "check", "mine.yaml"],
        ["render", "mine.yaml", "--preview", "s.png"],
        ["render", "mine.yaml", "--count", "1"],
        ["recipes", "compare", "mine.yaml", "a.tif", "--out", "s.png"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_every_command_tells_the_line_of_what_the_server_finds(
    words: list[str],
    server: RenderStub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("label: x\nclasses:\n- sphere: {}\n  diameter_nm: -3\n")
    Path("a.tif").touch()
    server.violations = {"recipe.classes[0].diameter_nm": "is -3", "recipe.imaging": "is missing"}

    assert _run(server, *words) == 2

    told = capsys.readouterr().err.splitlines()
    assert told == [
        "Error: mine.yaml:4: classes[0].diameter_nm: is -3",
        "mine.yaml:1: imaging: is missing",
    ]
    assert not Path("s.png").exists()


def test_a_mesh_is_uploaded_before_it_is_used(server: RenderStub, tmp_path: Path) -> None:
    (tmp_path / "part.stl").write_bytes(b"solid part")
    path = tmp_path / "mine.yaml"
    path.write_text("classes:\n- mesh: {file: part.stl}\n  diameter_nm: 80\n")

    assert _run(server, "recipes", "check", path) == 0

    mesh = server.requests[0].recipe.classes[0].mesh
    assert server.stored[mesh.file] == b"solid part"
    assert mesh.format == recipe_pb2.Mesh.FORMAT_STL


def test_a_preview_saves_one_sheet_and_makes_no_dataset(
    server: RenderStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "new" / "sheet.png"

    assert _run(server, "render", "dots", "--seed", "3", "--preview", sheet, "--json") == 0

    (request,) = server.requests
    assert isinstance(request, render_pb.PreviewRecipeRequest)
    assert (request.preset, request.frame_count, request.seed, request.sheet) == ("dots", 4, 3, 1)
    assert sheet.read_bytes() == PNG
    assert list(sheet.parent.iterdir()) == [sheet]
    found = json.loads(capsys.readouterr().out)
    assert (found["frames"], found["particle_count"], found["unplaced_count"]) == (4, 40, 4)


def test_a_preview_without_a_sheet_is_an_error_and_no_file(
    server: RenderStub, tmp_path: Path
) -> None:
    server.sheet = False

    assert _run(server, "render", "dots", "--preview", tmp_path / "sheet.png") == 1

    assert list(tmp_path.iterdir()) == []


def test_a_comparison_saves_sheet_and_curves_and_tells_distances(
    server: RenderStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "mine.tif"
    image.write_bytes(b"pixels")
    sheet, curves = tmp_path / "sheet.png", tmp_path / "curves.csv"
    words = ["recipes", "compare", "dots", image, "--out", sheet, "--frames", "2"]

    assert _run(server, *words, "--profile", "0,1,2,3.5", "--curves", curves, "--json") == 0

    (request,) = server.requests
    assert server.stored[request.references[0].uri] == b"pixels"
    assert (request.frame_count, request.profile.y1_px) == (2, 3.5)
    assert sheet.read_bytes() == PNG
    assert curves.read_text().splitlines() == [
        "curve,label,x,y",
        "profile,rendered 1,0,0.5",
        "profile,rendered 1,1,0.25",
        "spectrum,rendered 1,0,0.5",
        "spectrum,rendered 1,1,0.25",
    ]
    assert json.loads(capsys.readouterr().out)["grey_level_distance"] == 0.125


def test_a_comparison_that_ends_early_is_an_error(server: RenderStub, tmp_path: Path) -> None:
    server.sheet = False
    image = tmp_path / "mine.tif"
    image.touch()

    assert _run(server, "recipes", "compare", "dots", image, "--out", tmp_path / "s.png") == 1

    assert list(tmp_path.iterdir()) == [image]


def test_an_export_as_tiff_holds_every_label_the_recipe_and_the_manifest(
    server: RenderStub, tmp_path: Path
) -> None:
    server.fill_store("images", "labels", "masks", "amodal", "depth", "particles", "layers")
    server.busy = 2  # places for streams come free in a moment
    out = tmp_path / "out"

    assert _run(server, "render", "dots", "--count", "3", "--export", out) == 0

    kinds = ("image.tif", "labels.tif", "mask.tif", "amodal.tif", "depth.tif", "particles.csv")
    files = {f"{i:06d}_{kind}" for i in range(SCENES) for kind in kinds}
    assert {path.name for path in out.iterdir()} == {*files, "recipe.yaml", "manifest.json"}
    assert (out / "000002_mask.tif").read_text() == "masks 2"
    recipe = json_format.ParseDict(RECIPE, recipe_pb2.Recipe())
    assert load_recipe(out / "recipe.yaml") == recipe
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert len(manifest["objects"]) == 7 * SCENES


def test_an_export_as_coco_joins_the_scenes_with_ids_of_their_own(
    server: RenderStub, tmp_path: Path
) -> None:
    server.fill_store("images", "labels", "annotations")

    words = ["render", "dots", "--count", "3", "--export", tmp_path, "--format", "coco"]
    assert _run(server, *words) == 0

    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"images", "annotations.json", "recipe.yaml", "manifest.json"}
    assert (tmp_path / "images" / "000001.tif").read_text() == "images 1"
    found = json.loads((tmp_path / "annotations.json").read_text())
    assert [image["id"] for image in found["images"]] == [1, 2, 3]
    assert [image["file_name"] for image in found["images"]] == [f"00000{i}.tif" for i in range(3)]
    assert [item["id"] for item in found["annotations"]] == [1, 2, 3, 4, 5, 6]
    assert [item["image_id"] for item in found["annotations"]] == [1, 1, 2, 2, 3, 3]
    assert [item["label"] for item in found["annotations"]] == [3, 5] * 3
    assert [item["area"] for item in found["annotations"]] == [10, 20, 11, 21, 12, 22]
    assert [item["occluded_by"] for item in found["annotations"]] == [[2], [], [4], [], [6], []]
    assert found["categories"] == [{"id": 1, "name": "dot"}]
    assert found["info"] == {"description": "dots"}


def test_scenes_without_particles_join_too() -> None:
    empty = {**annotations_of(0), "annotations": []}

    found = json.loads("".join(merge_coco(iter([empty, annotations_of(1)]), iter(["a", "b"]))))

    assert [image["file_name"] for image in found["images"]] == ["a.tif", "b.tif"]
    assert [item["image_id"] for item in found["annotations"]] == [2, 2]


def test_a_dataset_without_annotations_cannot_become_coco(
    server: RenderStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fill_store("images", "labels")

    words = ["render", "dots", "--count", "3", "--export", tmp_path, "--format", "coco"]
    assert _run(server, *words) == 1

    assert "--format tiff" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_told_and_the_export_has_no_manifest(
    server: RenderStub, tmp_path: Path
) -> None:
    server.fill_store("images")
    server.stored[f"{DATASET}/images/000001.tif"] = b"rotten"

    assert _run(server, "render", "dots", "--count", "3", "--export", tmp_path) == 1

    assert not (tmp_path / "000001_image.tif").exists()
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(
    ("speed", "unit", "text"),
    [
        (1.63, "scene", "1.6 scenes/s"),
        (25.4, "scene", "25 scenes/s"),
        (0.05, "epoch", "20 s/epoch"),
        (3.52e6, "byte", "3.5 MB/s"),
    ],
)
def test_speeds_are_told_in_the_units_of_the_work(speed: float, unit: str, text: str) -> None:
    assert progress.pace(speed, unit) == text


def test_lines_of_progress_tell_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.LineReporter().stage("Rendering", total=100, unit="scene") as stage:
        now[0] = 1.0
        stage.update(done=40, total=100, unit="scene")  # found from an earlier run
        now[0] = 11.0
        stage.update(done=60, total=100, unit="scene")

    assert (
        "Rendering: 60 of 100 scenes, 2 scenes/s, 20 s left (11 s)"
        in capsys.readouterr().err.splitlines()
    )
