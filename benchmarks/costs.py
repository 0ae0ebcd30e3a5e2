# SPDX-License-Identifier: GPL-3.0-or-later
"""What one image costs: processor seconds, stored bytes, store requests (``costs.py [COUNT]``).

Segments and analyses COUNT (8) micrographs of 2048 x 2048 px with 1,024 particles each through a
standalone, as `granulo segment` and `granulo analyze` with all outlines and masks do, after one
image that is not counted. The figures of ``docs/scaling.md`` come from here.
"""

import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from pathlib import Path

import psutil
import tifffile
from scenes import micrograph

GRANULO = Path(sys.executable).parent / "granulo"
METRICS = "127.0.0.1:50190"
SIDE_PX, SPACING_PX = 2048, 64
KINDS = (
    ("uploads", r"^uploads/"),
    ("labels", r"_labels\.tif$"),
    ("overlays", r"overlay"),
    ("outlines", r"roi"),
    ("masks", r"coco"),
    ("tables", r"\.(csv|parquet)$"),
    ("report", r"report\.html$"),
)
"""What an object is by its key: the first that fits."""


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data"
        environment = {**os.environ, "GRANULO_METRICS_LISTEN": METRICS}
        command = [GRANULO, "up", "--listen", "127.0.0.1:0", "--data", data, "--json"]
        server = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert server.stdout is not None
        server.stdout.readline()
        try:
            work(folder / "first", range(1), data)
            before, kept, asked = cpu_s(server.pid), stored_mb(data / "store"), requests()
            work(folder / "counted", range(1, 1 + count), data, stages := {}, server.pid)
            after = cpu_s(server.pid)
            print(f"\nof one of {count} images of {SIDE_PX} x {SIDE_PX} px:")
            for part in sorted({*before, *after}):
                print(f"core seconds, {part}: {(after[part] - before[part]) / count:.2f}")
            for stage, spent_s in stages.items():
                print(f"core seconds, {stage}: {spent_s / count:.2f}")
            for kind, size_mb in stored_mb(data / "store").items():
                print(f"MB, {kind}: {(size_mb - kept[kind]) / count:.2f}")
            for operation, times in sorted(requests().items()):
                print(f"requests, {operation}: {(times - asked[operation]) / count:.1f}")
        finally:
            server.terminate()
            server.wait(60)


def work(
    folder: Path, seeds: range, data: Path, stages: dict[str, float] | None = None, pid: int = 0
) -> None:
    """Segment and analyse new images; say what each of the two took."""
    images, found, out = folder / "images", folder / "found", folder / "out"
    images.mkdir(parents=True)
    for seed in seeds:
        pixels, layers = micrograph(SIDE_PX, SPACING_PX, seed)
        tifffile.imwrite(images / f"image{seed}.tif", pixels)
    size = str(layers.pixel_size_nm)
    steps = {
        "segmenting": ["segment", *sorted(images.iterdir()), "--out", found, "--roi", "--coco"],
        "analysing": ["analyze", "--out", out, "--images", images],
    }
    for step, words in steps.items():
        before = sum(cpu_s(pid).values()) if pid else 0.0
        labels = sorted(found.glob("*_labels.tif")) if step == "analysing" else []
        command = [GRANULO, words[0], *labels, *words[1:], "--data", data, "--pixel-size", size]
        subprocess.run([*command, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        if stages is not None:
            stages[step] = sum(cpu_s(pid).values()) - before


def cpu_s(pid: int) -> Counter[str]:
    """Processor time so far of the server's processes, ended children included."""
    found: Counter[str] = Counter()
    parent = psutil.Process(pid)
    for process in (parent, *parent.children(recursive=True)):
        times = process.cpu_times()
        is_network = "granulo_segmenter.predictor.embedded" in process.cmdline()
        part = "model server" if is_network else "services and workers"
        found[part] += times.user + times.system + times.children_user + times.children_system
    return found


def stored_mb(store: Path) -> Counter[str]:
    """Size of what is stored, by kind."""
    found: Counter[str] = Counter()
    for path in store.rglob("*"):
        if path.is_file():
            key = path.relative_to(store).as_posix()
            kind = next((name for name, form in KINDS if re.search(form, key)), "other")
            found[kind] += path.stat().st_size / 1e6
    return found


def requests() -> Counter[str]:
    """Store requests so far by operation, workers' included."""
    with urllib.request.urlopen(f"http://{METRICS}/metrics") as answer:
        text = answer.read().decode()
    form = r'^granulo_store_seconds_count\{.*op="(\w+)".*\} (\S+)$'
    found: Counter[str] = Counter()
    for operation, times in re.findall(form, text, re.MULTILINE):
        found[operation] += float(times)
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
