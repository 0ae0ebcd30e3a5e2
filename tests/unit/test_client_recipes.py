# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipe files of the client: written, edited, read back, and the meshes that they name."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from granulo.render.v1 import recipe_pb2
from granulo.render.v1.recipe_pb2 import Distribution, Recipe
from granulo.type.v1.artifact_pb2 import Artifact
from granulo_client import FieldViolation, InvalidArgumentError, UsageError, load_recipe, meshes
from granulo_client.recipe_summary import summary_document, summary_lines, support
from granulo_client.recipe_text import recipe_document, recipe_yaml
from granulo_client.recipes import recipe_source
from granulo_render.presets import presets
from granulo_render.recipe_file import to_mapping

_UPLOAD = f"uploads/{'0a' * 32}"


def _preset(name: str) -> Recipe:
    return json_format.ParseDict(to_mapping(presets()[name].recipe), Recipe())


def _read_back(recipe: Recipe, folder: Path) -> list[Recipe]:
    """The recipe as it is read from the YAML and from the JSON that show it."""
    texts = {
        "mine.yaml": recipe_yaml(recipe, "a title"),
        "mine.json": json.dumps(recipe_document(recipe), indent="\t"),
    }
    found = []
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
        found.append(load_recipe(folder / name))
    return found


@pytest.mark.parametrize("name", presets())
def test_every_preset_survives_being_shown_and_read(name: str, tmp_path: Path) -> None:
    recipe = _preset(name)
    assert _read_back(recipe, tmp_path) == [recipe, recipe]


def _fill(message: Any, depth: int = 0) -> None:
    """Set every field that is not in a oneof, and of each oneof the last field that ends."""
    for number, field in enumerate(message.DESCRIPTOR.fields, 1):
        if field.containing_oneof and depth > 3 and field.name != "value":
            continue
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if is_map:
            message.appearance["gamma"].normal.mean = 1.5
        elif field.message_type is not None:
            target = getattr(message, field.name)
            _fill(target.add() if field.is_repeated else target, depth + 1)
            if not field.is_repeated:
                target.SetInParent()
        elif field.full_name == "granulo.render.v1.Mesh.file":
            message.file = _UPLOAD
        else:
            kind = field.cpp_type
            one = "x" if kind == field.CPPTYPE_STRING else number % 2 + 1
            if field.is_repeated:
                getattr(message, field.name).extend([one, one])
            else:
                setattr(message, field.name, one)


def test_a_recipe_with_all_fields_survives_being_shown_and_read(tmp_path: Path) -> None:
    shapes = recipe_pb2.ParticleClass.DESCRIPTOR.oneofs_by_name["shape"].fields
    laws = [field.name for field in Distribution.DESCRIPTOR.oneofs_by_name["kind"].fields]
    recipe = Recipe()
    _fill(recipe)
    for field in shapes:
        item = recipe.classes.add()
        _fill(getattr(item, field.name))
        getattr(item, field.name).SetInParent()
    for name in laws:
        part = recipe.appearance[name]
        if name == "value":
            part.value = 0
        else:
            _fill(getattr(part, name), 3)
            getattr(part, name).SetInParent()

    assert _read_back(recipe, tmp_path) == [recipe, recipe]

    text = recipe_yaml(recipe)
    missing = [name for name in (*laws[1:], *(f.name for f in shapes)) if f"{name}:" not in text]
    assert not missing


_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_LAWS = st.recursive(
    _FLOATS.map(lambda value: Distribution(value=value))
    | st.tuples(_FLOATS, _FLOATS).map(
        lambda ends: Distribution(uniform=Distribution.Uniform(low=ends[0], high=ends[1]))
    )
    | st.lists(_FLOATS, max_size=30).map(
        lambda found: Distribution(empirical=Distribution.Empirical(samples=found))
    ),
    lambda inner: st.lists(st.tuples(_FLOATS, inner), max_size=3).map(
        lambda parts: Distribution(
            mixture=Distribution.Mixture(
                components=[
                    Distribution.Mixture.Component(weight=weight, distribution=law)
                    for weight, law in parts
                ]
            )
        )
    ),
    max_leaves=4,
)


