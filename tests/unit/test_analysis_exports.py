# SPDX-License-Identifier: GPL-3.0-or-later
"""What an analysis writes for other programs says the same as its table."""

import io
import json

import numpy as np
import pytest
import roifile
from pyarrow import parquet
from pycocotools import mask as coco_mask

from granulo_analyzer.domain.exports import Shapes, image_coco, roi_zip, write_merged_coco
from granulo_analyzer.domain.morphology import measure
from granulo_analyzer.domain.tables import image_csv, merged_csv, merged_parquet, read_rows
from granulo_core.imaging.regions import outline


def labels_of(seed: int, count: int = 12) -> np.ndarray:
    """Discs of which later ones hide parts of earlier ones; numbers have gaps."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((90, 120), np.uint16)
    y, x = np.mgrid[:90, :120]
    for number in range(count):
        inside = np.hypot(x - rng.uniform(0, 120), y - rng.uniform(0, 90)) < rng.uniform(5, 12)
        labels[inside] = 3 * number + 2
    return labels


def pieces(labels: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
    return [labels == number for number in numbers]


def merged(images: list[bytes]) -> dict:
    file = io.BytesIO()
    write_merged_coco(images, file)
    return json.loads(file.getvalue())


def decoded(segmentation: dict) -> np.ndarray:
    return coco_mask.decode({**segmentation, "counts": segmentation["counts"].encode()}) > 0


def test_regions_are_the_outlines_of_the_labels_under_their_numbers(tmp_path) -> None:
    labels = labels_of(1)
    table = measure(labels, pixel_size_nm=(2.0, 2.0))
    path = tmp_path / "rois.zip"
    path.write_bytes(roi_zip(Shapes(labels, table)))
    regions = roifile.roiread(str(path))
    assert [int(region.name) for region in regions] == table.columns["label"].tolist()
    for region, mask in zip(regions, pieces(labels, table.columns["label"]), strict=True):
        np.testing.assert_array_equal(region.coordinates().astype(int), outline(mask))
        assert "ecd_nm: " in region.props


def test_coco_has_the_masks_of_all_images_under_the_numbers_of_the_table() -> None:
    images = [labels_of(2), np.zeros((90, 120), np.uint16), labels_of(3)]
    names = ["a.tif", "b.tif", "c.tif"]
    tables = [measure(labels, pixel_size_nm=(2.0, 8.0)) for labels in images]
    parts = [
        image_coco(Shapes(labels, table), name, 100)
        for labels, table, name in zip(images, tables, names, strict=True)
    ]
    document = merged(parts)
    shown = [(item["id"], item["file_name"], item["height"]) for item in document["images"]]
    assert shown == [(1, "a.tif", 100), (2, "b.tif", 100), (3, "c.tif", 100)]
    assert document["images"][0]["pixel_size_nm"] == 4.0
    named = [(name, image_csv(table)) for name, table in zip(names, tables, strict=True)]
    rows = list(read_rows(merged_csv(named)))
    assert len(rows) == len(document["annotations"]) > 15
    for row, item in zip(rows, document["annotations"], strict=True):
        assert (item["id"], item["label"]) == (int(row["particle"]), int(row["label"]))
        labels = images[item["image_id"] - 1]
        np.testing.assert_array_equal(decoded(item["segmentation"])[:90], labels == item["label"])
        assert item["area"] == float(row["area_px"])
        assert "score" not in item


def test_coco_has_the_whole_particle_where_it_is_known() -> None:
    whole = np.zeros((2, 40, 50), np.uint16)
    whole[0, 5:25, 5:25] = 1
    whole[1, 10:30, 15:45] = 2
    labels = np.where(whole[1] > 0, whole[1], whole[0])
    table = measure(labels, amodal=whole, confidence={1: 0.25}, visible_fraction={1: 0.5})
    document = json.loads(image_coco(Shapes(labels, table, whole), "x.tif", 40))
    first, second = document["annotations"]
    for item, page in ((first, whole[0]), (second, whole[1])):
        np.testing.assert_array_equal(decoded(item["amodal_segmentation"]), page > 0)
        assert item["amodal_area"] == np.count_nonzero(page)
    assert (first["score"], first["visible_fraction"]) == (0.25, 0.5)
    assert "score" not in second


def test_nothing_found_makes_empty_files(tmp_path) -> None:
    labels = np.zeros((20, 30), np.uint8)
    shapes = Shapes(labels, measure(labels))
    path = tmp_path / "rois.zip"
    path.write_bytes(roi_zip(shapes))
    assert path.read_bytes()[:2] == b"PK"
    assert merged([image_coco(shapes, "x", 20)])["annotations"] == []


def test_parquet_has_the_table_with_types_and_units() -> None:
    known = measure(labels_of(4), pixel_size_nm=(2.0, 2.0), confidence={2: 0.5})
    named = [("a", image_csv(known)), ("b", image_csv(measure(labels_of(5))))]
    read = parquet.read_table(io.BytesIO(merged_parquet(named)))
    rows = list(read_rows(merged_csv(named)))
    assert read.column_names == list(rows[0])
    assert read.num_rows == len(rows)
    assert str(read.schema.field("touches_border").type) == "bool"
    assert str(read.schema.field("label").type) == "int64"
    assert read.schema.field("ecd_nm").metadata[b"unit"] == b"nm"
    for name in ("ecd_nm", "area_px", "confidence"):
        cells = [float(row[name]) if row[name] else None for row in rows]
        assert read[name].to_pylist() == pytest.approx(cells, nan_ok=True), name
