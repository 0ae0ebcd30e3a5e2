# SPDX-License-Identifier: GPL-3.0-or-later
"""The demonstration (`make demo`): the whole chain on renders, and on the user's images if given.

Environment: ``IMAGES`` (paths, separated by spaces), ``PIXEL_SIZE`` (nm), ``OUT`` (folder, by
default ``demo-output``).
"""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
LEAST_AP50 = 0.50


def main() -> int:
    started = time.monotonic()
    out = Path(os.environ.get("OUT") or ROOT / "demo-output").absolute()
    images = [Path(name).absolute() for name in shlex.split(os.environ.get("IMAGES", ""))]
    missing = [str(path) for path in images if not path.is_file()]
    if missing:
        return fail(f"IMAGES: no such file: {', '.join(missing)}")
    try:
        pixel_size_nm = float(os.environ.get("PIXEL_SIZE") or 0) or None
    except ValueError:
        return fail("PIXEL_SIZE: must be a number of nanometres, such as 7.3")
    out.mkdir(parents=True, exist_ok=True)
    study = out / "study.yaml"
    study.write_text(yaml.safe_dump(demo_study(images, pixel_size_nm), sort_keys=False))
    granulo = Path(sys.executable).parent / "granulo"
    done = subprocess.run([granulo, "run", study, "--data", out / "data", "--out", out])
    if done.returncode:
        return done.returncode
    return summary(out, json.loads((out / "study.json").read_text()), time.monotonic() - started)


def demo_study(images: list[Path], pixel_size_nm: float | None) -> dict[str, Any]:
    """Return `examples/demo.yaml` with absolute paths, and with the user's images."""
    source = ROOT / "examples" / "demo.yaml"
    study: dict[str, Any] = yaml.safe_load(source.read_text())
    for item in study["segment"]["heldout"]:
        item["recipe"] = str(source.parent / item["recipe"])
    if images:
        study["segment"]["images"] = [str(path) for path in images]
        if pixel_size_nm is not None:
            study["segment"]["pixel_size_nm"] = pixel_size_nm
    return study


def summary(out: Path, document: dict[str, Any], seconds: float) -> int:
    """Print the figures; the held-out renders decide on success."""
    evaluated = [found for found in document["sets"].values() if "evaluation" in found]
    ap50 = sum(found["evaluation"]["metrics"]["ap50"] for found in evaluated) / len(evaluated)
    say(f"AP50 {ap50:.2f}")
    for name, found in document["sets"].items():
        line = f"{name}: {found['analysis']['particle_count']} particles"
        if "evaluation" in found:
            metrics = found["evaluation"]["metrics"]
            line += f", DSC {metrics['f1']:.3f} and AP75 {metrics['ap75']:.2f} against true labels"
        say(line)
    say(f"time: {seconds / 60:.1f} min")
    say(f"folder: {out}")
    for found in document["sets"].values():
        say(f"report: {found['analysis']['report']}")
    if ap50 < LEAST_AP50:
        return fail(f"AP50 is below {LEAST_AP50:.2f}: the network has not learnt its task", code=1)
    return 0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def fail(message: str, code: int = 2) -> int:
    sys.stderr.write(f"demo: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
