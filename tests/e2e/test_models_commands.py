# SPDX-License-Identifier: GPL-3.0-or-later
"""`granulo models` on a fresh data folder: the network that comes with Granulo is a model too."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from granulo_segmenter.predictor.versions import packaged_folder

GRANULO = Path(sys.executable).parent / "granulo"
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def granulo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run a command on one running standalone and return its JSON document."""
    data = tmp_path_factory.mktemp("granulo") / "data"
    command = [GRANULO, "up", "--listen", "127.0.0.1:0", "--data", data, "--json"]
    up = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert up.stdout is not None
    assert up.stdout.readline(), "the standalone did not start"

    def run(*arguments: object) -> dict[str, Any]:
        command = [str(GRANULO), *map(str, arguments), "--data", str(data), "--json", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        document: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == 0 or "error" in document, done.stderr
        return document

    yield run
    up.terminate()
    up.wait(60)
    up.stdout.close()


def test_the_packaged_model_is_listed_and_shown_as_the_default(granulo: Run) -> None:
    models = {item["model"]: item for item in granulo("models", "list")["models"]}
    assert set(models) == {"models/default", "models/packaged-default"}
    serving = models["models/default"]["serving_version"]
    assert serving.startswith("models/packaged-default/versions/")
    shown = granulo("models", "show", "default")
    (version,) = shown["versions"]
    assert version["model_version"] == shown["serving_version"] == serving
    assert version["weights_digest"].startswith("sha256:")
    metadata = json.loads((packaged_folder() / "assets.extra" / "granulo.json").read_text())
    assert version["thresholds"] == metadata["instances"]
    assert version["model_card"] == f"{serving}/MODEL_CARD.md"


def test_the_packaged_model_is_exported_byte_by_byte(granulo: Run, tmp_path: Path) -> None:
    document = granulo("models", "export", "default", "--out", tmp_path / "out")
    packaged = packaged_folder()
    for path in (item for item in packaged.rglob("*") if item.is_file()):
        exported = tmp_path / "out" / path.relative_to(packaged)
        assert exported.read_bytes() == path.read_bytes()
        assert str(exported) in document["files"]
    card = (packaged.parent / "MODEL_CARD.md").read_bytes()
    assert (tmp_path / "out" / "MODEL_CARD.md").read_bytes() == card
