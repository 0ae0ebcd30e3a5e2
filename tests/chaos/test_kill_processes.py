# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 in the middle of the work: the same command continues, and nothing is done twice."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

GRANULO = str(Path(sys.executable).parent / "granulo")
RENDER = ["render", "sio2", "--count", "6", "--seed", "11", "--size", "128"]
TRAIN = ["--epochs", "6", "--steps-per-epoch", "2", "--batch-size", "1", "--patch", "64"]

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Command:
    """A finished command."""

    code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        assert self.code == 0, self.stderr
        document: dict[str, Any] = json.loads(self.stdout)
        return document


@dataclass(frozen=True)
class Stored:
    """A file of the store: what it holds and when it was written."""

    digest: str
    written_ns: int


@contextmanager
def running(data: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A command at work; it and its standalone are gone when the block ends."""
    process = subprocess.Popen(
        [GRANULO, *arguments, "--data", str(data), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
            with suppress(OSError, ValueError):
                os.kill(standalone_pid(data), signal.SIGKILL)


def finish(process: "subprocess.Popen[str]") -> Command:
    stdout, stderr = process.communicate(timeout=500)
    return Command(process.returncode, stdout, stderr)


def run(data: Path, *arguments: str) -> Command:
    with running(data, *arguments) as process:
        return finish(process)


def wait_for(process: "subprocess.Popen[str]", condition: Callable[[], bool]) -> None:
    """Wait while the command runs."""
    while not condition():
        if process.poll() is not None:
            pytest.fail(f"the command ended too early:\n{finish(process)}")
        time.sleep(0.01)


def standalone_pid(data: Path) -> int:
    return int(json.loads((data / "standalone.lock").read_text())["pid"])


def worker_pids(standalone: int) -> list[int]:
    """The engine's worker processes among the children of the standalone."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(standalone) and b"spawn_main" in (process / "cmdline").read_bytes():
                pids.append(int(process.name))
    return pids


def is_running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def kill_standalone(data: Path) -> None:
    """kill -9; its workers must follow it by themselves."""
    pid = standalone_pid(data)
    workers = worker_pids(pid)
    assert workers
    os.kill(pid, signal.SIGKILL)
    end_s = time.monotonic() + 10
    while any(map(is_running, [pid, *workers])):
        assert time.monotonic() < end_s, "workers outlive the standalone"
        time.sleep(0.02)


def finished_scenes(data: Path) -> int:
    return len(list((data / "store").glob("operations/render/*/shards/*.json")))


def rendered_objects(data: Path) -> dict[str, Stored]:
    """Every object of the scenes that have a receipt."""
    objects = {}
    for receipt in (data / "store").glob("operations/render/*/shards/*.json"):
        for item in json.loads(receipt.read_text())["objects"]:
            objects[item["key"]] = stored(data / "store" / item["key"])
            assert objects[item["key"]].digest == item["digest"]
    return objects


def checkpoints(data: Path) -> dict[str, Stored]:
    """Weights and figures of every epoch that is complete."""
    found = {}
    for figures in (data / "store").glob("models/*/versions/*/checkpoints/*/figures.json"):
        for path in (figures, figures.with_name("weights.npz")):
            found[path.relative_to(data / "store").as_posix()] = stored(path)
    return found


def stored(path: Path) -> Stored:
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    return Stored(digest, path.stat().st_mtime_ns)


def manifest(data: Path, resource: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((data / "store" / resource / "manifest.json").read_text())
    return content


def digests(data: Path, resource: str) -> Mapping[str, str]:
    return {item["key"]: item["digest"] for item in manifest(data, resource)["objects"]}


def log_events(data: Path) -> list[str]:
    """Events of the standalone's log; other libraries write lines of their own."""
    events = []
    for line in (data / "logs" / "standalone.log").read_text().splitlines():
        with suppress(ValueError):
            events.append(json.loads(line)["event"])
    return events


@pytest.fixture(scope="module")
def worker_killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Data folder and dataset of a rendering of which one worker was killed."""
    data = tmp_path_factory.mktemp("worker-killed")
    with running(data, *RENDER) as process:
        wait_for(process, lambda: finished_scenes(data) >= 1)
        os.kill(worker_pids(standalone_pid(data))[0], signal.SIGKILL)
        before = rendered_objects(data)
        result = finish(process).result
    after = rendered_objects(data)
    assert {key: after[key] for key in before} == before
    return data, result["dataset"]


@pytest.fixture(scope="module")
def standalone_killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Data folder and dataset of a rendering whose standalone was killed."""
    data = tmp_path_factory.mktemp("standalone-killed")
    with running(data, *RENDER) as process:
        wait_for(process, lambda: finished_scenes(data) >= 2)
        kill_standalone(data)
        interrupted = finish(process)
    assert interrupted.code == 1
    error = json.loads(interrupted.stdout)["error"]
    assert error["code"] == "UNAVAILABLE"
    assert "the same command again continues" in error["message"]
    assert "Traceback" not in interrupted.stderr
    before = rendered_objects(data)
    assert 2 <= finished_scenes(data) < 6
    assert not list((data / "store").glob("datasets/*/manifest.json"))

    result = run(data, *RENDER).result
    after = rendered_objects(data)
    assert {key: after[key] for key in before} == before, "a finished scene was rendered again"
    assert len(after) > len(before)
    return data, result["dataset"]


def test_a_killed_render_worker_does_not_stop_the_command(
    worker_killed: tuple[Path, str],
) -> None:
    data, dataset = worker_killed
    assert "worker died" in log_events(data)
    assert finished_scenes(data) == 6
    assert set(rendered_objects(data)) == set(digests(data, dataset))


def test_a_killed_standalone_goes_on_where_it_was(standalone_killed: tuple[Path, str]) -> None:
    data, dataset = standalone_killed
    assert "resuming" in log_events(data)
    assert len(list((data / "store").glob("operations/render/*/operation.json"))) == 1
    assert set(rendered_objects(data)) == set(digests(data, dataset))


def test_what_was_interrupted_differently_is_the_same_in_every_byte(
    worker_killed: tuple[Path, str], standalone_killed: tuple[Path, str]
) -> None:
    assert worker_killed[1] == standalone_killed[1]
    assert digests(*worker_killed) == digests(*standalone_killed)


def test_a_finished_command_given_again_does_nothing(standalone_killed: tuple[Path, str]) -> None:
    data, dataset = standalone_killed
    before = rendered_objects(data)
    committed = stored(data / "store" / dataset / "manifest.json")
    assert run(data, *RENDER).result["dataset"] == dataset
    assert rendered_objects(data) == before
    assert stored(data / "store" / dataset / "manifest.json") == committed


def test_training_goes_on_from_its_last_checkpoint(standalone_killed: tuple[Path, str]) -> None:
    data, dataset = standalone_killed
    command = ["train", dataset, *TRAIN, "--name", "chaos"]
    version = data / "store" / "models" / "chaos" / "versions" / "1"
    with running(data, *command) as process:
        wait_for(process, lambda: len(checkpoints(data)) >= 4)
        kill_standalone(data)
        interrupted = finish(process)
    assert interrupted.code == 1
    assert not (version / "manifest.json").exists()
    before = checkpoints(data)
    assert 4 <= len(before) < 12

    result = run(data, *command).result
    assert result["model_version"] == "models/chaos/versions/1"
    after = checkpoints(data)
    assert {key: after[key] for key in before} == before, "a finished epoch was trained again"
    assert len(after) == 12
    assert (version / "saved_model" / "saved_model.pb").is_file()
    assert dataset in [item["name"] for item in manifest(data, result["model_version"])["inputs"]]
