# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of one image as files; images that do not fit into memory are written in strips."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.labels import encode_tiff, write_labels, write_tiles
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.regions import write_regions
from granulo_segmenter.domain.jobs import Outputs
from granulo_segmenter.domain.overlay import draw_overlay, encode_png
from granulo_segmenter.domain.planes import Plane, Window, whole
from granulo_segmenter.domain.segmentation import Segmented
from granulo_segmenter.domain.tables import coco_json, particle_table, regions

OVERLAY_PX = 4096
"""Overlays of larger images are reduced until their longer side has no more pixels."""
_MEDIA_TYPES = {
    ".tif": "image/tiff", ".png": "image/png", ".csv": "text/csv", ".zip": "application/zip",
    ".json": "application/json",
}  # fmt: skip


@dataclass(frozen=True)
class ResultFile:
    """One file of results."""

    kind: str
    """Which field of ``SegmentedImage`` it is."""
    ending: str
    """What follows the image's stem in its name."""
    path: Path

    @property
    def media_type(self) -> str:
        """By its ending."""
        return _MEDIA_TYPES[self.path.suffix]


@dataclass(frozen=True)
class Written:
    """What is to be written."""

    found: Segmented
    image: Plane
    """Grey levels, with the data bar."""
    shape: tuple[int, int]
    """Of the whole image, with the data bar."""
    name: str
    """What the user calls the image."""
    pixel_size: PixelSize | None
    in_memory: bool


def write_results(result: Written, outputs: Outputs, folder: Path) -> list[ResultFile]:
    """Write the files that are wanted.

    Parameters
    ----------
    result : Written
    outputs : Outputs
    folder : Path
        Empty.

    Returns
    -------
    list of ResultFile
        Labels and particle table first.
    """
    wanted: list[tuple[str, str, Callable[[Written, Path], None]]] = [
        ("labels", "_labels.tif", _labels),
        ("particles", "_particles.csv", _table),
    ]
    if outputs.overlay:
        wanted.append(("overlay", "_overlay.png", _overlay))
    if outputs.rois:
        wanted.append(("rois", "_rois.zip", _rois))
    if outputs.coco:
        wanted.append(("coco", "_coco.json", _coco))
    if outputs.probabilities:
        wanted.append(("probabilities", "_probabilities.tif", _probabilities))
    files = [ResultFile(kind, ending, folder / f"result{ending}") for kind, ending, _ in wanted]
    # What compresses leaves the interpreter to others meanwhile. An image beyond memory is written
    # in strips that fill it, so one file after the other.
    with ThreadPoolExecutor(len(wanted) if result.in_memory else 1) as threads:
        jobs = [
            threads.submit(write, result, file.path)
            for file, (_, _, write) in zip(files, wanted, strict=True)
        ]
    for job in jobs:
        job.result()
    return files


def _labels(result: Written, path: Path) -> None:
    if result.in_memory:
        path.write_bytes(encode_tiff(_all(result), result.pixel_size, kind="labels"))
        return
    write_labels(path, result.shape, lambda *rows: _rows(result, *rows), result.pixel_size)


def _table(result: Written, path: Path) -> None:
    path.write_bytes(particle_table(result.found.particles, result.pixel_size))


def _coco(result: Written, path: Path) -> None:
    found = result.found
    path.write_bytes(
        coco_json(found.particles, found.labels, result.name, result.shape, result.pixel_size)
    )


def _rois(result: Written, path: Path) -> None:
    write_regions(path, regions(result.found.particles, result.found.labels))


def _overlay(result: Written, path: Path) -> None:
    factor = -(-max(result.shape) // OVERLAY_PX)
    pixels = _reduced(result.image, factor)
    labels = np.concatenate(
        [
            _rows(result, strip.top, strip.bottom)[factor // 2 :: factor, factor // 2 :: factor]
            for strip in _strips(result.shape, factor)
        ]
    )
    height, width = pixels.shape
    path.write_bytes(encode_png(draw_overlay(pixels, labels[:height, :width])))


def _probabilities(result: Written, path: Path) -> None:
    maps, shape = result.found.maps, result.found.maps.shape

    def reader(name: str) -> Callable[[int, int], NDArray[Any]]:
        return lambda first, end: maps.read(name, Window(first, end, 0, shape[1]))

    names = list(maps.planes)
    size = result.pixel_size
    description = {"pages": names, "pixel_size_nm": size.as_tuple() if size else None}
    pages = [(shape, reader(name)) for name in names]
    write_tiles(path, pages, np.dtype("<f2"), json.dumps(description))


def _all(result: Written) -> NDArray[np.uint32]:
    return _rows(result, 0, result.shape[0])


def _rows(result: Written, first: int, end: int) -> NDArray[np.uint32]:
    """Rows of the labels; in a data bar there are none."""
    labels = result.found.labels
    rows = np.zeros((end - first, result.shape[1]), dtype=np.uint32)
    known = min(end, labels.shape[0])
    if known > first:
        rows[: known - first] = labels.read(Window(first, known, 0, result.shape[1]))
    return rows


def _reduced(image: Plane, factor: int) -> NDArray[Any]:
    """An image with one pixel for ``factor`` x ``factor``, whose mean it is."""
    if factor == 1:
        return image.read(whole(image.shape))
    width = image.shape[1] // factor
    parts = []
    for strip in _strips(image.shape, factor):
        part = image.read(strip)[:, : width * factor]
        part = part[: part.shape[0] // factor * factor]
        if part.size:
            size = (width, part.shape[0] // factor)
            parts.append(cv2.resize(part, size, interpolation=cv2.INTER_AREA))
    return np.concatenate(parts)


def _strips(shape: tuple[int, int], factor: int) -> list[Window]:
    """Rows whose number divides by the factor, but for the last."""
    step = max(1, (1 << 24) // (shape[1] * factor)) * factor
    return [Window(top, min(shape[0], top + step), 0, shape[1]) for top in range(0, shape[0], step)]
