# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 in a deterministic training: the weights are those of an undisturbed one, bit by bit."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile

from granulo_core.engine.local import LocalEngine
from granulo_core.engine.port import Resources, Task, TaskGroup
from granulo_core.imaging.appearance import Layers
from granulo_core.operations.receipts import Receipt
from granulo_core.store import LocalStore
from granulo_core.store import manifest as manifests
from granulo_trainer import registry
from granulo_trainer.domain.config import preset_config
from granulo_trainer.domain.job import TrainingJob

GRANULO = str(Path(sys.executable).parent / "granulo")
DATASET = "datasets/ds-chaos"
KILLS = 5
_SCENES = 18


def tiff(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array)
    return buffer.getvalue()


def put_dataset(store: LocalStore, scenes: int) -> None:
    """Flat discs of several sizes; from 16 scenes on some are held out."""
    y, x = np.mgrid[:128, :128]
    objects = []
    for number in range(scenes):
        radius = 8 + number % 7
        ids = (((y % 32 - 16) ** 2 + (x % 32 - 16) ** 2) < radius**2).astype(np.uint16)
        ids *= (1 + y // 32 * 4 + x // 32).astype(np.uint16)
        layers = Layers(
            occlusion=np.full(ids.shape, 255, np.uint8),
            normals=np.tile(np.array([0, 0, 127], np.int8), (128, 128, 1)),
            height_nm=np.zeros(ids.shape, np.float16),
            instances=ids,
            pixel_size_nm=2.0,
        )
        image = np.where(ids > 0, 180, 40).astype(np.uint8)
        stem = f"{number:06d}"
        objects += [
            store.put(f"{DATASET}/layers/{stem}.npz", layers.save()),
            store.put(f"{DATASET}/images/{stem}.tif", tiff(image)),
            store.put(f"{DATASET}/labels/{stem}.tif", tiff(ids)),
        ]
    manifests.commit(
        store,
        DATASET,
        manifests.Manifest(
            resource=DATASET,
            kind="Dataset",
            objects=tuple(objects),
            inputs=(),
            producer=manifests.producer("render", 0),
            request={},
        ),
    )


def weights(store: LocalStore, version: str) -> Mapping[str, str]:
    """Digest of the weights after every epoch, and of the exported network's variables."""
    keys = [*store.list(f"{version}/checkpoints/"), *store.list(f"{version}/saved_model/")]
    return {
        key.removeprefix(f"{version}/"): store.stat(key).digest
        for key in keys
        if key.endswith("/weights.npz") or "/variables.data" in key
    }


def epochs(store: LocalStore, version: str) -> int:
    return sum(key.endswith("/figures.json") for key in store.list(f"{version}/checkpoints/"))


def children(parent: int) -> list[int]:
    """Worker processes of an engine in a process."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if found == str(parent) and b"spawn_main" in (process / "cmdline").read_bytes():
                pids.append(int(process.name))
    return pids


def wait_for(condition: Callable[[], bool], limit_s: float = 240) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "what was waited for did not happen"
        time.sleep(0.01)


def outcome(group: TaskGroup) -> tuple[Receipt, int]:
    (found,) = list(group.as_completed())
    assert found is not None
    assert found.receipt is not None, found.error
    return Receipt.from_bytes(found.receipt), found.attempts


def test_a_killed_worker_ends_with_the_weights_of_an_undisturbed_one(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    put_dataset(store, 2)
    config = preset_config(
        "small", filters=(6, 8, 12), patch_px=64, batch_size=4, epochs=5, steps_per_epoch=6,
        patches_per_block=8, seed=3, deterministic=True,
    )  # fmt: skip

    def task(model: str) -> Task:
        version = registry.claim(store, model, "sha256:0")
        job = TrainingJob(str(version), (DATASET,), config, ())
        return Task(
            id="train",
            entry_point="granulo_trainer.tasks.train:train",
            payload=job.to_bytes(),
            resources=Resources(cpu=64, pool="train-deterministic"),
        )

    engine = LocalEngine()
    try:
        calm, attempts = outcome(engine.submit([task("calm")], store.url))
        assert attempts == 1
        group = engine.submit([task("killed")], store.url)
        version = "models/killed/versions/1"
        wait_for(lambda: epochs(store, version) >= 2)
        (pid,) = children(os.getpid())
        os.kill(pid, signal.SIGKILL)
        killed, attempts = outcome(group)
        assert attempts == 2
    finally:
        engine.close()
    assert calm.facts["weights_digest"] == killed.facts["weights_digest"]
    assert len(weights(store, version)) == 6
    assert weights(store, version) == weights(store, "models/calm/versions/1")


@contextmanager
def training(data: Path, model: str) -> Iterator["subprocess.Popen[str]"]:
    """`granulo train` with a standalone of its own."""
    command = [
        GRANULO, "train", DATASET.split("/")[1], "--name", model, "--epochs", "80",
        "--steps-per-epoch", "12", "--batch-size", "4", "--patch", "64", "--width", "0.5",
        "--seed", "4", "--early-stopping", "45", "--deterministic", "--json",
    ]  # fmt: skip
    process = subprocess.Popen(
        [*command, "--data", str(data)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
            if pid := standalone_pid(data):
                os.kill(pid, signal.SIGKILL)


def standalone_pid(data: Path) -> int:
    """Process of the data folder's standalone; 0 while there is none."""
    with suppress(OSError, ValueError):
        pid = int(json.loads((data / "standalone.lock").read_text())["pid"])
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return 0 if state == "Z" else pid
    return 0


def has_worker(data: Path) -> bool:
    pid = standalone_pid(data)
    return bool(pid and children(pid))


@pytest.mark.long
@pytest.mark.timeout(5000)
def test_five_kills_in_a_row_at_random_moments_change_no_bit(tmp_path: Path) -> None:
    """The whole standalone is killed, server and worker, and the command given again."""
    store = LocalStore(tmp_path / "store")
    put_dataset(store, _SCENES)
    with training(tmp_path, "calm") as process:
        stdout, stderr = process.communicate(timeout=1200)
        assert process.returncode == 0, stderr
    calm = json.loads(stdout)

    moments = random.Random()
    version = "models/killed/versions/1"
    for _ in range(KILLS):
        before = epochs(store, version)
        with training(tmp_path, "killed") as process:
            # Anywhere from the start of the worker to some epochs later.
            wait_for(lambda: has_worker(tmp_path))
            if moments.random() < 0.8:
                wait_for(lambda before=before: epochs(store, version) > before)
            time.sleep(moments.uniform(0.0, 1.5))
            os.kill(standalone_pid(tmp_path), signal.SIGKILL)
            process.communicate(timeout=120)
            assert process.returncode == 1, "the command was done before it was killed"
    with training(tmp_path, "killed") as process:
        stdout, stderr = process.communicate(timeout=1200)
        assert process.returncode == 0, stderr
    killed = json.loads(stdout)
    assert killed["model_version"] == version
    assert weights(store, version) == weights(store, "models/calm/versions/1")
    assert killed["weights_digest"] == calm["weights_digest"]
    timeless = ("loss", "heldout_ap50", "epochs_trained", "steps_trained", "stopped_early")
    for name in timeless:
        assert killed["metrics"][name] == calm["metrics"][name], name
