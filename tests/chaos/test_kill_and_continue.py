# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 on workers and on the standalone: the same command again continues."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from granulo_client.standalone import read_lock

_SCENES = 6
_PATIENCE_S = 250.0
_RENDER = ["render", "sio2", "--count", str(_SCENES), "--size", "128", "--seed", "1"]
_TRAIN = ["train", "--name", "small-one", "--epochs", "30", "--steps-per-epoch", "2"]
_TRAIN += ["--batch-size", "1", "--patch", "64"]

State = dict[str, tuple[str, int]]
"""Digest and time stamp by key."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data folder for all tests: each goes on with what the one before left."""
    return tmp_path_factory.mktemp("kill")


@pytest.fixture(scope="module")
def dataset(data: Path) -> str:
    """A dataset whose rendering was interrupted by killing the standalone."""
    command = _start(data, _RENDER)
    _wait_for(lambda: len(_receipts(data)) >= 2, command)
    finished = _finished_scenes(data)
    assert len(_receipts(data)) < _SCENES, "too late: everything was rendered before the kill"

    _kill_standalone(data)
    _, said = command.communicate(timeout=_PATIENCE_S)

    assert command.returncode == 1
    assert "the same command again continues" in said
    document = _finish(_start(data, _RENDER))
    assert document["image_count"] == _SCENES
    after = _finished_scenes(data)
    assert {key: after[key] for key in finished} == finished, "a finished scene was rendered again"
    return str(document["dataset"])


def test_a_killed_standalone_continues_its_rendering(data: Path, dataset: str) -> None:
    manifest = json.loads((data / "store" / dataset / "manifest.json").read_text())
    images = [item for item in manifest["objects"] if "/images/" in item["key"]]
    assert len(images) == _SCENES
    for item in manifest["objects"]:
        content = (data / "store" / item["key"]).read_bytes()
        assert item["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_the_same_command_on_a_finished_dataset_touches_nothing(data: Path, dataset: str) -> None:
    before = _state(data, dataset)

    assert _finish(_start(data, _RENDER))["dataset"] == dataset

    assert _state(data, dataset) == before


def test_a_killed_render_worker_costs_only_its_scene(data: Path, dataset: str) -> None:
    words = ["9" if word == "1" else word for word in _RENDER]  # another seed: another dataset
    command = _start(data, words)
    _wait_for(lambda: len(_receipts(data)) > _SCENES, command)  # those of the first dataset stay
    finished = _finished_scenes(data)

    victim = _wait_for(lambda: next(iter(_workers(data)), None), command)
    victim.kill()

    document = _finish(command)
    assert document["image_count"] == _SCENES
    assert document["dataset"] != dataset
    after = _finished_scenes(data)
    assert {key: after[key] for key in finished} == finished


def test_a_killed_standalone_continues_its_training_from_the_last_checkpoint(
    data: Path, dataset: str
) -> None:
    pytest.importorskip("keras")
    words = [*_TRAIN, dataset]
    command = _start(data, words)
    _wait_for(lambda: len(_checkpoints(data)) >= 3, command)
    before = _checkpoints(data)
    assert len(before) < 30, "too late: everything was trained before the kill"

    _kill_standalone(data)
    command.communicate(timeout=_PATIENCE_S)

    assert command.returncode == 1
    document = _finish(_start(data, words))
    assert document["model_version"] == "models/small-one/versions/1"
    after = _checkpoints(data)
    assert len(after) == 30
    assert {key: after[key] for key in before} == before, "a finished epoch was trained again"


def _start(data: Path, words: list[str]) -> "subprocess.Popen[str]":
    granulo = Path(sys.executable).with_name("granulo")
    return subprocess.Popen(
        [granulo, *words, "--data", data, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(command: "subprocess.Popen[str]") -> dict[str, Any]:
    printed, said = command.communicate(timeout=_PATIENCE_S)
    assert command.returncode == 0, said
    document: dict[str, Any] = json.loads(printed)
    return document


def _kill_standalone(data: Path) -> None:
    running = read_lock(data)
    assert running is not None
    workers = _workers(data)
    os.kill(running.pid, signal.SIGKILL)
    # Workers may not outlive their parent: they would write beside the next one's.
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive, f"workers outlived the standalone: {alive}"
    assert gone or not workers


def _workers(data: Path) -> list[psutil.Process]:
    running = read_lock(data)
    if running is None:
        return []
    found = []
    for child in psutil.Process(running.pid).children(recursive=True):
        try:
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def _receipts(data: Path) -> list[Path]:
    return sorted((data / "store" / "operations").glob("render/*/shards/*.json"))


def _finished_scenes(data: Path) -> State:
    """Objects of all scenes that have a receipt."""
    keys = [
        item["key"] for path in _receipts(data) for item in json.loads(path.read_text())["objects"]
    ]
    return {key: _stamp(data / "store" / key) for key in keys}


def _checkpoints(data: Path) -> State:
    """Weights of all complete epochs."""
    folder = data / "store" / "models" / "small-one" / "versions" / "1" / "checkpoints"
    complete = [path.with_name("weights.npz") for path in folder.glob("*/figures.json")]
    return {str(path.relative_to(data)): _stamp(path) for path in complete}


def _state(data: Path, resource: str) -> State:
    folder = data / "store" / resource
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): _stamp(path) for path in files}


def _stamp(path: Path) -> tuple[str, int]:
    return hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns


def _wait_for(condition: Callable[[], Any], command: "subprocess.Popen[str]") -> Any:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not (found := condition()):
        if command.poll() is not None:
            pytest.fail(f"the command ended too early: {command.communicate()}")
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.02)
    return found
