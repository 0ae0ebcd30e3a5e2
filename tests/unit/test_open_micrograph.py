# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading by regions: every region is what the whole image has there, and no more is read."""

import io
import tempfile
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from granulo_core.errors import GranuloError, Reason
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.read import count_pages, open_micrograph, read_micrograph
from granulo_core.imaging.reading.source import Source

HEIGHT, WIDTH = 150, 203


def levels(dtype: str = "u1", channels: int = 0, seed: int = 5) -> np.ndarray:
    shape = (HEIGHT, WIDTH, channels) if channels else (HEIGHT, WIDTH)
    drawn = np.random.default_rng(seed).integers(0, 200, shape)
    return drawn.astype(dtype)


def tiff(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def picture(array: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def mrc(array: np.ndarray) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sections.mrc"
        with mrcfile.new(path) as writer:
            writer.set_data(array)
        return path.read_bytes()


FILES = {
    "strips": tiff(levels(), rowsperstrip=16),
    "one strip": tiff(levels("u2")),
    "big-endian": tiff(levels("u2"), byteorder=">", rowsperstrip=7),
    "deflate": tiff(levels(), compression="zlib", predictor=True, rowsperstrip=13),
    "lzw": tiff(levels("u2"), compression="lzw", rowsperstrip=150),
    "zstd tiles": tiff(levels("u2"), compression="zstd", tile=(32, 48)),
    "jpeg tiles": tiff(levels(), compression="jpeg", tile=(64, 64)),
    "plain tiles": tiff(levels("f4"), tile=(16, 32)),
    "rgb": tiff(levels(channels=3), photometric="rgb", rowsperstrip=10),
    "rgb planes": tiff(
        np.moveaxis(levels(channels=3), -1, 0), photometric="rgb", planarconfig="separate",
        compression="zlib", rowsperstrip=40,
    ),
    "bigtiff": tiff(levels("i2"), bigtiff=True, rowsperstrip=16),
    "white is zero": tiff(levels(), photometric="miniswhite"),
    "bilevel": tiff(levels() > 100, photometric="minisblack"),
    "png": picture(levels(), "PNG"),
    "bmp": picture(levels(), "BMP"),
    "jpeg": picture(levels(), "JPEG"),
    "mrc": mrc(levels("f4")),
}  # fmt: skip
_EDGE = st.one_of(st.none(), st.integers(-220, 220))


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=12, deadline=None)
@given(rows=st.builds(slice, _EDGE, _EDGE), columns=st.builds(slice, _EDGE, _EDGE))
def test_a_region_is_what_the_whole_image_has_there(kind: str, rows: slice, columns: slice) -> None:
    whole = read_micrograph(FILES[kind]).pixels
    with open_micrograph(FILES[kind]) as opened:
        assert opened.shape == whole.shape
        assert opened.dtype == whole.dtype
        region = opened.read(rows, columns)
    assert region.dtype == whole.dtype
    np.testing.assert_array_equal(region, whole[rows, columns])


@pytest.mark.parametrize("kind", ["strips", "one strip", "zstd tiles", "plain tiles", "mrc"])
def test_what_can_be_read_by_regions_says_so(kind: str) -> None:
    with open_micrograph(FILES[kind]) as opened:
        assert opened.streams


class _Counting(Source):
    """A source that counts the bytes that are read from it."""

    read_bytes = 0

    def read_at(self, offset: int, count: int) -> bytes:
        self.read_bytes += count
        return super().read_at(offset, count)


@pytest.mark.parametrize("options", [{"tile": (64, 64)}, {"tile": (64, 64), "compression": "zlib"},
                                     {"rowsperstrip": 8}, {}])  # fmt: skip
def test_a_small_region_of_a_large_tiff_needs_few_bytes(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.tif"
    image = np.random.default_rng(1).integers(0, 255, (2048, 2048)).astype(np.uint8)
    tifffile.imwrite(path, image, **options)
    monkeypatch.setattr("granulo_core.imaging.reading.region.Source", _Counting)
    with open_micrograph(path) as opened:
        source = opened._source
        assert isinstance(source, _Counting)
        before = source.read_bytes
        region = opened.read(slice(1000, 1050), slice(700, 750))
        used = source.read_bytes - before
    np.testing.assert_array_equal(region, image[1000:1050, 700:750])
    assert used <= 64 * 2048


def test_an_image_far_larger_than_the_memory_that_is_used_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    side = 20_000
    with tifffile.TiffWriter(path) as writer:
        tile = zlib.compress(np.full((256, 256), 7, np.uint8).tobytes())
        count = -(-side // 256)
        writer.write(
            (tile for _ in range(count * count)), shape=(side, side), dtype=np.uint8,
            tile=(256, 256), compression="zlib",
        )  # fmt: skip
    tracemalloc.start()
    try:
        with open_micrograph(path) as opened:
            assert opened.shape == (side, side)
            assert opened.streams
            for top in range(0, side, 4000):
                assert (opened.read(slice(top, top + 300), slice(top, top + 300)) == 7).all()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48 << 20
    with pytest.raises(GranuloError) as caught, open_micrograph(path, max_px=10**6) as opened:
        opened.read()
    assert caught.value.reason is Reason.IMAGE_TOO_LARGE


def test_the_data_bar_is_found_from_the_foot_alone(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(60, 250, (600, 500)).astype(np.uint8)
    image[540:] = 0
    image[556:580:4, 20:300] = 255
    path = tmp_path / "bar.tif"
    tifffile.imwrite(path, image, tile=(64, 64))
    with open_micrograph(path) as opened:
        assert opened.content_height_px == read_micrograph(path).content_height_px == 540


def test_not_finite_levels_are_the_lowest_of_the_page_in_every_region() -> None:
    image = levels("f4") + 10
    image[3, 4], image[140, 200], image[77, 5] = np.nan, -np.inf, -500.0
    with open_micrograph(tiff(image, tile=(16, 16))) as opened:
        assert opened.read(slice(0, 10), slice(0, 10))[3, 4] == -500
        assert opened.read(slice(140, 141), slice(200, 201))[0, 0] == -500
    nothing = tiff(np.full((40, 40), np.nan, np.float32))
    with open_micrograph(nothing) as opened, pytest.raises(GranuloError) as caught:
        opened.read(slice(0, 5))
    assert caught.value.reason is Reason.IMAGE_UNREADABLE


def test_pages_are_counted_and_read_one_by_one() -> None:
    stack = np.stack([levels(seed=seed) for seed in range(4)])
    for data in (
        tiff(stack, photometric="minisblack"),
        tiff(stack, imagej=True),
        mrc(stack.astype("f4")),
    ):
        assert count_pages(data) == 4
        for page in range(4):
            micrograph = read_micrograph(data, page=page)
            np.testing.assert_array_equal(micrograph.pixels, stack[page])
            assert (micrograph.page, micrograph.pages) == (page, 4)
            assert f"page {page + 1} of 4" in micrograph.source
        for page in (-1, 4):
            with pytest.raises(GranuloError) as caught:
                read_micrograph(data, page=page, name="stack.tif")
            assert caught.value.reason is Reason.FIELD_INVALID
            assert "4 pages" in caught.value.message
    assert count_pages(picture(levels(), "PNG")) == 1


def test_thumbnails_and_pyramid_levels_are_no_pages() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(levels(seed=1)[::4, ::4], subfiletype=1)
        writer.write(levels(seed=2), subfiletype=0)
        writer.write(levels(seed=3)[::2, ::2], subfiletype=1)
    assert count_pages(buffer.getvalue()) == 1
    np.testing.assert_array_equal(read_micrograph(buffer.getvalue()).pixels, levels(seed=2))


def test_the_user_s_pixel_size_goes_before_the_file_s() -> None:
    data = tiff(levels(), ome=True, metadata={"PhysicalSizeX": 0.002, "PhysicalSizeY": 0.003})
    told = read_micrograph(data)
    assert (told.pixel_size, told.pixel_size_source) == (PixelSize(2.0, 3.0), "OME-XML")
    overridden = read_micrograph(data, pixel_size=PixelSize.square(5.0))
    assert overridden.pixel_size == PixelSize.square(5.0)
    assert overridden.pixel_size_source == "user"
    nothing = read_micrograph(tiff(levels()))
    assert (nothing.pixel_size, nothing.pixel_size_source) == (None, "")


def test_a_page_that_is_cut_off_is_refused_when_it_is_opened() -> None:
    for kind in ("strips", "zstd tiles", "mrc", "png", "jpeg"):
        data = FILES[kind]
        with pytest.raises(GranuloError) as caught:
            open_micrograph(data[: len(data) - 40], name="cut")
        assert caught.value.reason is Reason.IMAGE_UNREADABLE, kind
