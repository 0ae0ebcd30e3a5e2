# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading micrographs: grey levels and pixel size as they are, damaged files refused, bars cut."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw

from granulo_core.errors import Code, GranuloError, Reason
from granulo_core.imaging.read import Micrograph, read_micrograph


def noisy(height: int = 120, width: int = 160, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(30, 220, (height, width)).astype(np.uint8)


def tiff(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def pillow(array: np.ndarray, kind: str, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, kind)
    return buffer.getvalue()


def refused(data: bytes, reason: Reason, **options: Any) -> str:
    with pytest.raises(GranuloError) as caught:
        read_micrograph(data, name="sample.tif", **options)
    assert caught.value.reason is reason
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert "sample.tif" in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "BMP"])
def test_8_bit_grey_levels_come_back_exactly(kind: str) -> None:
    micrograph = read_micrograph(pillow(noisy(), kind))
    assert micrograph.pixels.dtype == np.uint8
    np.testing.assert_array_equal(micrograph.pixels, noisy())
    assert micrograph.content_height_px == 120
    assert micrograph.pixel_size is None


@pytest.mark.parametrize("form", ["png", "tiff", "big-endian"])
def test_16_bit_grey_levels_come_back_exactly(form: str) -> None:
    pixels = noisy().astype(np.uint16) * 250
    data = pillow(pixels, "PNG") if form == "png" else tiff(
        pixels, byteorder=">" if form == "big-endian" else "<"
    )  # fmt: skip
    micrograph = read_micrograph(data)
    assert micrograph.pixels.dtype == np.uint16
    np.testing.assert_array_equal(micrograph.pixels, pixels)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_a_grey_picture_stored_as_rgb_keeps_its_levels(kind: str) -> None:
    np.testing.assert_array_equal(read_micrograph(pillow(noisy(), kind, "RGB")).pixels, noisy())


def test_colours_become_luminance_in_any_channel_order() -> None:
    colours = np.zeros((40, 40, 3), np.uint8)
    colours[..., 1] = 200
    planes = np.moveaxis(colours, -1, 0)
    for data in (
        tiff(colours, photometric="rgb"),
        tiff(planes, photometric="rgb", planarconfig="separate"),
    ):
        assert set(np.unique(read_micrograph(data).pixels)) == {117}


