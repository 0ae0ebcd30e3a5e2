# SPDX-License-Identifier: GPL-3.0-or-later
"""Accuracy on real micrographs (`make accuracy`): ``accuracy.py OUT``.

Segments every labelled micrograph with Otsu's threshold, with the paper's recipe on the default
network, and with the default as a user gets it, by the `granulo` command; prints the table of
``docs/accuracy.md`` and writes overlays of the best, median and worst image of each folder to
OUT/overlays. Nothing is trained or chosen here.

Environment: ``MICROGRAPHS`` (by default ``../shared/micrographs``), ``MODEL`` and ``DATA`` (a
promoted version of another data folder instead of the default).
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from compare_networks import ImageSet, granulo, image_sets
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries

from granulo_core.imaging.classic import otsu_watershed
from granulo_core.imaging.labels import decode_labels
from granulo_core.imaging.read import read_micrograph

ROOT = Path(__file__).resolve().parent.parent
MAX_PX = 1 << 26
FIGURES = (
    ("f1", "DSC", "{:.3f}"),
    ("ap50", "AP50", "{:.3f}"),
    ("ap75", "AP75", "{:.3f}"),
    ("ap", "AP", "{:.3f}"),
    ("count_error", "count error", "{:.0%}"),
    ("median_size_error", "median diameter", "{:.1%}"),
    ("ks_distance", "KS", "{:.2f}"),
)
"""Metric, its title, and how it is printed."""
TRUE, FOUND = (255, 200, 0), (0, 60, 255)


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    title: str
    name: str
    options: tuple[str, ...] | None
    """Of `granulo segment`; None for Otsu's threshold."""


METHODS = (
    Method("Otsu + distance-transform watershed", "otsu", None),
    Method("default model, paper's recipe", "paper", ("--method", "paper")),
    Method("**default model**", "default", ()),
)
PerImage = Mapping[str, Mapping[str, float]]
"""Metrics by image."""


def main(out: Path) -> None:
    sets = image_sets(Path(os.environ.get("MICROGRAPHS") or ROOT.parent / "shared/micrographs"))
    if not sets:
        sys.exit("accuracy: no labelled micrographs; set MICROGRAPHS to their folder")
    found: dict[str, dict[str, PerImage]] = {}
    for item in sets:
        found[item.name] = {}
        for method in METHODS:
            labels = out / method.name / item.name
            segment(item, method, labels, data_folder(out))
            found[item.name][method.title] = evaluate(item, labels, data_folder(out))
        overlays(item, out / METHODS[-1].name / item.name, found[item.name][METHODS[-1].title],
                 out / "overlays")  # fmt: skip
    (out / "accuracy.json").write_text(json.dumps(found, indent=2) + "\n")
    print("\n".join(table(found)))


def data_folder(out: Path) -> Path:
    return Path(os.environ.get("DATA") or out / "data")


def segment(item: ImageSet, method: Method, labels: Path, data: Path) -> None:
    images = [image for image, _ in item.pairs]
    if method.options is None:
        labels.mkdir(parents=True, exist_ok=True)
        for image in images:
            micrograph = read_micrograph(image, max_px=MAX_PX)
            whole = np.zeros(micrograph.pixels.shape, np.uint32)
            height = item.content_height_px or len(whole)
            whole[:height] = otsu_watershed(micrograph.pixels[:height])
            tifffile.imwrite(labels / f"{image.stem}_labels.tif", whole, compression="zlib")
        return
    model = ("--model", os.environ["MODEL"]) if os.environ.get("MODEL") else ()
    granulo(data, "segment", *images, *model, *method.options, "--out", labels)


def evaluate(item: ImageSet, labels: Path, data: Path) -> dict[str, dict[str, float]]:
    height = ("--content-height", item.content_height_px) if item.content_height_px else ()
    answer = granulo(data, "evaluate", labels, item.pairs[0][1].parent, *height)
    return {Path(image["predicted"]).name.removesuffix("_labels.tif"): image["metrics"]
            for image in answer["images"]}  # fmt: skip


def table(found: Mapping[str, Mapping[str, PerImage]]) -> list[str]:
    """Means over the images; of AP50 also the standard deviation and the lowest."""
    titles = [title for _, title, _ in FIGURES]
    lines = [f"| images | method | {' | '.join(titles)} | AP50 from … (SD) |",
             "|---" * (len(titles) + 3) + "|"]  # fmt: skip
    for name, methods in found.items():
        for title, images in methods.items():
            cells = [
                how.format(np.mean([abs(metrics[key]) for metrics in images.values()]))
                for key, _, how in FIGURES
            ]
            ap50 = np.array([metrics["ap50"] for metrics in images.values()])
            cells.append(f"{ap50.min():.2f} ({ap50.std(ddof=1):.2f})")
            lines.append(f"| {name} ({len(images)}) | {title} | {' | '.join(cells)} |")
    return lines


def overlays(item: ImageSet, labels: Path, metrics: PerImage, folder: Path) -> None:
    """True outlines in blue, found ones in red, of the best, the median and the worst image."""
    folder.mkdir(parents=True, exist_ok=True)
    ranked = sorted(item.pairs, key=lambda pair: -metrics[pair[0].stem]["ap50"])
    chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    for place, (image, truth) in chosen.items():
        pixels = read_micrograph(image, max_px=MAX_PX).pixels
        grey = cv2.normalize(pixels.astype(np.float32), None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
        picture = cv2.cvtColor(grey.astype(np.uint8), cv2.COLOR_GRAY2BGR)
        found = tifffile.imread(labels / f"{image.stem}_labels.tif")
        draw(picture, decode_labels(truth), TRUE)
        draw(picture, found, FOUND)
        ap50 = metrics[image.stem]["ap50"]
        cv2.imwrite(str(folder / f"{item.name}_{place}_{ap50:.2f}_{image.stem}.png"), picture)


def draw(picture: NDArray[np.uint8], labels: NDArray[np.uint32], colour: Sequence[int]) -> None:
    picture[find_boundaries(labels, mode="inner")] = colour


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: accuracy.py OUT")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    main(folder)
