# SPDX-License-Identifier: GPL-3.0-or-later
"""The studies of `make default-model`, what SEED makes of them, and the network in the package."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from granulo_client.study import load_study

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "examples" / "default-model"

_spec = importlib.util.spec_from_file_location("default_model", ROOT / "scripts/default_model.py")
assert _spec is not None
assert _spec.loader is not None
default_model: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(default_model)


@pytest.mark.parametrize("name", ["cpu", "gpu", "quick"])
@pytest.mark.parametrize("seed", [None, 7])
def test_located_study_is_valid_and_renders_no_scene_twice(
    name: str, seed: int | None, tmp_path: Path
) -> None:
    located = default_model.located(STUDIES / f"{name}.yaml", seed)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(located))
    load_study(tmp_path / "study.yaml")
    sets = [(item["recipe"], item["seed"]) for item in located["render"]]
    assert len(set(sets)) == len(sets)


def test_seed_changes_every_scene_and_the_training() -> None:
    as_they_are = default_model.located(STUDIES / "cpu.yaml", None)
    changed = default_model.located(STUDIES / "cpu.yaml", 7)
    before = {item["seed"] for item in as_they_are["render"]}
    assert before.isdisjoint(item["seed"] for item in changed["render"])
    assert changed["train"]["seed"] == 7
    assert changed["segment"] == as_they_are["segment"]


def test_packaged_network_is_no_larger_than_allowed() -> None:
    files = [path for path in default_model.PACKAGED.rglob("*") if path.is_file()]
    assert files
    assert sum(path.stat().st_size for path in files) <= default_model.MOST_BYTES
