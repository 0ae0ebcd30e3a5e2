# SPDX-License-Identifier: GPL-3.0-or-later
"""What the label-free score is worth: its rank correlation with the true AP50 of checkpoints.

Reads finished versions of a data folder, predicts the labelled micrographs with every checkpoint,
and computes score and AP50 by the product's own code:

    python benchmarks/label_free.py DATA models/a/versions/1 models/b/versions/1 --rows rows.json

The rows file keeps what was measured, one row an image and checkpoint: a second call goes on.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from granulo_core.imaging.labels import decode_labels
from granulo_core.imaging.normalise import to_network_input
from granulo_core.imaging.read import read_micrograph
from granulo_core.store import LocalStore
from granulo_trainer import registry
from granulo_trainer.checkpoints import StoreCheckpoints
from granulo_trainer.domain import label_free, metrics
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.run import ValidationImage
from granulo_trainer.kept_jobs import kept_job

SHARED = Path(os.environ.get("GRANULO_SHARED", Path(__file__).resolve().parents[2] / "shared"))
SETS = {"tio2": ("tio2_sem", "{}_m.tif"), "spheres": ("spheres_sem", "{}_labels.png")}
PARTS = ("agreement", "held-out AP50", "epoch", "label-free score")
RESAMPLES = 2_000

Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="data folder of a standalone")
    parser.add_argument("versions", nargs="+", help="models/<model>/versions/<n>")
    parser.add_argument("--rows", type=Path, required=True, help="where measured rows are kept")
    options = parser.parse_args()
    rows: list[Row] = json.loads(options.rows.read_text()) if options.rows.exists() else []
    store = LocalStore(options.data / "store")
    for name in options.versions:
        known = {row["epoch"] for row in rows if row["version"] == name}
        for found in measured(store, registry.VersionName.parse(name), known):
            rows += found
            options.rows.write_text(json.dumps(rows))
    show([row for row in rows if row["version"] in options.versions])
    return 0


def measured(
    store: LocalStore, version: registry.VersionName, known: set[int]
) -> Iterator[list[Row]]:
    """Rows of one checkpoint after another."""
    from granulo_trainer.unet import network as networks
    from granulo_trainer.unet import train as loop
    from granulo_trainer.unet.predict import predictor

    config = kept_job(store, version).config
    images = micrographs(config)
    network = networks.build_network(config, networks.fastest_precision())
    predict = predictor(network, config.stride)

    def segment(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
        return metrics.to_labels(predict(pixels), config.predicts_instances, pixels)

    for record in registry.list_checkpoints(store, version):
        if record.epoch in known:
            continue
        loop.load_weights(network, StoreCheckpoints(store, version).weights(record.epoch))
        rows = []
        for group, image in images:
            assert image.labels is not None
            labels = segment(image.pixels)
            rows.append(
                {
                    "version": str(version),
                    "epoch": record.epoch,
                    "group": group,
                    "image": image.name,
                    "heldout_ap50": record.figures["heldout_ap50"],
                    **metrics.score(image.labels, labels),
                    "agreement": label_free.self_agreement(image.pixels, labels, segment),
                }
            )
        ap50 = np.mean([row["ap50"] for row in rows])
        print(f"{version} epoch {record.epoch}: AP50 {ap50:.3f}", file=sys.stderr)
        yield rows


def micrographs(config: TrainingConfig) -> list[tuple[str, ValidationImage]]:
    """The labelled validation micrographs; never trained on."""
    found = []
    for group, (folder, pattern) in SETS.items():
        for path in sorted((SHARED / "micrographs" / folder).iterdir()):
            labels_path = path.with_name(pattern.format(path.stem))
            if not labels_path.exists():
                continue
            micrograph = read_micrograph(path)
            rows = micrograph.content_height_px
            labels = decode_labels(labels_path)[:rows]
            pixels = to_network_input(micrograph.content, config.convention)
            found.append((group, ValidationImage(path.stem, pixels, labels)))
    if not found:
        raise SystemExit(f"no labelled micrographs in {SHARED / 'micrographs'}")
    return found


def show(rows: Sequence[Row]) -> None:
    """Correlations of each part and of the score, and what picking by the score would have cost."""
    names = sorted({row["version"] for row in rows})
    table = Table("images", "checkpoints", *PARTS, "interval of the score (95 %)")
    for title, groups in [*((group, (group,)) for group in SETS), ("all", tuple(SETS))]:
        for name in names:
            add(table, title, name, Checkpoints.of(rows, [name], groups))
        add(table, title, "pooled", Checkpoints.of(rows, names, groups))
        late = Checkpoints.of(second_halves(rows), names, groups)
        add(table, title, "pooled, second half of each run", late)
        table.add_section()
    console = Console(width=150)
    console.print("Spearman's rank correlation with the true AP50")
    console.print(table)
    picks = Table("version", "AP50 of the best epoch", "picked by the score", "of the last epoch")
    for name in names:
        found = Checkpoints.of(rows, [name], tuple(SETS))
        picked = found.ap50[np.argmax(found.parts["label-free score"])]
        values = (found.ap50.max(), picked, found.ap50[-1])
        picks.add_row(name, *(f"{value:.3f}" for value in values))
    console.print(picks)


def add(table: Table, title: str, runs: str, found: "Checkpoints") -> None:
    low, high = found.interval("label-free score")
    table.add_row(
        title,
        f"{runs} ({len(found.ap50)})",
        *(f"{found.correlation(part):.2f}" for part in PARTS),
        f"{low:.2f} to {high:.2f}",
    )


def second_halves(rows: Sequence[Row]) -> list[Row]:
    """Without the beginnings of the runs, whose checkpoints nobody would choose."""
    last = defaultdict(int)
    for row in rows:
        last[row["version"]] = max(last[row["version"]], row["epoch"])
    return [row for row in rows if 2 * row["epoch"] > last[row["version"]]]


@dataclass(frozen=True)
class Checkpoints:
    """Figures of checkpoints, means over images, in the order of versions and epochs."""

    ap50: NDArray[np.float64]
    parts: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(
        cls, rows: Sequence[Row], versions: Sequence[str], groups: Sequence[str]
    ) -> "Checkpoints":
        """Of some versions, on some sets of images."""
        images = defaultdict(list)
        for row in rows:
            if row["version"] in versions and row["group"] in groups:
                images[row["version"], row["epoch"]].append(row)
        columns = defaultdict(list)
        for (_, epoch), found in sorted(images.items()):
            heldout = found[0]["heldout_ap50"]
            score = label_free.combine([row["agreement"] for row in found], heldout)
            columns["ap50"].append(np.mean([row["ap50"] for row in found]))
            columns["agreement"].append(score["label_free_agreement"])
            columns["held-out AP50"].append(heldout)
            columns["epoch"].append(epoch)
            columns["label-free score"].append(score["label_free"])
        arrays = {name: np.array(values, dtype=float) for name, values in columns.items()}
        return cls(ap50=arrays.pop("ap50"), parts=arrays)

    def correlation(self, part: str) -> float:
        """Rank correlation of a part with the true AP50."""
        return float(spearmanr(self.parts[part], self.ap50).statistic)

    def interval(self, part: str) -> tuple[float, float]:
        """Percentiles 2.5 and 97.5 of the correlation over resampled checkpoints."""
        rng = np.random.default_rng(0)
        draws = rng.integers(len(self.ap50), size=(RESAMPLES, len(self.ap50)))
        values = [spearmanr(self.parts[part][draw], self.ap50[draw]).statistic for draw in draws]
        # A draw of equal checkpoints only has no order.
        low, high = np.nanpercentile(values, (2.5, 97.5))
        return float(low), float(high)


if __name__ == "__main__":
    sys.exit(main())
