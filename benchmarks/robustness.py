# SPDX-License-Identifier: GPL-3.0-or-later
"""AP50 on changed real micrographs: ``robustness.py [MODEL_FOLDER] [--alone]``.

Sixteen labelled images are few: a change of one of them by chance looks like a gain. Here each is
segmented in ten forms (as it is, smaller, larger, relit, noisy, turned, blurred, cropped), with the
packaged network or another SavedModel, with the outputs of two scales averaged as the model says or
``--alone``. Prints the mean of every form, and over all. Nothing is trained on
them; which network is packaged was chosen by this table (``docs/accuracy.md``).
"""

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import saved_model
from compare_networks import image_sets
from numpy.typing import NDArray

from granulo_core.imaging.labels import decode_labels
from granulo_core.imaging.matching import evaluate
from granulo_core.imaging.normalise import to_grey
from granulo_core.imaging.read import read_micrograph
from granulo_segmenter.domain.segmentation import segment

ROOT = Path(__file__).resolve().parent.parent
PACKAGED = ROOT / "services" / "segmenter" / "granulo_segmenter" / "models" / "default" / "1"
MAX_PX = 1 << 26

Image, Labels = NDArray[np.uint8], NDArray[np.uint32]
Form = Callable[[Image, Labels], tuple[Image, Labels]]


def scaled(factor: float) -> Form:
    def change(image: Image, labels: Labels) -> tuple[Image, Labels]:
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        numbers = labels.astype(np.float32)  # exact up to 2^24, and what OpenCV resizes
        return (
            cv2.resize(image, None, fx=factor, fy=factor, interpolation=how),
            cv2.resize(numbers, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST).astype(
                np.uint32
            ),
        )

    return change


def relit(gamma: float) -> Form:
    levels = np.rint(255 * np.linspace(0, 1, 256) ** gamma).astype(np.uint8)
    return lambda image, labels: (levels[image], labels)


def noisy(image: Image, labels: Labels) -> tuple[Image, Labels]:
    noise = np.random.default_rng(0).normal(0, 10, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), labels


def cropped(down: float, across: float, share: float = 0.7) -> Form:
    def change(image: Image, labels: Labels) -> tuple[Image, Labels]:
        height, width = image.shape
        top, left = int(down * height * (1 - share)), int(across * width * (1 - share))
        part = np.s_[top : top + int(share * height), left : left + int(share * width)]
        return np.ascontiguousarray(image[part]), np.ascontiguousarray(labels[part])

    return change


FORMS: Mapping[str, Form] = {
    "as it is": lambda image, labels: (image, labels),
    "0.7 of its size": scaled(0.7),
    "1.4": scaled(1.4),
    "gamma 0.7": relit(0.7),
    "gamma 1.4": relit(1.4),
    "noise": noisy,
    "turned": lambda image, labels: (np.rot90(image).copy(), np.rot90(labels).copy()),
    "blurred": lambda image, labels: (cv2.GaussianBlur(image, (0, 0), 1.2), labels),
    "upper left": cropped(0, 0),
    "lower right": cropped(1, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, default=PACKAGED)
    parser.add_argument("--alone", action="store_true", help="one scale only")
    arguments = parser.parse_args()
    facts, predict = saved_model.load(arguments.model)
    if arguments.alone and facts.scale is not None:
        facts = replace(facts, scale=replace(facts.scale, average_from_px=0.0))
    folder = Path(os.environ.get("MICROGRAPHS") or ROOT.parent / "shared" / "micrographs")
    print(f"| images | mean | {' | '.join(FORMS)} |\n|{'---|' * (len(FORMS) + 2)}")
    for item in image_sets(folder):
        found: dict[str, list[float]] = {name: [] for name in FORMS}
        for image, truth in item.pairs:
            micrograph = read_micrograph(image, max_px=MAX_PX)
            height = min(micrograph.content_height_px, item.content_height_px or MAX_PX)
            grey = eight_bits(to_grey(micrograph.pixels[:height]))
            true = decode_labels(truth)[:height].astype(np.uint32)
            for name, form in FORMS.items():
                pixels, labels = form(grey, true)
                changed = replace(micrograph, pixels=pixels, content_height_px=len(pixels))
                result = segment(changed, facts, predict)
                found[name].append(evaluate(labels, result.labels)["ap50"])
        means = [float(np.mean(values)) for values in found.values()]
        cells = " | ".join(f"{value:.2f}" for value in means)
        print(f"| {item.name} ({len(item.pairs)}) | {np.mean(means):.3f} | {cells} |", flush=True)


def eight_bits(grey: NDArray[Any]) -> Image:
    if grey.dtype == np.uint8:
        return grey
    stretched = cv2.normalize(grey.astype(np.float32), None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    return np.asarray(stretched, np.uint8)


if __name__ == "__main__":
    main()
