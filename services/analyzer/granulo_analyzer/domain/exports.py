# SPDX-License-Identifier: GPL-3.0-or-later
"""Measured particles for other programs: ImageJ's regions of interest, and COCO."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from granulo_analyzer.domain.morphology import ParticleTable
from granulo_core.imaging import exports
from granulo_core.imaging.regions import Region, write_regions

_SHOWN = ("ecd_nm", "ecd_px", "confidence")
_INFO = {"description": "Particles measured by Granulo", "version": "1.0"}


@dataclass(frozen=True, eq=False)
class Shapes:
    """The particles of one image with their pixels."""

    labels: NDArray[np.integer[Any]]
    """(H, W)"""
    table: ParticleTable
    """Of these labels."""
    amodal: NDArray[np.integer[Any]] | None = None
    """(P, H, W), the whole particles where they are known."""

    def masks(self) -> Iterator[tuple[int, slice, slice, NDArray[np.bool_]]]:
        """Yield every row of the table with the particle's box, and its mask in it."""
        numbers = self.table.columns["label"]
        place = np.searchsorted(np.concatenate(([0], numbers)), self.labels).astype(np.int32)
        for row, box in enumerate(find_objects(place, max_label=len(numbers))):
            if box is not None:
                yield row, *box, place[box] == row + 1


def roi_zip(shapes: Shapes) -> bytes:
    """Outlines of the particles of one image, see `write_regions`.

    Returns
    -------
    bytes
        A zip that ImageJ's ROI manager opens; regions have the numbers of the overlay.
    """
    columns = shapes.table.columns
    shown = [name for name in _SHOWN if name in columns]

    def regions() -> Iterator[Region]:
        for row, rows, cols, mask in shapes.masks():
            number = int(columns["label"][row])
            known = [name for name in shown if np.isfinite(columns[name][row])]
            properties = {name: f"{columns[name][row]:.5g}" for name in known}
            yield Region(number, mask, cols.start, rows.start, {**properties, "label": str(number)})

    buffer = io.BytesIO()
    write_regions(buffer, regions())
    return buffer.getvalue()


def image_coco(shapes: Shapes, file_name: str, height_px: int) -> bytes:
    """COCO's JSON of one image.

    Parameters
    ----------
    shapes : Shapes
    file_name : str
        What the user calls the image.
    height_px : int
        Of the whole image, with its data bar.

    Returns
    -------
    bytes
        Ids are the numbers in the labels; ``score`` is the confidence, and fields that begin with
        ``amodal_`` are of the whole particle, where these are known.
    """
    columns, shape = shapes.table.columns, (height_px, shapes.labels.shape[1])
    whole = _pages_by_label(shapes.amodal) if shapes.amodal is not None else {}
    annotations = []
    for row, rows, cols, mask in shapes.masks():
        number = int(columns["label"][row])
        inside = np.nonzero(mask)
        pixels = (inside[0] + rows.start) * shape[1] + inside[1] + cols.start
        annotation = exports.found_annotation(1, number, pixels, shape, amodal=whole.get(number))
        for column, name in (("confidence", "score"), ("visible_fraction", "visible_fraction")):
            if column in columns and np.isfinite(columns[column][row]):
                annotation[name] = round(float(columns[column][row]), 4)
        annotations.append(annotation)
    size = shapes.table.pixel_size_nm
    size_nm = float(np.sqrt(size[0] * size[1])) if size else None
    return _document([exports.coco_image(1, file_name, shape, size_nm)], annotations)


def write_merged_coco(images: Iterable[bytes], file: IO[bytes]) -> None:
    """Join the files of several images, one in memory at a time.

    Ids of annotations are the column ``particle`` of the table, ``label`` the number in the labels.

    Parameters
    ----------
    images : iterable of bytes
        As of `image_coco`, in the order of the table.
    file : binary file
        Written to from where it is.
    """
    records: list[dict[str, Any]] = []
    particle = 0
    file.write(b'{"annotations":[')
    for number, data in enumerate(images, start=1):
        document = json.loads(data)
        records.append({**document["images"][0], "id": number})
        for item in document["annotations"]:
            own = {"id": particle + 1, "image_id": number, "label": item["id"]}
            file.write(b"," * bool(particle) + _json({**item, **own}))
            particle += 1
    rest = exports.coco_document(records, [], exports.coco_categories(["particle"]), _INFO)
    del rest["annotations"]
    file.write(b"]," + _json(rest)[1:])


def _document(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> bytes:
    categories = exports.coco_categories(["particle"])
    return _json(exports.coco_document(images, annotations, categories, _INFO))


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _pages_by_label(pages: NDArray[np.integer[Any]]) -> dict[int, NDArray[np.int64]]:
    """Pixels of the whole particles, ``row * width + column``."""
    flat = pages.reshape(len(pages), -1)
    page, place = np.nonzero(flat)
    owner = flat[page, place]
    order = np.argsort(owner, kind="stable")
    numbers, starts = np.unique(owner[order], return_index=True)
    return dict(zip(numbers.tolist(), np.split(place[order], starts[1:]), strict=True))
