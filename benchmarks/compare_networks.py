# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks against each other on real micrographs (`make compare-networks`): ``… OUT``.

Renders one mixture of scenes, trains every network on it for the same number of minutes, segments
the labelled micrographs with each, and prints one table. Nothing is trained or selected on the
micrographs. Everything goes through the `granulo` command; the same command again continues.

Environment: ``MINUTES`` (of training per network, default 15), ``MICROGRAPHS``.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from granulo_core.imaging.classic import otsu_watershed
from granulo_core.imaging.labels import decode_labels
from granulo_core.imaging.matching import evaluate, mean_metrics
from granulo_core.imaging.read import read_micrograph

GRANULO = Path(sys.executable).parent / "granulo"
ROOT = Path(__file__).resolve().parent.parent
SCENES = {"tio2": 64, "spheres_any": 48, "mixed_any": 64, "ag_rods": 24}
SEED = 31
FIGURES = ("f1", "ap50", "ap75", "count_error")
# More epochs than the minutes allow: a checkpoint and a learning curve every so many steps.
ENDLESS = ("--epochs", "5000")


@dataclass(frozen=True)
class Network:
    """One row of the table."""

    title: str
    model: str
    options: tuple[str, ...]


NETWORKS = (
    Network(
        "U-Net of the paper, a quarter of its width, and the paper's recipe",
        "compare-paper",
        ("--preset", "paper", "--width", "0.25", "--steps-per-epoch", "50", *ENDLESS),
    ),
    Network("**`small` (default)**", "compare-small", ("--preset", "small", *ENDLESS)),
    Network("`base`", "compare-base", ("--preset", "base", *ENDLESS)),
)


@dataclass(frozen=True)
class ImageSet:
    """Labelled micrographs of one kind."""

    name: str
    pairs: tuple[tuple[Path, Path], ...]
    content_height_px: int
    """Rows below belong to a data bar that is not labelled; 0: the whole image counts."""


def main(out: Path) -> None:
    micrographs = Path(os.environ.get("MICROGRAPHS") or ROOT.parent / "shared" / "micrographs")
    minutes = os.environ.get("MINUTES") or "15"
    sets = image_sets(micrographs)
    if not sets:
        sys.exit(f"compare_networks: {micrographs} holds no labelled micrographs")
    data = out / "data"
    datasets = [
        granulo(data, "render", recipe, "--count", count, "--seed", SEED)["dataset"]
        for recipe, count in SCENES.items()
    ]
    rows = {"Otsu + distance-transform watershed": {item.name: otsu(item) for item in sets}}
    for network in NETWORKS:
        options = (*network.options, "--max-minutes", minutes, "--name", network.model)
        version = granulo(data, "train", *datasets, *options)["model_version"]
        short = version.removeprefix("models/").replace("/versions/", "/")
        # Only promoted versions are served.
        granulo(data, "models", "promote", short)
        rows[network.title] = {
            item.name: scores(data, item, short, out / network.model / item.name) for item in sets
        }
        (out / "rows.json").write_text(json.dumps(rows, indent=2))
    print(table(rows, [item.name for item in sets]))


def image_sets(folder: Path) -> list[ImageSet]:
    """Sets of the shared folder that have labels."""
    found = []
    for name, suffix, height in (
        ("tio2_sem", "_m", 712),
        ("spheres_sem", "_labels", 0),
        ("irregular_sem", "_labels", 0),
        ("rods_sem", "_labels", 0),
    ):
        truths = sorted((folder / name).glob(f"*{suffix}.*"))
        pairs = tuple((image_of(truth, suffix), truth) for truth in truths)
        if pairs:
            found.append(ImageSet(name, pairs, height))
    return found


def image_of(truth: Path, suffix: str) -> Path:
    stem = truth.stem.removesuffix(suffix)
    return next(path for path in truth.parent.iterdir() if path.stem == stem)


def scores(data: Path, item: ImageSet, model: str, labels: Path) -> dict[str, float]:
    """Figures of a network, by the commands that a user has."""
    images = [image for image, _ in item.pairs]
    granulo(data, "segment", *images, "--model", model, "--out", labels)
    height = ("--content-height", item.content_height_px) if item.content_height_px else ()
    metrics = granulo(data, "evaluate", labels, images[0].parent, *height)["metrics"]
    return {name: float(metrics[name]) for name in FIGURES}


def otsu(item: ImageSet) -> dict[str, float]:
    """Figures of the baseline, by the same definitions."""
    found = []
    for image, truth in item.pairs:
        height = item.content_height_px or None
        labels = otsu_watershed(read_micrograph(image, max_px=1 << 26).pixels[:height])
        found.append(evaluate(decode_labels(truth)[:height], labels.astype(np.uint32)))
    means = mean_metrics(found)
    return {name: float(means[name]) for name in FIGURES}


def table(rows: dict[str, dict[str, dict[str, float]]], sets: list[str]) -> str:
    lines = ["| images | method | DSC | AP50 | AP75 | count error |", "|---|---|---|---|---|---|"]
    for name in sets:
        for title, figures in rows.items():
            values = figures[name]
            cells = " | ".join(f"{values[figure]:.3f}" for figure in FIGURES[:3])
            lines.append(f"| {name} | {title} | {cells} | {values['count_error']:.0%} |")
    return "\n".join(lines)


def granulo(data: Path, *arguments: object) -> dict[str, Any]:
    """Run a command; its progress goes to the terminal."""
    words = [str(GRANULO), *map(str, arguments), "--data", str(data), "--json"]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: compare_networks.py OUT")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    main(folder)
