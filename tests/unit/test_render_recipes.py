# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes: reading, refusing with path and line, and the laws of their distributions."""

import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from google.protobuf.json_format import ParseDict
from scipy import stats

import granulo_client
from granulo.render.v1 import recipe_pb2
from granulo.render.v1 import render_service_pb2 as pb
from granulo_core.errors import GranuloError, Reason
from granulo_render import convert
from granulo_render.domain.recipe import (
    APPEARANCE,
    Choice,
    Component,
    Distribution,
    LogNormal,
    Mixture,
    Normal,
    Uniform,
    Value,
)
from granulo_render.domain.recipe_check import support
from granulo_render.domain.sampling import draw, draw_many
from granulo_render.domain.streams import Streams
from granulo_render.presets import presets
from granulo_render.recipe_file import from_mapping, load_recipe, to_mapping
from granulo_render.recipe_schema import json_schema

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE_FILES = (
    *sorted((REPOSITORY / "services/render/granulo_render/presets").glob("*.yaml")),
    REPOSITORY / "examples/heldout.yaml",
)
MINIMAL = {
    "classes": [{"sphere": {}, "diameter_nm": 100}],
    "imaging": {"pixel_size_nm": 4},
}


def _violations(text: str) -> dict[str, str]:
    with pytest.raises(GranuloError) as caught:
        load_recipe(text, "r.yaml")
    assert caught.value.reason is Reason.FIELD_INVALID
    return {item.field: item.description for item in caught.value.violations}


def test_a_minimal_recipe_takes_the_documented_defaults() -> None:
    recipe = from_mapping(MINIMAL)
    assert recipe.imaging.size_px == 512
    assert recipe.imaging.upsampling == Value(1.0)
    assert recipe.classes[0].weight == 1.0


@pytest.mark.parametrize("name", ["sio2", "tio2"])
def test_presets_survive_the_way_through_mapping_and_message(name: str) -> None:
    recipe = presets()[name].recipe
    assert from_mapping(to_mapping(recipe)) == recipe
    message = convert.preset(presets()[name]).recipe
    request = pb.CreateDatasetRequest(dataset=pb.Dataset(recipe=message, image_count=1))
    assert convert.dataset_plan(request, 10).recipe == recipe


def test_sio2_is_bimodal_and_tio2_has_four_templates_and_its_mode_at_60_nm() -> None:
    sio2, tio2 = presets()["sio2"].recipe, presets()["tio2"].recipe
    assert len({kind.diameter_nm for kind in sio2.classes}) == 2
    solid, law = tio2.classes[0].shape, tio2.classes[0].diameter_nm
    assert getattr(solid, "templates", None) == 4
    assert isinstance(law, LogNormal)
    assert law.median * math.exp(-(law.sigma**2)) == pytest.approx(60, rel=0.02)
    assert support(law)[0] == pytest.approx(20, rel=0.1)
    assert support(law)[1] == pytest.approx(240, rel=0.02)


def test_every_offending_field_is_named_with_its_line() -> None:
    text = yaml.safe_dump(MINIMAL | {"colour": "red", "version": "new"}, sort_keys=True)
    found = _violations(text)
    lines = text.splitlines()
    for key in ("colour", "version"):
        number = next(i for i, line in enumerate(lines, 1) if line.startswith(key))
        assert f"r.yaml:{number}: {key}" in found


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"imaging": {"pixel_size_nm": math.nan}}, "imaging.pixel_size_nm"),
        ({"imaging": {"pixel_size_nm": -1}}, "imaging.pixel_size_nm"),
        ({"imaging": {"pixel_size_nm": 4, "size_px": 7}}, "imaging.size_px"),
        ({"imaging": {"pixel_size_nm": 4, "upsampling": 2.5}}, "imaging.upsampling"),
        ({"classes": []}, "classes"),
        ({"version": 99}, "version"),
        ({"arrangement": {"stacking": 1.5}}, "arrangement.stacking"),
        ({"appearance": {"sparkle": 1}}, "appearance.sparkle"),
        ({"appearance": {"gamma": {"uniform": {"low": 0, "high": 9}}}}, "appearance.gamma"),
        (
            {"classes": [{"sphere": {}, "diameter_nm": {"normal": {"mean": 10, "stddev": 5}}}]},
            "classes[0].diameter_nm",
        ),
        (
            {"arrangement": {"density_per_um2": {"uniform": {"low": 9, "high": 2}}}},
            "arrangement.density_per_um2.uniform",
        ),
        (
            {"arrangement": {"density_per_um2": {"choice": {"values": []}}}},
            "arrangement.density_per_um2.choice.values",
        ),
        (
            {"arrangement": {"cluster_size": {"log_normal": {"median": math.inf, "sigma": 1}}}},
            "arrangement.cluster_size.log_normal.median",
        ),
        ({"classes": [{"diameter_nm": 100}]}, "classes[0]"),
        ({"classes": [{"sphere": {}, "diameter_nm": 1e5}]}, "classes[0].diameter_nm"),
        ({"classes": [{"sphere": {}, "diameter_nm": 9}] * 33}, "classes"),
        ({"classes": [{"sphere": {}}]}, "classes[0].diameter_nm"),
    ],
)
def test_unusable_numbers_are_refused_by_path(change: dict[str, object], path: str) -> None:
    with pytest.raises(GranuloError) as caught:
        from_mapping(MINIMAL | change)
    assert path in [item.field for item in caught.value.violations]