@settings(max_examples=25, deadline=None)
@given(label=st.text(), law=_LAWS, names=st.dictionaries(st.text(max_size=40), _LAWS, max_size=3))
def test_whatever_text_and_numbers_a_recipe_has_are_read_back(
    label: str, law: Distribution, names: dict[str, Distribution], tmp_path_factory: Any
) -> None:
    recipe = Recipe(label=label, classes=[recipe_pb2.ParticleClass(label=label, diameter_nm=law)])
    for name, item in names.items():
        recipe.appearance[name].CopyFrom(item)

    folder = tmp_path_factory.mktemp("recipe")
    assert _read_back(recipe, folder) == [recipe, recipe]


def test_a_shown_recipe_explains_every_field_once_in_the_contracts_words() -> None:
    text = recipe_yaml(_preset("sio2"), "sio2: spheres")

    assert text.startswith("# sio2: spheres\n")
    assert text.count("# Share of the particles by number") == 1
    assert "Known are any, sem_in_lens, sem_side_detector, him, tem." in text
    assert max(map(len, text.splitlines())) <= 100
    assert "diameter_nm: {normal: {mean: 90, stddev: 3}}" in text


@pytest.mark.parametrize("word", ["him", "MODALITY_HIM"])
def test_an_enums_value_may_be_short_or_full(word: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"modality: {word}\nimaging: {{shading: cycles}}\n")

    recipe = load_recipe(path)

    assert recipe.modality == recipe_pb2.MODALITY_HIM
    assert recipe.imaging.shading == recipe_pb2.Imaging.SHADING_CYCLES


def test_an_unknown_enum_value_lists_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("label: x\nclasses:\n- polyhedron:\n    families: [cube, cone]\n")

    with pytest.raises(UsageError, match=r"r\.yaml:4: .*families\[1\]: is 'cone'; known are half"):
        load_recipe(path)


def test_numbers_with_an_exponent_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("appearance: {dose: 1e3, gamma: 2.5E-1}\n")

    recipe = load_recipe(path)

    assert (recipe.appearance["dose"].value, recipe.appearance["gamma"].value) == (1000, 0.25)


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"label": "\\ud800"}')

    with pytest.raises(UsageError, match=r"r\.json:1: label: is '\\ud800', which is no text"):
        load_recipe(path)


def _mesh_recipe(folder: Path, mesh: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(f"classes:\n- label: part\n  mesh: {mesh}\n  diameter_nm: 80\n")
    return path


def test_a_mesh_is_found_beside_the_recipe_and_uploaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "Cube.STL").write_bytes(b"solid")
    path = _mesh_recipe(tmp_path, "{file: parts/Cube.STL}")
    monkeypatch.chdir("/")
    recipe = load_recipe(path)
    recipe.classes.append(recipe.classes[0])
    sent: list[Path] = []

    def upload(file: Path) -> Artifact:
        sent.append(file)
        return Artifact(uri=_UPLOAD)

    uploaded = meshes.upload_meshes(recipe, upload)

    assert sent == [tmp_path / "parts" / "Cube.STL"]
    assert [item.mesh.file for item in uploaded.classes] == [_UPLOAD] * 2
    assert uploaded.classes[0].mesh.format == recipe_pb2.Mesh.FORMAT_STL
    assert recipe.classes[0].mesh.file == str(sent[0])  # the given recipe stays as it is
    assert meshes.upload_meshes(uploaded, upload) == uploaded
    assert len(sent) == 1


