# SPDX-License-Identifier: GPL-3.0-or-later
"""The dependency audit: what it finds fails, what it cannot ask is said and fails in CI only."""

import importlib.util
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "audit.py"
_SOUND = {"name": "numpy", "version": "1.26.4", "vulns": []}
_FAULTY = {
    "name": "pillow", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.0"]}],
}  # fmt: skip
_UNKNOWN = {"name": "granulo", "skip_reason": "not found"}


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([_SOUND], 0, "0 known vulnerabilities in 1 packages"),
        ([_SOUND, _FAULTY], 1, "pillow 1.0: PYSEC-1, fixed in 2.0"),
        ([_SOUND, _UNKNOWN], 0, "Not in the database: granulo"),
    ],
)
def test_findings_are_told_and_fail(
    audit: ModuleType,
    capsys: pytest.CaptureFixture[str],
    packages: list[dict[str, Any]],
    code: int,
    said: str,
) -> None:
    assert audit.report(packages) == code
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("in_ci", "code"), [("", 0), ("1", 2)])
def test_a_database_that_knows_nothing_or_is_not_there_is_told(
    audit: ModuleType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    in_ci: str,
    code: int,
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("CI_AUDIT", in_ci)
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    assert audit.report([_UNKNOWN]) == audit.main() == code
    assert capsys.readouterr().out.count("Audit: SKIPPED") == 2