def test_palette_images_show_the_colours_not_the_indices() -> None:
    ramp = np.stack([np.arange(255, -1, -1)] * 3, axis=-1).astype(np.uint8)
    image = Image.fromarray(noisy(), "P")
    image.putpalette(ramp.tobytes())
    for kind in ("PNG", "TIFF", "BMP"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        np.testing.assert_array_equal(read_micrograph(buffer.getvalue()).pixels, 255 - noisy())


def test_white_is_zero_is_turned_round() -> None:
    data = tiff(noisy(), photometric="miniswhite")
    np.testing.assert_array_equal(read_micrograph(data).pixels, 255 - noisy())


def test_nan_becomes_the_lowest_grey_level() -> None:
    pixels = noisy().astype(np.float32)
    pixels[3, 4], pixels[5, 6] = np.nan, np.inf
    read = read_micrograph(tiff(pixels)).pixels
    assert read.dtype == np.float32
    assert read[3, 4] == read[5, 6] == 30
    refused(tiff(np.full((40, 40), np.nan, np.float32)), Reason.IMAGE_UNREADABLE)


def test_of_several_pages_the_first_is_read_and_noted() -> None:
    pages = np.stack([noisy(seed=1), noisy(seed=2), noisy(seed=3)])
    micrograph = read_micrograph(tiff(pages, photometric="minisblack"))
    np.testing.assert_array_equal(micrograph.pixels, pages[0])
    assert "page 1 of 3" in micrograph.source


def test_bilevel_images_are_black_and_white() -> None:
    read = read_micrograph(pillow(noisy() > 100, "TIFF")).pixels
    assert set(np.unique(read)) == {0, 255}


@pytest.mark.parametrize(
    "data",
    [b"", b"a text file", b"II*\x00", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a" + bytes(50)],
    ids=["empty", "text", "tiff magic only", "png magic only", "bmp magic only", "gif"],
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    assert refused(data, Reason.IMAGE_UNREADABLE)  # says something


@pytest.mark.parametrize(
    "data",
    [
        tiff(noisy()),
        tiff(noisy(), compression="zlib", rowsperstrip=16),
        tiff(noisy(), compression="lzw"),
        tiff(np.kron(noisy(), np.ones((4, 4), np.uint8)), tile=(64, 64)),
        pillow(noisy(), "TIFF"),
        pillow(noisy(), "PNG"),
        pillow(noisy(), "BMP"),
        pillow(noisy(), "JPEG"),
    ],
    ids=["tiff", "deflate", "lzw", "tiles", "index last", "png", "bmp", "jpeg"],
)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_truncated_file_is_refused_and_never_filled_with_black(data: bytes, share: float) -> None:
    assert read_micrograph(data).pixels.any()
    refused(data[: int(len(data) * share)], Reason.IMAGE_UNREADABLE)


def test_tiny_images_are_refused() -> None:
    for shape in ((1, 1), (15, 200), (200, 1)):
        assert "needed" in refused(pillow(np.ones(shape, np.uint8), "PNG"), Reason.IMAGE_TOO_SMALL)


def test_the_size_limit_is_checked_before_decoding() -> None:
    message = refused(pillow(noisy(), "PNG"), Reason.IMAGE_TOO_LARGE, max_px=120 * 160 - 1)
    assert "160 × 120" in message
    assert "GRANULO_MAX_IMAGE_PX" in message
    assert read_micrograph(pillow(noisy(), "PNG"), max_px=120 * 160)
    refused(bomb_png(60000, 60000), Reason.IMAGE_TOO_LARGE)
    refused(bomb_tiff(60000, 60000), Reason.IMAGE_TOO_LARGE)


def test_a_declared_size_of_zero_is_refused() -> None:
    for data in (bomb_png(0, 100), bomb_tiff(0, 100)):
        assert refused(data, Reason.IMAGE_UNREADABLE)


def bomb_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(
            ">I", zlib.crc32(kind + body)
        )  # fmt: skip

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )  # fmt: skip


def bomb_tiff(width: int, height: int) -> bytes:
    data = bytearray(tiff(noisy(), compression="zlib"))
    for tag, value in ((256, width), (257, height)):
        at = data.find(struct.pack("<H", tag), 8)
        struct.pack_into("<HHII", data, at, tag, 4, 1, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ome": True, "metadata": {"PhysicalSizeX": 2.5, "PhysicalSizeXUnit": "nm",
          "PhysicalSizeY": 3.0, "PhysicalSizeYUnit": "nm"}}, (2.5, 3.0)),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.0025, "PhysicalSizeY": 0.0025}}, (2.5, 2.5)),
        ({"imagej": True, "resolution": (400, 200), "metadata": {"unit": "um"}}, (2.5, 5.0)),
        ({"imagej": True, "resolution": (0.4, 0.4), "metadata": {"unit": "nm"}}, (2.5, 2.5)),
        ({"imagej": True, "resolution": (72, 72), "metadata": {"unit": "inch"}}, None),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"resolution": (118, 118), "resolutionunit": "CENTIMETER"}, None),
        ({"resolution": (4e6, 4e6), "resolutionunit": "CENTIMETER"}, (2.5, 2.5)),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.0, "PhysicalSizeY": 0.0}}, None),
    ],
    ids=["ome nm", "ome µm by default", "imagej µm", "imagej nm", "imagej inch", "printing inch",
         "printing cm", "microscopic cm", "ome zero"],
)  # fmt: skip
def test_the_pixel_size_is_taken_only_from_trustworthy_tags(
    options: dict[str, Any], expected: tuple[float, float] | None
) -> None:
    found = read_micrograph(tiff(noisy(), **options)).pixel_size_nm
    assert found == (pytest.approx(expected) if expected else None)


def with_zeiss_tag(text: str) -> bytes:
    return tiff(noisy(), extratags=[(34118, 2, 0, text.encode("cp1252"), True)])


def test_the_zeiss_pixel_size_of_the_image_wins_over_the_screen_s() -> None:
    header = "\r\n".join("0" for _ in range(36)) + "\r\n"
    text = header + "AP_PIXEL_SIZE\r\nPixel Size = 3.672 nm\r\n"
    image = "AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 7.344 nm\r\n"
    assert read_micrograph(with_zeiss_tag(text + image)).pixel_size_nm == (7.344, 7.344)
    width = "AP_WIDTH\r\nWidth = 0.8 µm\r\n"
    # 0.8 µm over 160 px
    only_width = read_micrograph(with_zeiss_tag(text + width)).pixel_size_nm
    assert only_width == pytest.approx((5.0, 5.0))
    assert read_micrograph(with_zeiss_tag(text)).pixel_size_nm is None


