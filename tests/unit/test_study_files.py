# SPDX-License-Identifier: GPL-3.0-or-later
"""Study files: what they say, what is refused, and their published schema."""

import json
import re
from pathlib import Path

import pytest

from granulo_client import UsageError
from granulo_client.cli import run_command
from granulo_client.study import EXAMPLE, Study, json_schema, load_study
from granulo_client.study_run import prepare

_DOCS = Path(__file__).resolve().parents[2] / "docs"


def _study(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_the_commented_example_is_a_valid_study(tmp_path: Path) -> None:
    path = tmp_path / "STUDY.yaml"

    assert run_command(["study", "init", str(path), "--quiet"]) == 0

    study = load_study(path)
    assert [item.recipe for item in study.render] == ["sio2", "tio2"]
    assert study.train is not None
    assert study.train.model == "particles"


def test_every_commented_line_of_the_example_is_valid_too(tmp_path: Path) -> None:
    text = re.sub(r"^( *)# ( *)(?=- |[a-z_]+:)", r"\1\2", EXAMPLE, flags=re.MULTILINE)

    study = load_study(_study(tmp_path, text))

    assert study.train is not None
    assert study.train.epochs == 20
    assert study.train.validation[0].labels == Path("validation/sample_labels.tif")
    assert study.segment is not None
    assert study.segment.images == ("images/*.tif",)
    assert study.segment.pixel_size_nm == 7.3
    assert study.evaluate is not None


def test_an_existing_study_is_not_overwritten(tmp_path: Path) -> None:
    path = _study(tmp_path, "mine")

    assert run_command(["study", "init", str(path)]) == 2
    assert path.read_text() == "mine"
    assert run_command(["study", "init", str(path), "--force", "--quiet"]) == 0
    assert path.read_text() == EXAMPLE


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("render:\n  - recipe: sio2\n    cuont: 3\n", r"study\.yaml:3: render\[0\]\.cuont: is no"),
        ("render:\n  - {recipe: sio2, count: -3}\n", r"study\.yaml:2: render\[0\]\.count: "),
        ("train: {model: a}\n", "at least one dataset under render"),
        ("version: 2\nrender: []\n", r"study\.yaml:1: version: "),
        ("segment:\n  method: default\n", "needs images or heldout"),
        ("- a\n", "must be a mapping"),
        ("segment: {images: [a.tif], pixel_size_nm: .nan}\n", r"segment\.pixel_size_nm"),
        ("{}", "is empty"),
    ],
)
def test_a_wrong_study_is_wrong_usage_with_its_line(
    tmp_path: Path, text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _study(tmp_path, text)

    with pytest.raises(UsageError, match=told):
        load_study(path)
    assert run_command(["run", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "Error:" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_files_of_a_study_are_looked_for_before_any_work(tmp_path: Path) -> None:
    study = Study.model_validate({"segment": {"images": ["images/*.tif"]}})
    with pytest.raises(UsageError, match=r"nothing matches images/\*\.tif"):
        prepare(study, tmp_path)

    (tmp_path / "images").mkdir()
    for name in ("b.tif", "a.tif"):
        (tmp_path / "images" / name).touch()
    assert [path.name for path in prepare(study, tmp_path).images] == ["a.tif", "b.tif"]

    with_truth = Study.model_validate(
        {"segment": {"images": ["images/*.tif"]}, "evaluate": {"truth": "images"}}
    )
    assert [pair.truth.name for pair in prepare(with_truth, tmp_path).truths] == ["a.tif", "b.tif"]


def test_the_published_schema_is_the_one_of_the_code() -> None:
    published = (_DOCS / "study.schema.json").read_text()

    assert published == json_schema(), "run: granulo study schema > docs/study.schema.json"
    assert json.loads(published)["additionalProperties"] is False


def test_weights_belong_to_datasets_that_are_trained_on(tmp_path: Path) -> None:
    item = {"recipe": "sio2", "count": 1}
    study = Study.model_validate({"render": [{**item, "weight": 2.5}, item], "train": {}})
    assert [entry.weight for entry in study.render] == [2.5, None]

    file = tmp_path / "study.yaml"
    file.write_text(
        "render: [{recipe: sio2, count: 1, weight: 0}]\n"
        "segment: {heldout: [{recipe: sio2, count: 1, weight: 1}]}\n"
    )
    with pytest.raises(UsageError) as caught:
        load_study(file)
    assert {item.field for item in caught.value.violations} == {
        "render[0].weight",
        "segment.heldout[0].weight",
    }