def test_text_that_is_no_yaml_is_refused_with_the_files_name() -> None:
    assert list(_violations("classes: [")) == ["r.yaml"]
    assert list(_violations("- 1")) == ["r.yaml:1: recipe"]


def test_a_message_is_checked_like_a_file() -> None:
    recipe = recipe_pb2.Recipe()
    ParseDict({"classes": [{"sphere": {}, "diameter_nm": {"value": "NaN"}}], "imaging": {}}, recipe)
    request = pb.CreateDatasetRequest(dataset=pb.Dataset(recipe=recipe, image_count=-1))
    with pytest.raises(GranuloError) as caught:
        convert.dataset_plan(request, 10)
    fields = [item.field for item in caught.value.violations]
    assert "dataset.image_count" in fields
    assert "dataset.recipe.imaging.pixel_size_nm" in fields


_MIXED = Mixture((Component(3, Uniform(0, 1)), Component(1, Uniform(10, 11))))


@pytest.mark.parametrize(
    ("law", "reference"),
    [
        (Uniform(2, 5), stats.uniform(2, 3)),
        (Normal(90, 3), stats.truncnorm(-3, 3, 90, 3)),
        (_MIXED, None),
    ],
)
def test_draws_follow_their_law(law: Distribution, reference: object) -> None:
    found = draw_many(law, np.random.default_rng(1), 3000)
    if reference is None:
        assert (found > 5).mean() == pytest.approx(0.25, abs=0.03)
        found, reference = found[found < 5], stats.uniform(0, 1)
    assert stats.kstest(found, reference.cdf).pvalue > 0.01  # type: ignore[attr-defined]


def test_log_normal_draws_are_normal_in_the_logarithm() -> None:
    found = draw_many(LogNormal(70.7, 0.405), np.random.default_rng(2), 3000)
    z = np.log(found / 70.7) / 0.405
    assert stats.kstest(z, stats.truncnorm(-3, 3).cdf).pvalue > 0.01


def test_choices_give_only_their_values_and_each_of_them() -> None:
    rng = np.random.default_rng(3)
    assert {draw(Choice((1.0, 2.0, 4.0)), rng) for _ in range(100)} == {1.0, 2.0, 4.0}


def test_streams_and_scenes_are_independent_and_repeatable() -> None:
    def first(seed: int, index: int, name: str) -> float:
        return float(Streams(seed, index).of(name).random())

    keys = [(s, i, n) for s in (0, 1, -1) for i in (0, 1) for n in ("look", "placement")]
    assert len({first(*key) for key in keys}) == len(keys)
    assert first(-1, 0, "look") == first(-1, 0, "look")


def test_the_documentation_lists_every_appearance_parameter_with_its_range() -> None:
    text = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
    for name, (low, high, meaning) in APPEARANCE.items():
        assert f"| `{name}` | {low:g} to {high:g} | {meaning} |" in text
    published = (REPOSITORY / "docs" / "recipe.schema.json").read_text(encoding="utf-8")
    assert published == json_schema() + "\n", "run: python scripts/document_recipes.py"


@pytest.mark.parametrize("path", RECIPE_FILES, ids=lambda path: path.stem)
def test_client_and_service_read_the_same_from_a_file(path: Path) -> None:
    message = granulo_client.load_recipe(path)
    request = pb.CreateDatasetRequest(dataset=pb.Dataset(recipe=message, image_count=1))
    assert convert.dataset_plan(request, 1).recipe == load_recipe(path.read_text(), path.name)
