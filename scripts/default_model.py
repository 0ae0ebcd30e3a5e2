# SPDX-License-Identifier: GPL-3.0-or-later
"""The network that comes with Granulo, made anew (`make default-model`): renders, trains, exports.

Works through a study of `examples/default-model`; the same command again continues. Environment:
``QUICK=1`` (an eighth of the scenes and of the steps), ``GPU=1`` (the larger network; chosen by
itself where there is an NVIDIA GPU), ``SEED`` (of scenes and training), ``OUT`` (folder, by default
``default-model-output``), ``INSTALL=1`` (puts the result into this checkout),
``STUDY`` (another study's file).
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
STUDIES = ROOT / "examples" / "default-model"
PACKAGED = ROOT / "services" / "segmenter" / "granulo_segmenter" / "models" / "default"
GRANULO = Path(sys.executable).parent / "granulo"
MOST_BYTES = 16 << 20
AVERAGED = 10
"""Epochs at the end of the schedule that the weights are the mean of (docs/decisions/0027)."""


def main() -> int:
    started = time.monotonic()
    source = Path(os.environ.get("STUDY") or STUDIES / f"{size()}.yaml")
    out = Path(os.environ.get("OUT") or ROOT / "default-model-output").absolute()
    out.mkdir(parents=True, exist_ok=True)
    study = out / source.name
    seed = os.environ.get("SEED", "")
    if seed and not seed.isdecimal():
        sys.exit(f"default_model: SEED must be a whole number, got {seed!r}")
    study.write_text(yaml.safe_dump(located(source, int(seed) if seed else None), sort_keys=False))
    done = subprocess.run(
        [GRANULO, "run", study, "--data", out / "data", "--out", out / source.stem]
    )
    if done.returncode:
        return done.returncode
    document = json.loads((out / source.stem / "study.json").read_text())
    version = last_of_schedule(document["model_version"], out / "data")
    model = out / "model"
    shutil.rmtree(model, ignore_errors=True)
    run("models", "export", version, "--out", model, data=out / "data")
    size_bytes = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    say(f"model: {model}, {size_bytes / 2**20:.1f} MiB")
    say(f"time: {(time.monotonic() - started) / 60:.0f} min")
    if os.environ.get("INSTALL"):
        if size_bytes > MOST_BYTES:
            sys.exit(f"default_model: more than {MOST_BYTES >> 20} MiB do not go into the package")
        install(model)
    return 0


def last_of_schedule(version: str, data: Path) -> str:
    """MODEL/VERSION of the mean of the last epochs.

    The training exports the epoch of the best label-free score, which scatters from epoch to epoch
    with the few renders that are kept back; at the end of a schedule that ends near a rate of zero
    the loss on them is lowest.
    """
    short = version.removeprefix("models/").replace("/versions/", "/")
    last = run("checkpoints", "list", short, data=data)["checkpoints"][-1]
    chosen = run(
        "checkpoints", "select", f"{short}/{last['epoch']}", "--by", "make default-model",
        "--reason", "the end of the schedule", "--average", min(AVERAGED, last["epoch"]), data=data,
    )  # fmt: skip
    return str(chosen["model_version"]).removeprefix("models/").replace("/versions/", "/")


def run(*words: object, data: Path) -> dict[str, Any]:
    """What a command answers."""
    command = [str(GRANULO), *map(str, words), "--data", str(data), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def size() -> str:
    """Name of the study: of the wish, or of the machine."""
    if os.environ.get("QUICK"):
        return "quick"
    if os.environ.get("GPU") or has_gpu():
        return "gpu"
    return "cpu"


def has_gpu() -> bool:
    if not shutil.which("nvidia-smi"):
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return "GPU 0" in listed.stdout


def located(source: Path, seed: int | None) -> dict[str, Any]:
    """The study with absolute recipe files, and with other seeds if one is given.

    Two sets of one recipe differ by their seeds, and must go on doing so.
    """
    study: dict[str, Any] = yaml.safe_load(source.read_text())
    for item in (*study["render"], *study["segment"]["heldout"]):
        if str(item["recipe"]).endswith(".yaml"):
            item["recipe"] = str((source.parent / item["recipe"]).resolve())
    if seed is not None:
        other = seed - study["train"]["seed"]
        for item in study["render"]:
            item["seed"] += other
        study["train"]["seed"] = seed
    return study


def install(model: Path) -> None:
    """Put the exported version where the segmenter looks for the network that comes with it."""
    shutil.rmtree(PACKAGED)
    shutil.copytree(model, PACKAGED / "1")
    for name in ("MODEL_CARD.md", "training_data.png"):
        (PACKAGED / "1" / name).rename(PACKAGED / name)
    say(f"installed: {PACKAGED.relative_to(ROOT)}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
