# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written of a segmented image says the same in every format."""

import csv
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import roifile
import tifffile
from pycocotools import mask as coco_mask

from granulo_core.imaging.labels import decode_labels, encode_tiff
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.regions import outline
from granulo_segmenter import writing
from granulo_segmenter.domain.jobs import Outputs
from granulo_segmenter.domain.maps import Maps
from granulo_segmenter.domain.particles import Particles
from granulo_segmenter.domain.planes import ArrayPlane, Window
from granulo_segmenter.domain.segmentation import Segmented
from granulo_segmenter.scratch import FilePlane
from granulo_segmenter.writing import Written, write_results

SIZE = PixelSize(2.0, 4.0)
ALL = Outputs(overlay=True, rois=True, coco=True, probabilities=True)


def labels_of(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    """Ragged pieces, some touching, some at the edges; every label is one 4-connected piece."""
    rng = np.random.default_rng(seed)
    seeds = cv2.resize(
        rng.integers(0, 9, (9, 12)).astype(np.uint8), (width, height), interpolation=0
    )
    noise = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 2) > 0.02
    labels, count = np.zeros((height, width), np.uint32), 0
    for level in range(1, 9):
        found, pieces = cv2.connectedComponents(
            ((seeds == level) & noise).astype(np.uint8), connectivity=4
        )
        for piece in range(1, found):
            if (pieces == piece).sum() >= 6:
                count += 1
                labels[pieces == piece] = count
    return labels


def written(labels: np.ndarray, bar: int = 7) -> Written:
    count = int(labels.max())
    boxes, centroids = [], []
    for number in range(1, count + 1):
        rows, columns = np.nonzero(labels == number)
        boxes.append([rows.min(), rows.max() + 1, columns.min(), columns.max() + 1])
        centroids.append([columns.mean(), rows.mean()])
    particles = Particles(
        np.bincount(labels.ravel())[1:], np.array(boxes), np.array(centroids),
        np.linspace(0.1, 0.9, count),
    )  # fmt: skip
    foreground = ArrayPlane((labels > 0).astype(np.float16))
    maps = Maps({"foreground": foreground, "distance": foreground}, labels.shape)
    shape = labels.shape[0] + bar, labels.shape[1]
    image = ArrayPlane(np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8))
    found = Segmented(ArrayPlane(labels), particles, False, maps)
    return Written(found, image, shape, "a b.tif", SIZE, in_memory=True)


def files(result: Written, folder: Path, outputs: Outputs = ALL) -> dict[str, Path]:
    folder.mkdir()
    return {file.kind: file.path for file in write_results(result, outputs, folder)}


@pytest.mark.parametrize("seed", range(4))
def test_an_outline_encloses_exactly_the_pixels_of_a_particle_without_holes(seed: int) -> None:
    labels = labels_of(seed)
    for number in range(1, int(labels.max()) + 1):
        mask = labels == number
        corners = outline(mask)
        # Pixels whose centres lie inside the polygon of pixel edges.
        inside = np.zeros(mask.shape, bool)
        for row in range(mask.shape[0]):
            before, after = corners, np.roll(corners, -1, axis=0)
            crossing = np.minimum(before[:, 1], after[:, 1]) <= row
            crossing &= np.maximum(before[:, 1], after[:, 1]) > row
            at = np.sort(before[crossing, 0])
            for start, end in zip(at[::2], at[1::2], strict=True):
                inside[row, start:end] = True
        filled = mask.astype(np.uint8)
        outside = np.pad(1 - filled, 1, constant_values=1)
        cv2.floodFill(outside, None, (0, 0), 2)
        np.testing.assert_array_equal(inside, outside[1:-1, 1:-1] != 2)


def test_regions_read_back_as_imagej_reads_them(tmp_path: Path) -> None:
    labels = labels_of(1)
    path = files(written(labels), tmp_path / "out")["rois"]
    regions = roifile.roiread(str(path))
    assert len(regions) == labels.max()
    for number, region in enumerate(regions, start=1):
        assert region.name == f"{number:05d}"
        assert region.roitype == roifile.ROI_TYPE.TRACED
        np.testing.assert_array_equal(
            region.coordinates().astype(int), outline_in_image(labels == number)
        )
        assert f"label: {number}" in region.props