@pytest.mark.parametrize(
    ("mesh", "told"),
    [
        ("{file: nosuch.stl}", r"recipe\.yaml:3: .*mesh\.file: .*nosuch\.stl does not exist"),
        ("{}", r"mesh\.file: is missing; give the path"),
        ("{file: empty.ply}", r"empty\.ply is empty"),
        ("{file: large.obj}", r"has 3 MiB; give a mesh of at most 2 MiB"),
        ("{file: large.dat}", r"ends neither with \.obj, \.stl nor \.ply"),
        ("{file: folder.obj}", r"folder\.obj is a folder"),
        ("{file: large.obj, format: dxf}", r"format: is 'dxf'; known are obj, stl, ply"),
    ],
)
def test_an_unusable_mesh_is_refused_with_its_line(
    mesh: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meshes, "MAX_MESH_BYTES", 2 * 2**20)
    (tmp_path / "empty.ply").touch()
    (tmp_path / "folder.obj").mkdir()
    for name in ("large.obj", "large.dat"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(3 * 2**20)

    with pytest.raises(UsageError, match=told):
        load_recipe(_mesh_recipe(tmp_path, mesh))


def test_what_a_server_finds_wrong_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("label: x\nclasses:\n- diameter_nm: -3\n  sphere: {}\nappearance: {dose: -1}\n")
    source = recipe_source(str(path))
    violations = [
        FieldViolation("dataset.recipe.classes[0].diameter_nm.value", "is -3; give more"),
        FieldViolation("recipe.appearance.dose", "is -1; give more"),
        FieldViolation("recipe.imaging", "is missing"),
        FieldViolation("dataset.image_count", "is too large"),
    ]

    with pytest.raises(UsageError) as caught, source.located():
        raise InvalidArgumentError("bad", reason="FIELD_INVALID", violations=violations)

    assert caught.value.message.splitlines() == [
        f"{path}:3: classes[0].diameter_nm.value: is -3; give more",
        f"{path}:5: appearance.dose: is -1; give more",
        f"{path}:1: imaging: is missing",
        "dataset.image_count: is too large",
    ]
    assert caught.value.violations == tuple(violations)


def test_a_summary_tells_sizes_numbers_and_what_is_random() -> None:
    recipe = Recipe(label="x")
    recipe.classes.add(label="a", weight=3).sphere.SetInParent()
    recipe.classes[0].diameter_nm.normal.mean = 90
    recipe.classes[0].diameter_nm.normal.stddev = 10
    recipe.classes.add(label="b").diameter_nm.value = 40
    recipe.classes[1].rod.aspect_ratio.uniform.high = 4
    recipe.imaging.pixel_size_nm.choice.values.extend([2, 4])
    recipe.imaging.size_px = 500

    found = summary_document(recipe)

    assert found["field_of_view_nm"] == (1000, 2000)
    assert found["count"] == (20, 80)  # the default density over 1 to 4 square micrometres
    assert found["classes"][0]["diameter_nm"] == (60, 120)
    assert found["classes"][0]["diameter_px"] == (15, 60)
    assert found["classes"][0]["share"] == 0.75
    assert found["random"] == [
        "classes[0].diameter_nm",
        "classes[1].rod.aspect_ratio",
        "imaging.pixel_size_nm",
    ]
    assert "particles: about 20 to 80 a scene" in summary_lines(found)


def test_a_field_of_view_sets_the_pixel_size() -> None:
    recipe = Recipe()
    recipe.classes.add().diameter_nm.value = 100
    recipe.imaging.field_of_view_nm.value = 1024
    recipe.arrangement.coverage.value = 0.3

    found = summary_document(recipe)

    assert found["pixel_size_nm"] == (2, 2)
    assert found["coverage"] == (0.3, 0.3)
    assert "particles: 30 % of the field of view" in summary_lines(found)


def test_the_support_of_a_mixture_holds_all_its_parts() -> None:
    law = json_format.ParseDict(
        {
            "mixture": {
                "components": [
                    {"weight": 1, "distribution": {"value": 1}},
                    {"weight": 1, "distribution": {"empirical": {"samples": [5, 2, 9]}}},
                ]
            }
        },
        Distribution(),
    )

    assert support(law) == (1, 9)
