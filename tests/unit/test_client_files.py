# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipe files, truth files and names as the client understands them."""

from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format

from granulo.analyzer.v1.analyzer_service_pb2 import EvaluationPair
from granulo_client import UsageError, load_recipe, names
from granulo_client.commands.analyze import find_beside, find_image, find_table
from granulo_client.results import unique_stems
from granulo_client.truth import find_labels, find_pairs, find_truth

_RECIPE = """\
version: 1
label: test
classes:
  - sphere: {roughness: 0.01}
    diameter_nm: {log_normal: {median: 80, sigma: 0.2}}
  - polyhedron:
      templates: 3
      faces: {choice: {values: [6, 8.5]}}
    diameter_nm:
      mixture:
        components:
          - {weight: 1, distribution: 20}
          - {weight: 2, distribution: {uniform: {low: 30, high: 40}}}
    weight: 2
imaging: {pixel_size_nm: 5, size_px: 128}
appearance: {gamma: {normal: {mean: 1, stddev: 0.1}}}
"""


def _write(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_recipe_file_is_the_json_form_of_the_message(tmp_path: Path) -> None:
    recipe = load_recipe(_write(tmp_path, _RECIPE))

    assert recipe.classes[0].sphere.roughness.value == 0.01
    assert recipe.classes[1].polyhedron.faces.choice.values == [6, 8.5]
    assert recipe.classes[1].diameter_nm.mixture.components[0].distribution.value == 20
    assert recipe.appearance["gamma"].normal.stddev == 0.1
    # Written out in full, the same file gives the same message.
    full = json_format.MessageToDict(recipe, preserving_proto_field_name=True)
    assert load_recipe(_write(tmp_path, yaml.safe_dump(full), "full.yaml")) == recipe


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("label: test", "lable: test", r"recipe\.yaml:2: lable: is no known key"),
        (
            "median: 80",
            "median: .nan",
            r":5: classes\[0\]\.diameter_nm\.log_normal\.median: is nan",
        ),
        ("templates: 3", "templates: 3.5", r":7: .*templates: is 3\.5; give a whole number"),
        ("size_px: 128", "size_px: wide", r":15: imaging\.size_px: is 'wide'; give a finite"),
        ("label: test", "label: test\nlabel: x", r":3: label: stands here for the second time"),
        ("label: test", "label: [", r"recipe\.yaml:\d+: is no YAML"),
        ("  - sphere:", "  - ellipsoid: {}\n    sphere:", r"sphere: goes not together with ellips"),
    ],
)
def test_a_wrong_recipe_file_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    path = _write(tmp_path, _RECIPE.replace(old, new, 1))

    with pytest.raises(UsageError, match=told):
        load_recipe(path)


def test_all_problems_of_a_recipe_are_told_at_once(tmp_path: Path) -> None:
    text = _RECIPE.replace("label: test", "lable: x").replace("templates: 3", "templates: many")

    with pytest.raises(UsageError) as caught:
        load_recipe(_write(tmp_path, text))

    assert [violation.field for violation in caught.value.violations] == [
        "lable",
        "classes[1].polyhedron.templates",
    ]


def test_truth_is_the_first_candidate_that_exists(tmp_path: Path) -> None:
    order = ["X_labels.tif", "X_labels.png", "X_m.tif", "X.png", "X.tif"]
    for name in order:
        (tmp_path / name).touch()
    for name in order:
        pair = find_truth(Path("elsewhere/X_labels.tif"), tmp_path)
        assert pair.truth == tmp_path / name
        binary = pair.kind == EvaluationPair.TRUTH_KIND_BINARY_4_CONNECTED
        assert binary == (name == "X_m.tif")
        (tmp_path / name).unlink()
    with pytest.raises(UsageError, match=r"X_labels\.tif, X_labels\.png, X_m\.tif, X\.png, X\.tif"):
        find_truth(Path("elsewhere/X_labels.tif"), tmp_path)