def outline_in_image(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    top, left = rows.min(), columns.min()
    part = mask[top : rows.max() + 1, left : columns.max() + 1]
    return outline(part) + np.array([left, top])


def test_coco_masks_are_the_labels_with_the_confidence_as_score(tmp_path: Path) -> None:
    labels = labels_of(2)
    result = written(labels)
    document = json.loads(files(result, tmp_path / "out")["coco"].read_text())
    assert document["images"][0]["file_name"] == "a b.tif"
    assert (document["images"][0]["height"], document["images"][0]["width"]) == result.shape
    assert len(document["annotations"]) == labels.max()
    for item in document["annotations"]:
        mask = coco_mask.decode(item["segmentation"])
        np.testing.assert_array_equal(mask[: labels.shape[0]] > 0, labels == item["id"])
        assert item["area"] == (labels == item["id"]).sum()
        expected = result.found.particles.confidence[item["id"] - 1]
        assert item["score"] == pytest.approx(expected, abs=1e-4)


def test_the_table_has_nm_where_the_pixel_size_is_known_and_only_there(tmp_path: Path) -> None:
    labels = labels_of(3)
    result = written(labels)
    table = files(result, tmp_path / "nm")["particles"].read_text()
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [int(row["label"]) for row in rows] == list(range(1, int(labels.max()) + 1))
    for number, row in enumerate(rows, start=1):
        where = np.nonzero(labels == number)
        assert int(row["area_px"]) == len(where[0])
        assert float(row["area_nm2"]) == pytest.approx(8.0 * len(where[0]), rel=1e-4)
        assert float(row["centroid_x_px"]) == pytest.approx(where[1].mean() + 0.5, abs=1e-3)
        assert float(row["centroid_y_nm"]) == pytest.approx(4 * (where[0].mean() + 0.5), rel=1e-3)
        assert 0 <= float(row["confidence"]) <= 1
    plain = files(replace(result, pixel_size=None), tmp_path / "px")["particles"].read_text()
    assert "nm" not in plain


def test_labels_in_strips_are_those_in_one_with_the_same_identity(tmp_path: Path) -> None:
    labels = np.kron(labels_of(4), np.ones((8, 9), np.uint32))
    result = written(labels)
    once = files(result, tmp_path / "once", Outputs(overlay=False))["labels"]
    scratch = FilePlane(labels.shape, np.uint32)
    for top in range(0, 720, 100):
        part = labels[top : top + 100]
        scratch.write(Window(top, top + len(part), 0, 1080), part)
    found = replace(result.found, labels=scratch)
    parts = files(replace(result, found=found, in_memory=False), tmp_path / "parts",
                  Outputs(overlay=False))["labels"]  # fmt: skip
    whole = np.vstack([labels, np.zeros((7, 1080), np.uint32)])
    for path in (once, parts):
        np.testing.assert_array_equal(decode_labels(path, "instances"), whole)
    with tifffile.TiffFile(once) as one, tifffile.TiffFile(parts) as other:
        assert one.pages.first.description == other.pages.first.description
        assert other.is_bigtiff
        assert other.pages.first.is_tiled
        assert 'PhysicalSizeX="2.0"' in other.pages.first.description
    assert encode_tiff(whole, SIZE, kind="labels") == once.read_bytes()


def test_overlays_of_large_images_are_reduced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.kron(labels_of(5, 75, 105), np.ones((4, 4), np.uint32))
    plain = files(written(labels), tmp_path / "plain")["overlay"]
    assert cv2.imread(str(plain)).shape == (307, 420, 3)
    monkeypatch.setattr(writing, "OVERLAY_PX", 150)
    small = cv2.imread(str(files(written(labels), tmp_path / "small")["overlay"]))
    assert small.shape == (102, 140, 3)
    assert (small != small[..., :1]).any()


def test_probabilities_are_float16_pages_with_their_names(tmp_path: Path) -> None:
    labels = labels_of(6)
    path = files(written(labels), tmp_path / "out")["probabilities"]
    with tifffile.TiffFile(path) as tiff:
        assert json.loads(tiff.pages.first.description)["pages"] == ["foreground", "distance"]
        assert len(tiff.pages) == 2
        for page in tiff.pages:
            np.testing.assert_array_equal(page.asarray(), (labels > 0).astype(np.float16))


def test_only_what_is_wanted_is_written_and_equal_results_are_equal_bytes(tmp_path: Path) -> None:
    labels = labels_of(7)
    least = files(written(labels), tmp_path / "least", Outputs(overlay=False))
    assert list(least) == ["labels", "particles"]
    one, other = files(written(labels), tmp_path / "a"), files(written(labels), tmp_path / "b")
    assert list(one) == ["labels", "particles", "overlay", "rois", "coco", "probabilities"]
    assert {kind: path.read_bytes() for kind, path in one.items()} == {
        kind: path.read_bytes() for kind, path in other.items()
    }
    with zipfile.ZipFile(one["rois"]) as archive:
        assert archive.testzip() is None


def test_an_image_without_particles_has_all_files(tmp_path: Path) -> None:
    nothing = np.zeros((40, 50), np.uint32)
    particles = Particles(
        np.zeros(0, np.int64), np.zeros((0, 4), np.int64), np.zeros((0, 2)), np.zeros(0)
    )
    result = written(labels_of(8, 40, 50))
    found = replace(result.found, labels=ArrayPlane(nothing), particles=particles)
    made = files(replace(result, found=found), tmp_path / "out")
    assert made["particles"].read_text().count("\n") == 1
    assert json.loads(made["coco"].read_text())["annotations"] == []
    assert zipfile.ZipFile(made["rois"]).namelist() == []
