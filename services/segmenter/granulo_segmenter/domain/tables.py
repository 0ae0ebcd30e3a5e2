# SPDX-License-Identifier: GPL-3.0-or-later
"""Particles as the documents of other programs: CSV, COCO, ImageJ's regions of interest."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging import exports
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.regions import Region
from granulo_segmenter.domain.particles import Particles
from granulo_segmenter.domain.planes import Plane, Window

COLUMNS = (
    "label", "confidence", "centroid_x_px", "centroid_y_px", "area_px", "centroid_x_nm",
    "centroid_y_nm", "area_nm2",
)  # fmt: skip
"""Of the particle table; the last three only where the pixel size is known."""


def particle_table(particles: Particles, pixel_size: PixelSize | None) -> bytes:
    """CSV, one row a particle; the centre of the image's first pixel is at (0.5, 0.5).

    Parameters
    ----------
    particles : Particles
    pixel_size : PixelSize, optional

    Returns
    -------
    bytes
        See `COLUMNS`.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS if pixel_size else COLUMNS[:5])
    for index in range(len(particles)):
        x_px, y_px = particles.centroid_px[index] + 0.5
        area_px = int(particles.area_px[index])
        row: list[Any] = [index + 1, f"{particles.confidence[index]:.4f}"]
        row += [f"{x_px:.3f}", f"{y_px:.3f}", area_px]
        if pixel_size:
            row += [f"{x_px * pixel_size.x_nm:.6g}", f"{y_px * pixel_size.y_nm:.6g}"]
            row.append(f"{area_px * pixel_size.area_nm2:.6g}")
        rows.writerow(row)
    return text.getvalue().encode()


def coco_json(
    particles: Particles,
    labels: Plane,
    name: str,
    shape: tuple[int, int],
    pixel_size: PixelSize | None,
) -> bytes:
    """COCO's JSON of one image.

    Parameters
    ----------
    particles : Particles
    labels : Plane
        Of the content.
    name : str
        What the user calls the image.
    shape : (height, width)
        Of the whole image.
    pixel_size : PixelSize, optional

    Returns
    -------
    bytes
    """
    annotations = []
    for number, window, mask in masks(particles, labels):
        rows, columns = np.nonzero(mask)
        pixels = (rows + window.top).astype(np.int64) * shape[1] + columns + window.left
        score = float(particles.confidence[number - 1])
        annotations.append(exports.found_annotation(1, number, pixels, shape, score=score))
    size_nm = pixel_size.mean_nm if pixel_size else None
    document = exports.coco_document(
        [exports.coco_image(1, name, shape, size_nm)],
        annotations,
        exports.coco_categories(["particle"]),
        {"description": "Particles found by Granulo", "version": "1.0"},
    )
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def regions(particles: Particles, labels: Plane) -> Iterator[Region]:
    """Yield every particle for ImageJ, with its confidence."""
    for number, window, mask in masks(particles, labels):
        properties = {
            "confidence": f"{particles.confidence[number - 1]:.4f}",
            "label": str(number),
        }
        yield Region(number, mask, window.left, window.top, properties)


def masks(particles: Particles, labels: Plane) -> Iterator[tuple[int, Window, NDArray[np.bool_]]]:
    """Yield every particle's label, box, and mask in it."""
    for index, box in enumerate(particles.boxes):
        window = Window(*(int(side) for side in box))
        yield index + 1, window, np.asarray(labels.read(window) == index + 1)
