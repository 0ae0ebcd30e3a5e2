# SPDX-License-Identifier: GPL-3.0-or-later
"""Label images: what is written is read again, and what is no label image is refused."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from granulo_core.errors import Code, GranuloError, Reason
from granulo_core.imaging.labels import decode_label_pages, decode_labels, encode_tiff
from granulo_core.imaging.pixels import PixelSize


def png(array: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


def two_squares(dtype: Any = np.uint16) -> np.ndarray:
    labels = np.zeros((40, 50), dtype=dtype)
    labels[5:15, 5:15] = 3
    labels[20:35, 25:45] = 70
    return labels


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_labels_keep_ids_and_type_through_a_file(dtype: Any) -> None:
    labels = two_squares(dtype)
    data = encode_tiff(labels, PixelSize.square(7.344), kind="labels")
    assert tifffile.imread(io.BytesIO(data)).dtype == dtype
    np.testing.assert_array_equal(decode_labels(data), labels)


def test_equal_input_gives_equal_bytes_and_other_input_another_uuid() -> None:
    first = encode_tiff(two_squares(), (2.0, 3.0), kind="labels")
    assert first == encode_tiff(two_squares().copy(), (2.0, 3.0), kind="labels")
    other = two_squares()
    other[0, 0] = 1
    uuids = [re.search(rb"urn:uuid:[0-9a-f-]+", data) for data in (
        first, encode_tiff(other, (2.0, 3.0), kind="labels"),
        encode_tiff(two_squares(), None, kind="labels"),
    )]  # fmt: skip
    assert len({found.group() for found in uuids if found}) == 3


def test_other_programs_see_an_ome_tiff_with_nanometres() -> None:
    data = encode_tiff(np.zeros((20, 30), np.uint8), (2.5, 3.5), kind="micrograph")
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        assert tiff.is_ome
        assert tiff.series[0].shape == (20, 30)
        pixels = tifffile.xml2dict(tiff.ome_metadata or "")["OME"]["Image"]["Pixels"]
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeXUnit"]) == (2.5, "nm")
    assert (pixels["PhysicalSizeY"], pixels["PhysicalSizeYUnit"]) == (3.5, "nm")


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.zeros((4, 4, 3), np.uint8), "micrograph"),
        (np.zeros((4, 4), np.float32), "micrograph"),
        (np.full((4, 4), -1), "labels"),
        (np.zeros((4, 4)), "labels"),
    ],
)
def test_arrays_that_are_not_of_the_kind_are_refused(array: np.ndarray, kind: Any) -> None:
    with pytest.raises(ValueError, match=r"expected|must"):
        encode_tiff(array, None, kind=kind)


def test_touching_corners_are_two_particles_in_a_binary_mask() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[2:8, 2:8] = 255
    mask[8:14, 8:14] = 255
    for kind in ("binary", "auto"):
        labels = decode_labels(png(mask), kind)
        assert labels.max() == 2
        assert labels[3, 3] != labels[10, 10]


def test_a_mask_given_as_instances_is_refused_with_a_remedy() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[2:8, 2:8] = mask[12:18, 12:18] = 255
    with pytest.raises(GranuloError, match="binary mask") as caught:
        decode_labels(png(mask), "instances")
    assert caught.value.reason is Reason.IMAGE_UNREADABLE
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_instances_given_as_a_mask_are_refused() -> None:
    with pytest.raises(GranuloError, match="2 levels besides 0"):
        decode_labels(png(two_squares()), "binary")


def grey_levels() -> dict[str, bytes]:
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:200, :200]
    dome = np.clip(120 - 0.02 * ((x - 100) ** 2 + (y - 100) ** 2), 0, None) + 60
    noisy = rng.normal(dome, 6)
    return {
        "noisy 8-bit": png(noisy.clip(0, 255).astype(np.uint8)),
        "noisy 16-bit": png((noisy * 250).clip(0, 65535).astype(np.uint16)),
        "smooth": png(dome.astype(np.uint8)),
        "ramp": png(np.tile(np.arange(200, dtype=np.uint8), (200, 1))),
        "fractions": encode_float(noisy),
        "colour": png(np.stack([dome, 255 - dome, dome], axis=-1).astype(np.uint8)),
    }


def encode_float(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array.astype(np.float32))
    return buffer.getvalue()


@pytest.mark.parametrize("case", sorted(grey_levels()))
def test_a_micrograph_is_not_taken_for_labels(case: str) -> None:
    with pytest.raises(GranuloError, match=r"grey-level|micrograph|colour") as caught:
        decode_labels(grey_levels()[case], name="sample.png")
    assert "sample.png" in caught.value.message


def test_whole_particles_come_back_page_by_page() -> None:
    pages = np.zeros((3, 20, 24), np.uint16)
    pages[0, 2:9, 2:9], pages[1, 4:12, 4:12], pages[2, 6:14, 6:14] = 5, 7, 300
    assert (decode_label_pages(encode_tiff(pages, kind="amodal")) == pages).all()
    single = decode_label_pages(encode_tiff(pages[2], kind="labels"))
    assert (single == pages[2:]).all()


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([np.zeros((9, 9), np.uint8), np.zeros((9, 12), np.uint8)], "different size"),
        ([np.zeros((9, 9), np.uint8)] * 65, "at most 64"),
        ([np.full((9, 9), 0.5, np.float32)], "fractions"),
    ],
)
def test_pages_that_hold_no_whole_particles_are_refused(
    pages: list[np.ndarray], message: str
) -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for page in pages:
            writer.write(page)
    with pytest.raises(GranuloError, match=message) as caught:
        decode_label_pages(buffer.getvalue(), name="whole.tif")
    assert caught.value.reason is Reason.IMAGE_UNREADABLE


def test_a_jpeg_is_refused_because_its_losses_change_ids() -> None:
    buffer = io.BytesIO()
    Image.fromarray(two_squares().astype(np.uint8)).save(buffer, "JPEG")
    with pytest.raises(GranuloError, match="PNG or TIFF"):
        decode_labels(buffer.getvalue())


def test_crowded_labels_in_reading_order_are_accepted() -> None:
    labels = np.kron(np.arange(1, 401).reshape(20, 20), np.ones((9, 9))).astype(np.uint16)
    assert len(np.unique(decode_labels(png(labels)))) == 400


def test_rgb_and_float_files_with_plain_ids_are_accepted() -> None:
    labels = two_squares(np.uint8)
    np.testing.assert_array_equal(decode_labels(png(labels, "RGB")), labels)
    np.testing.assert_array_equal(decode_labels(encode_float(labels)), labels)


def test_hand_made_labels_pass_and_their_micrographs_do_not(shared_micrographs: Path) -> None:
    for path in sorted(shared_micrographs.glob("*_sem/*_labels.png")):
        assert len(np.unique(decode_labels(path, "instances"))) > 5, path
        with pytest.raises(GranuloError, match="grey-level"):
            decode_labels(path.with_name(path.name.replace("_labels", "")))
    counts = [decode_labels(path, "binary").max() for path in shared_micrographs.glob("*/*_m.tif")]
    assert len(counts) == 3
    assert min(counts) > 30
