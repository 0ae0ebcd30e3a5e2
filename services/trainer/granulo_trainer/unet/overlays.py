# SPDX-License-Identifier: GPL-3.0-or-later
"""What people put on micrographs: letters, boxes, scale bars and data bars, as background.

Networks that never saw them take a white box with a letter for a particle.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

_TEXTS = (
    "(a)", "a", "b", "(b)", "c", "c)", "D", "(d)", "(i)", "h", "A", "e", "[c]", "100 nm",
    "500nm", "1 um", "200 nm", "1.0 um", "SiO2", "TiO2", "Gd30", "500 nm", "x50,000", "2 um",
    "EHT = 5.00 kV", "WD = 7.5 mm", "Mag = 8.92 K X", "S-4800 30.0kV", "10kV",
)  # fmt: skip


def burn_overlays(
    image: NDArray[np.uint8], labels: NDArray[np.uint16], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Draw annotations over a patch, as in a printed figure.

    Parameters
    ----------
    image : (H, W) uint8
    labels : (H, W) uint16
    rng : numpy.random.Generator

    Returns
    -------
    image, labels
        Copies. What a filled box or a data bar covers becomes background; letters and bars
        without a box leave the labels below them as they are.
    """
    image, labels = image.copy(), labels.copy()
    if rng.random() < 0.25:
        _data_bar(image, labels, rng)
    for _ in range(int(rng.choice([0, 1, 1, 2]))):
        _note(image, labels, rng)
    return image, labels


def _note(image: NDArray[np.uint8], labels: NDArray[np.uint16], rng: np.random.Generator) -> None:
    """A letter or a length, with or without a box and a scale bar."""
    height, width = image.shape
    text = str(rng.choice(_TEXTS[:22]))
    font = int(rng.integers(0, 8))
    size = float(rng.uniform(0.5, 2.2)) if len(text) <= 3 else float(rng.uniform(0.4, 1.2))
    thickness = max(1, round(size * rng.uniform(1.0, 4.0)))
    (text_width, text_height), below = cv2.getTextSize(text, font, size, thickness)
    with_bar = rng.random() < (0.6 if "m" in text else 0.1)
    bar_height = max(2, round(text_height * rng.uniform(0.1, 0.35)))
    pad = int(rng.integers(2, 12))
    box_width = max(text_width, 20) + 2 * pad
    box_height = text_height + below + 2 * pad + (bar_height + pad if with_bar else 0)
    left, top = _position(width - box_width, height - box_height, rng)

    ink = int(rng.choice([0, 255, 255]))
    if rng.random() < 0.6:
        paper = 255 - ink if rng.random() < 0.85 else int(rng.integers(0, 256))
        rows = slice(max(0, top), max(0, top + box_height))
        columns = slice(max(0, left), max(0, left + box_width))
        image[rows, columns] = paper
        labels[rows, columns] = 0
    baseline = top + pad + text_height
    cv2.putText(image, text, (left + pad, baseline), font, size, ink, thickness, cv2.LINE_AA)
    if with_bar:
        start = (left + pad, baseline + below + pad // 2)
        end = (left + box_width - pad, start[1] + bar_height)
        cv2.rectangle(image, start, end, ink, -1)


def _position(free_x: int, free_y: int, rng: np.random.Generator) -> tuple[int, int]:
    """Mostly in a corner, where figures have their letters; partly cut off by the patch."""
    x, y = rng.uniform(-0.1, 1.1) * free_x, rng.uniform(-0.1, 1.1) * free_y
    if rng.random() < 0.5:
        x = rng.choice([0.0, 0.03, 0.97, 1.0]) * free_x
        y = rng.choice([0.0, 0.03, 0.97, 1.0]) * free_y
    return int(x), int(y)


def _data_bar(
    image: NDArray[np.uint8], labels: NDArray[np.uint16], rng: np.random.Generator
) -> None:
    """A strip of the instrument at the lower edge with small print."""
    height, width = image.shape
    strip = int(rng.integers(height // 12, height // 4))
    paper = int(rng.choice([0, 255]))
    ink = 255 - paper
    image[height - strip :] = paper
    labels[height - strip :] = 0
    x = int(rng.integers(-20, 10))
    size = float(rng.uniform(0.3, 0.6))
    while x < width:
        for y in range(height - strip + 12, height - 2, 16):
            text = str(rng.choice(_TEXTS[13:]))
            cv2.putText(image, text, (x, y), int(rng.integers(0, 4)), size, ink, 1, cv2.LINE_AA)
        x += int(rng.integers(60, 140))
