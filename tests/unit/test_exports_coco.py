# SPDX-License-Identifier: GPL-3.0-or-later
"""COCO documents: read and decoded by the field's own library."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pycocotools import mask as coco_mask  # type: ignore[import-untyped]
from pycocotools.coco import COCO  # type: ignore[import-untyped]

from granulo_core.imaging.exports import (
    CocoParticle,
    coco_annotations,
    coco_categories,
    coco_document,
    coco_image,
    run_lengths,
)

_LABELS = np.array([[1, 1, 0, 0], [1, 2, 2, 0], [0, 2, 2, 0]], dtype=np.uint16)
_WHOLE = np.array([[0, 0, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0]], dtype=bool)


def _particles() -> list[CocoParticle]:
    first = CocoParticle(1, 1, np.flatnonzero(_LABELS == 1), 1.0, 0, ())
    return [first, CocoParticle(2, 2, np.flatnonzero(_WHOLE), 0.8, 1, (1,))]


def _document() -> dict[str, Any]:
    return coco_document(
        [coco_image(1, "000000.tif", (3, 4), 2.5)],
        coco_annotations(1, _LABELS, _particles()),
        coco_categories(["rod", "sphere"]),
        {"description": "test"},
    )


def test_pycocotools_reads_the_document_and_decodes_both_masks(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(_document()))
    coco = COCO(str(path))
    (image,) = coco.loadImgs(coco.getImgIds())
    assert (image["height"], image["width"], image["pixel_size_nm"]) == (3, 4, 2.5)
    assert [item["name"] for item in coco.loadCats(coco.getCatIds())] == ["rod", "sphere"]
    for item in coco.loadAnns(coco.getAnnIds(imgIds=[1])):
        np.testing.assert_array_equal(coco.annToMask(item), item["id"] == _LABELS)
        assert item["area"] == coco_mask.area(item["segmentation"])
        assert item["bbox"] == coco_mask.toBbox(item["segmentation"]).tolist()
        assert item["amodal_area"] == coco_mask.area(item["amodal_segmentation"])
        assert item["amodal_bbox"] == coco_mask.toBbox(item["amodal_segmentation"]).tolist()
    hidden = coco.loadAnns([2])[0]
    np.testing.assert_array_equal(coco_mask.decode(hidden["amodal_segmentation"]), _WHOLE)
    assert (hidden["visible_fraction"], hidden["occlusion_order"]) == (0.8, 1)
    assert (hidden["occluded_by"], hidden["iscrowd"], hidden["category_id"]) == ([1], 0, 2)


@settings(max_examples=50, deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_lengths_are_those_of_pycocotools(mask: NDArray[np.bool_]) -> None:
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    found = run_lengths(np.flatnonzero(mask), mask.shape)
    assert found == {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def test_the_order_of_pixels_does_not_matter() -> None:
    pixels = np.flatnonzero(_WHOLE)
    assert run_lengths(pixels[::-1], (3, 4)) == run_lengths(pixels, (3, 4))


@pytest.mark.parametrize(
    "wrong",
    [
        CocoParticle(3, 1, np.array([0]), 1.0, 0, ()),
        CocoParticle(1, 1, np.array([0]), 1.0, 0, (3,)),
    ],
)
def test_a_particle_that_is_not_in_the_labels_is_refused(wrong: CocoParticle) -> None:
    with pytest.raises(ValueError, match="particle 3 is not in the labels"):
        coco_annotations(1, _LABELS, [wrong])


def test_an_image_without_particles_has_no_annotations() -> None:
    assert coco_annotations(1, np.zeros((4, 4), dtype=np.uint16), []) == []