def with_bar(
    micrograph: np.ndarray, height: int, ground: int, ink: int, *, text: bool = True
) -> np.ndarray:
    bar = Image.new("L", (micrograph.shape[1], height), ground)
    if text:
        draw = ImageDraw.Draw(bar)
        draw.text((10, height // 3), "200 nm   EHT = 20.00 kV   Mag = 50.00 K X", fill=ink)
        draw.rectangle((10, height // 3 + 12, 60, height // 3 + 14), fill=ink)
    return np.vstack([micrograph, np.asarray(bar)])


def substrate(level: float, noise: float = 4.0) -> np.ndarray:
    rng = np.random.default_rng(3)
    image = rng.normal(level, noise, (400, 512))
    y, x = np.mgrid[:400, :512]
    for _ in range(25):
        row, column, radius = rng.uniform(0, 400), rng.uniform(0, 512), rng.uniform(10, 30)
        image[(y - row) ** 2 + (x - column) ** 2 < radius**2] += 110
    return image.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("ground", "ink", "height"), [(0, 255, 56), (255, 0, 30), (0, 255, 110), (0, 200, 20)]
)
def test_a_data_bar_is_found_to_the_row(ground: int, ink: int, height: int) -> None:
    image = with_bar(substrate(60), height, ground, ink)
    assert read_micrograph(pillow(image, "PNG")).content_height_px == 400
    assert read_micrograph(tiff(image.astype(np.uint16) * 257)).content_height_px == 400


def test_content_is_the_image_without_its_bar() -> None:
    micrograph: Micrograph = read_micrograph(pillow(with_bar(substrate(60), 56, 0, 255), "PNG"))
    assert micrograph.pixels.shape == (456, 512)
    assert micrograph.content.shape == (400, 512)


def discs_on_black() -> np.ndarray:
    image = substrate(0, 0.0)
    image[image > 0] = 110
    return image


@pytest.mark.parametrize(
    "image",
    [
        substrate(60),
        substrate(2, 1.0),
        discs_on_black(),
        np.zeros((400, 512), np.uint8),
        with_bar(substrate(60), 56, 0, 255, text=False),
        noisy(400, 512),
        np.tile(np.arange(256, dtype=np.uint8), (400, 2)),
        np.repeat(np.arange(200, dtype=np.uint8), 2)[:, None].repeat(300, axis=1),
    ],
    ids=["particles", "dark", "noise-free", "black", "stripe", "noise", "ramp", "vertical ramp"],
)
def test_nothing_is_cut_from_images_without_a_bar(image: np.ndarray) -> None:
    assert read_micrograph(pillow(image, "PNG")).content_height_px == image.shape[0]


def test_real_zeiss_files_have_7_344_nm_and_a_bar_from_row_712(shared_micrographs: Path) -> None:
    paths = [path for path in shared_micrographs.glob("tio2_sem/*.tif") if "_m" not in path.stem]
    assert len(paths) == 3
    for path in paths:
        micrograph = read_micrograph(path)
        assert micrograph.pixel_size_nm == (7.344, 7.344)
        assert micrograph.content_height_px == 712
        assert micrograph.pixels.dtype == np.uint8


def test_real_bars_are_cut_and_journal_figures_are_left_whole(shared_micrographs: Path) -> None:
    for path in shared_micrographs.glob("silica_sem_unlabelled/*.bmp"):
        assert read_micrograph(path).content_height_px == 960, path
    bars = {"emps_37ce835fb2": 466, "emps_96c772f28b": 482, "emps_39b0dc1f52": 464}
    for path in shared_micrographs.glob("[sri]*_sem/emps_*.png"):
        if "_labels" not in path.stem:
            assert read_micrograph(path).content_height_px == bars.get(path.stem, 512), path


def test_the_old_fei_tag_gives_no_pixel_size(shared_micrographs: Path) -> None:
    for path in shared_micrographs.glob("vendor_tiff/*.tif"):
        assert read_micrograph(path).pixel_size is None


@pytest.mark.parametrize("compression", ["packbits", "lzma", "zstd", "lzw", "zlib"])
def test_every_lossless_compression_of_microscopes_is_read(compression: str) -> None:
    for pixels in (noisy(), noisy().astype(np.uint16) * 250, noisy().astype(np.float32)):
        data = tiff(pixels, compression=compression, rowsperstrip=50)
        np.testing.assert_array_equal(read_micrograph(data).pixels, pixels)


def test_alpha_is_left_out_in_every_format() -> None:
    colours = np.dstack([noisy()] * 3 + [np.full_like(noisy(), 7)])
    for data in (
        tiff(colours, photometric="rgb", extrasamples=["unassalpha"]),
        pillow(colours, "PNG"),
        pillow(colours, "BMP"),
    ):
        np.testing.assert_array_equal(read_micrograph(data).pixels, noisy())


def test_four_bits_of_which_white_is_zero_are_turned_round_within_four_bits() -> None:
    levels = noisy() % 16
    packed = (levels[:, ::2] << 4 | levels[:, 1::2]).astype(np.uint8)
    data = bytearray(tiff(packed, photometric="miniswhite", rowsperstrip=120))
    for tag, value in ((256, 160), (258, 4)):
        at = data.find(struct.pack("<H", tag), 8)
        kind = struct.unpack_from("<H", data, at + 2)[0]
        struct.pack_into("<I" if kind == 4 else "<H", data, at + 8, value)
    np.testing.assert_array_equal(read_micrograph(bytes(data)).pixels, 15 - levels)


def test_printing_colours_of_a_jpeg_become_grey() -> None:
    grey = np.full((40, 40), 100, np.uint8)
    data = pillow(np.dstack([grey] * 3), "JPEG", "CMYK")
    assert abs(read_micrograph(data).pixels.astype(int) - 100).max() <= 2