def test_labels_and_micrographs_may_lie_in_one_folder(tmp_path: Path) -> None:
    for name in ("b.png", "b_labels.png", "a.tif", "a_m.tif", "c_image.tif", "c_labels.tif"):
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()

    found = find_labels(tmp_path, tmp_path)

    assert [(image.name, labels.name) for image, labels in found] == [
        ("a.tif", "a_m.tif"),
        ("b.png", "b_labels.png"),
        ("c_image.tif", "c_labels.tif"),
    ]


def test_labels_of_equal_names_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder in (images, labels):
        folder.mkdir()
        (folder / "a.tif").touch()

    assert find_labels(images, labels) == [(images / "a.tif", labels / "a.tif")]
    with pytest.raises(UsageError, match=r"no labels for a\.tif; .* a_labels\.tif"):
        find_labels(images, images)


def test_all_micrographs_without_labels_are_named(tmp_path: Path) -> None:
    for name in ("a.tif", "a_labels.tif", "b.tif", "c.bmp"):
        (tmp_path / name).touch()

    with pytest.raises(UsageError, match=r"no labels for b\.tif, c\.bmp;"):
        find_labels(tmp_path, tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(UsageError, match="several images called a,"):
        find_labels(tmp_path, tmp_path)


def test_an_exported_image_finds_its_labels_and_not_itself(tmp_path: Path) -> None:
    for name in ("000000_image.tif", "000000_labels.tif"):
        (tmp_path / name).touch()

    pair = find_truth(Path("found/000000_image_labels.tif"), tmp_path)

    assert pair.truth.name == "000000_labels.tif"


def test_a_prediction_is_never_its_own_truth(tmp_path: Path) -> None:
    (tmp_path / "X_labels.tif").touch()
    with pytest.raises(UsageError, match="no true labels"):
        find_pairs(tmp_path, tmp_path)


def test_the_micrograph_of_labels_is_found_by_its_stem(tmp_path: Path) -> None:
    (tmp_path / "a.PNG").touch()
    (tmp_path / "000000_image.tif").touch()

    assert find_image(Path("out/a_labels.tif"), tmp_path).name == "a.PNG"
    assert find_image(Path("out/000000_labels.tif"), tmp_path).name == "000000_image.tif"
    with pytest.raises(UsageError, match=r"no micrograph for b_labels\.tif"):
        find_image(Path("out/b_labels.tif"), tmp_path)


def test_results_of_equal_stems_do_not_overwrite_each_other() -> None:
    assert unique_stems(["a.tif", "b.tif", "a.png", "a_2.tif"]) == ["a", "b", "a_2", "a_2_2"]


def test_people_may_leave_out_the_collection_of_a_name() -> None:
    assert names.dataset("ds-1") == names.dataset("datasets/ds-1") == "datasets/ds-1"
    assert names.model_or_version("m") == "models/m"
    for text in ("m/3", "models/m/3", "m/versions/3", "models/m/versions/3"):
        assert names.model_or_version(text) == "models/m/versions/3"
    for text in ("m", "m/", "m/1/2/3"):
        with pytest.raises(UsageError, match="MODEL/VERSION"):
            names.model_version(text)


def test_tables_and_whole_particles_beside_labels_are_found_and_foreign_tables_are_not(
    tmp_path: Path,
) -> None:
    labels = [tmp_path / f"{stem}_labels.tif" for stem in "abc"]
    (tmp_path / "a_particles.csv").write_text("label,confidence,area_px\n1,0.5,9\n")
    (tmp_path / "b_particles.csv").write_text("Area;Feret\n3;4\n")
    (tmp_path / "b_amodal.tif").touch()
    assert [find_table(path) for path in labels] == [tmp_path / "a_particles.csv", None, None]
    found = [find_beside(path, "_amodal.tif") for path in labels]
    assert found == [None, tmp_path / "b_amodal.tif", None]
