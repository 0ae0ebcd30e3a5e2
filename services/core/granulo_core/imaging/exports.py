# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels in the formats of other programs: COCO with run-length encoded masks.

The masks of hidden parts are in extra fields, which programs that do not know them pass over.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask  # type: ignore[import-untyped]

Index = NDArray[np.int64]
Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class CocoParticle:
    """One labelled particle."""

    id: int
    """Its value in the labels."""
    category: int
    """Id of its category."""
    amodal_pixels: Index
    """``row * width + column`` of all its pixels, hidden ones included."""
    visible_fraction: float
    occlusion_order: int
    """0 where nothing lies above it."""
    occluded_by: tuple[int, ...]
    """Ids of the labelled particles that hide a part of it."""


def coco_image(
    image_id: int, file_name: str, shape: tuple[int, int], pixel_size_nm: float | None = None
) -> Record:
    """Describe an image of ``shape`` (height, width); the pixel size is left out if unknown."""
    record: Record = {
        "id": image_id,
        "file_name": file_name,
        "height": shape[0],
        "width": shape[1],
    }
    if pixel_size_nm is not None:
        record["pixel_size_nm"] = pixel_size_nm
    return record


def coco_annotations(
    image_id: int, labels: NDArray[np.integer[Any]], particles: Iterable[CocoParticle]
) -> list[Record]:
    """Describe the labelled particles of one image.

    Parameters
    ----------
    image_id : int
    labels : (H, W) integer
        Visible instances, 0 is background.
    particles : iterable of CocoParticle
        One of every id in ``labels``.

    Returns
    -------
    list of dict
        ``id`` is the particle's value in the labels; ``segmentation``, ``bbox`` and ``area`` are
        of what is seen, those that begin with ``amodal_`` of the whole particle in the image.

    Raises
    ------
    ValueError
        A particle is not in ``labels``, or is occluded by one that is not.
    """
    visible = _pixels_by_id(labels)
    records = []
    for item in particles:
        unknown = [i for i in (item.id, *item.occluded_by) if i not in visible]
        if unknown:
            raise ValueError(f"particle {unknown[0]} is not in the labels of image {image_id}")
        seen, whole = visible[item.id], item.amodal_pixels
        records.append(
            {
                "id": item.id,
                "image_id": image_id,
                "category_id": item.category,
                "segmentation": run_lengths(seen, labels.shape),
                "bbox": _box(seen, labels.shape[1]),
                "area": len(seen),
                "iscrowd": 0,
                "amodal_segmentation": run_lengths(whole, labels.shape),
                "amodal_bbox": _box(whole, labels.shape[1]),
                "amodal_area": len(whole),
                "visible_fraction": round(item.visible_fraction, 6),
                "occlusion_order": item.occlusion_order,
                "occluded_by": list(item.occluded_by),
            }
        )
    return records


def found_annotation(
    image_id: int,
    number: int,
    pixels: Index,
    shape: tuple[int, int],
    *,
    score: float | None = None,
    amodal: Index | None = None,
) -> Record:
    """Describe one found particle.

    Parameters
    ----------
    image_id : int
    number : int
        Its value in the labels.
    pixels : (K,) integer
        ``row * width + column`` of its pixels.
    shape : (height, width)
        Of the image.
    score : float, optional
        Its confidence, 0 to 1, as in COCO's results.
    amodal : (K,) integer, optional
        Pixels of the whole particle.
    """
    record: Record = {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "segmentation": run_lengths(pixels, shape),
        "bbox": _box(pixels, shape[1]),
        "area": len(pixels),
        "iscrowd": 0,
    }
    if score is not None:
        record["score"] = round(score, 4)
    if amodal is not None:
        record["amodal_segmentation"] = run_lengths(amodal, shape)
        record["amodal_bbox"] = _box(amodal, shape[1])
        record["amodal_area"] = len(amodal)
    return record


def coco_categories(names: Sequence[str]) -> list[Record]:
    """Describe categories with the ids 1, 2, ..."""
    return [
        {"id": number, "name": name, "supercategory": "particle"}
        for number, name in enumerate(names, start=1)
    ]


def coco_document(
    images: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]],
    info: Mapping[str, Any],
) -> Record:
    """Put a COCO file together; the result is ready for ``json.dumps``."""
    return {
        "info": dict(info),
        "images": list(images),
        "annotations": list(annotations),
        "categories": list(categories),
    }


def run_lengths(pixels: Index, shape: tuple[int, ...]) -> Record:
    """Encode a mask as COCO's compressed run-length encoding.

    Parameters
    ----------
    pixels : (K,) integer
        ``row * width + column`` of its pixels, in any order.
    shape : (height, width)

    Returns
    -------
    dict
        ``size`` and ``counts``, the latter as text.
    """
    height, width = shape[:2]
    # COCO counts down the columns.
    row, column = np.divmod(np.asarray(pixels, dtype=np.int64), width)
    place = np.sort(column * height + row)
    breaks = np.flatnonzero(np.diff(place) != 1)
    starts = place[np.concatenate([[0], breaks + 1])] if len(place) else place
    ends = place[np.concatenate([breaks, [len(place) - 1]])] + 1 if len(place) else place
    edges = np.concatenate([[0], np.stack([starts, ends], axis=1).ravel(), [height * width]])
    runs = np.diff(edges).tolist()
    if runs[-1] == 0:
        del runs[-1]  # as pycocotools writes it
    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def _pixels_by_id(labels: NDArray[np.integer[Any]]) -> dict[int, Index]:
    flat = labels.ravel()
    filled = np.flatnonzero(flat)
    order = filled[np.argsort(flat[filled], kind="stable")]
    ids, starts = np.unique(flat[order], return_index=True)
    return dict(zip(ids.tolist(), np.split(order, starts[1:]), strict=True)) if len(ids) else {}


def _box(pixels: Index, width: int) -> list[int]:
    """Left, upper, width and height of the pixels' bounding box."""
    row, column = np.divmod(pixels, width)
    left, top = int(column.min()), int(row.min())
    return [left, top, int(column.max()) - left + 1, int(row.max()) - top + 1]
