# SPDX-License-Identifier: GPL-3.0-or-later
"""Small files that would expand to huge images, odd images, and readers that crash or hang."""

import io
import os
import re
import struct
import sys
import zipfile
import zlib
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pytest

from granulo_core.errors import Code, GranuloError, Reason
from granulo_core.imaging.read import read_micrograph
from granulo_core.imaging.reading import isolated
from granulo_core.imaging.reading.isolated import IsolatedReader

sys.path.insert(0, str(Path(__file__).parent))

import image_files as files
import reader_faults as faults

YX = [("y", "nanometer"), ("x", "nanometer")]
GIB = 1 << 30


def peak_mib() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def refused(data: bytes | Path, *reasons: Reason, most_mib: float = 120, **options: Any) -> str:
    """The message of the refusal, after checking that it cost little memory."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = peak_mib()
    with pytest.raises(GranuloError) as caught:
        read_micrograph(data, name="bomb", **options)
    assert peak_mib() - before < most_mib
    assert caught.value.reason in (reasons or (Reason.IMAGE_UNREADABLE,))
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


def zeros(count: int) -> bytes:
    """So many zeros, deflated a thousandfold."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 24)
    packed = [packer.compress(block) for _ in range(count // len(block))]
    return b"".join([*packed, packer.flush()])


BOMB = zeros(GIB // 4)


def test_declared_sizes_beyond_the_limit_are_refused_before_decoding() -> None:
    huge = struct.pack(">II", 60_000, 60_000)
    png = bytearray(files.picture(files.grey(), "PNG"))
    png[16:24] = huge
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    bmp = bytearray(files.picture(files.grey(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    jpeg = bytearray(files.picture(files.grey(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    for data in (png, bmp, jpeg):
        assert "60000 × 60000" in refused(bytes(data), Reason.IMAGE_TOO_LARGE)
    mrc = bytearray(files.mrc(files.grey(dtype="float32")))
    mrc[:8] = struct.pack("<ii", 60_000, 60_000)
    ser = bytearray(files.ser(files.grey()[None]))
    at = len(ser) - 8 - 48 * 64 - 8
    ser[at : at + 8] = struct.pack("<ii", 60_000, 60_000)
    for data in (mrc, ser):
        refused(bytes(data), Reason.IMAGE_TOO_LARGE)
    dm = files.gatan(files.grey(), version=4).replace(
        struct.pack("<L", 64) + b"\x15", struct.pack("<L", 60_000) + b"\x15"
    )
    refused(dm)


def test_a_strip_that_expands_beyond_its_size_is_not_expanded() -> None:
    data = files.tiff(files.grey(2048, 2048), compression="zlib", rowsperstrip=2048)
    strip = BOMB + bytes(4)
    with_bomb = bytearray(data) + strip
    for tag, value in ((273, len(data)), (279, len(strip))):
        at = with_bomb.find(struct.pack("<HHI", tag, 4, 1))
        at = at if at >= 0 else with_bomb.find(struct.pack("<HHI", tag, 3, 1))
        struct.pack_into("<HHII", with_bomb, at, tag, 4, 1, value)
    assert "TIFF" in refused(bytes(with_bomb))


def test_a_jpeg_tile_larger_than_its_tile_is_refused() -> None:
    data = bytearray(files.tiff(files.grey(), compression="jpeg", tile=(16, 16)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    assert "65000 × 65000" in refused(bytes(data))


def test_a_png_text_that_expands_is_not_expanded() -> None:
    png = files.picture(files.grey(), "PNG")
    body = b"Comment\0\0" + BOMB
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    assert "too large" in refused(png[:33] + chunk + png[33:])


def test_an_hdf5_chunk_that_expands_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.emd"
    with h5py.File(path, "w") as file:
        data = file.create_group("Data/Image/a").create_dataset(
            "Data", (64, 64, 1), "u1", chunks=(64, 64, 1), compression="gzip"
        )
        data.id.write_direct_chunk((0, 0, 0), BOMB)
    assert "chunk" in refused(path)
    path.write_bytes(files.velox({"a": files.grey()[..., None]}, compression="gzip"))
    with h5py.File(path, "a") as file:
        file["Data/Image/a/Metadata"].id.write_direct_chunk((0, 0), BOMB)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_mib()
    assert read_micrograph(path).pixel_size is None
    assert peak_mib() - before < 120
    with h5py.File(path, "w") as file:
        file.create_group("Data/Image/a").create_dataset(
            "Data", (64, 64, 1), "u1", chunks=(4096, 8192, 1), maxshape=(None, None, None)
        )
    assert "chunks of" in refused(path)
    with h5py.File(path, "w") as file:
        file.create_group("Data/Image/a").create_dataset(
            "Data", (64, 64, 1), "u1", chunks=(64, 64, 1), compression="lzf"
        )
    assert "HDF5 filters" in refused(path)


@pytest.mark.parametrize("codec", ["gzip", "zstd", "blosc"])
def test_a_zarr_chunk_that_expands_is_refused(codec: str, tmp_path: Path) -> None:
    from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

    codecs = {"gzip": GzipCodec(), "zstd": ZstdCodec(), "blosc": BloscCodec()}
    folder = files.ome_zarr(
        tmp_path / "bomb.zarr", files.grey(), YX, [1, 1], chunks=(48, 64),
        compressors=codecs[codec],
    )  # fmt: skip
    chunk = folder / "0" / "c" / "0" / "0"
    encode = {
        "gzip": imagecodecs.gzip_encode,
        "zstd": imagecodecs.zstd_encode,
        "blosc": imagecodecs.blosc_encode,
    }
    chunk.write_bytes(encode[codec](bytes(1 << 27)))
    assert "expand" in refused(folder) or "larger than" in refused(folder)


def test_a_zip_entry_that_expands_is_refused(tmp_path: Path) -> None:
    folder = files.ome_zarr(
        tmp_path / "a.zarr", files.grey(), YX, [1, 1], chunks=(48, 64), compressors=None
    )
    data = files.zipped(folder)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        whole = zipfile.ZipFile(io.BytesIO(data))
        for entry in whole.infolist():
            content = whole.read(entry)
            is_chunk = entry.filename.startswith("0/c/")
            archive.writestr(entry.filename, bytes(1 << 27) if is_chunk else content)
    assert "larger than it can be" in refused(tmp_path / "bomb.zip")


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (15, 15)])
def test_images_of_hardly_a_pixel_are_refused(shape: tuple[int, int]) -> None:
    image = np.ones(shape, np.uint8)
    forms = [files.tiff(image), files.picture(image, "PNG"), files.picture(image, "BMP"),
             files.mrc(image.astype("int8")), files.ser(image[None]), files.gatan(image),
             files.velox({"a": image[..., None]})]  # fmt: skip
    for data in forms:
        message = refused(data, Reason.IMAGE_TOO_SMALL)
        assert f"{shape[1]} × {shape[0]} pixels" in message


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_images_are_images(level: int) -> None:
    image = np.full((64, 64), level, np.uint8)
    for data in (files.tiff(image), files.picture(image, "PNG"), files.picture(image, "JPEG")):
        found = read_micrograph(data)
        assert set(np.unique(found.pixels)) == {level}
        assert found.content_height_px == 64


@pytest.mark.filterwarnings("ignore::RuntimeWarning:mrcfile", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_images_without_a_finite_level_are_refused(value: float) -> None:
    image = np.full((64, 64), value, np.float32)
    for data in (files.tiff(image), files.mrc(image), files.gatan(image)):
        assert "no finite" in refused(data)


def test_levels_beyond_single_precision_are_no_levels() -> None:
    image = files.grey(dtype="float64")
    image[3, 3] = 1e300
    found = read_micrograph(files.tiff(image)).pixels
    assert found.dtype == np.float32
    assert found[3, 3] == image.min()


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_are_no_micrograph(dtype: str) -> None:
    assert "complex" in refused(files.tiff(files.grey(dtype=dtype)))


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "int64", "float16", "float64"])
def test_other_numbers_become_single_precision(dtype: str) -> None:
    image = files.grey(dtype="uint8") // 2
    found = read_micrograph(files.tiff(image.astype(dtype))).pixels
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, image)


def test_compressions_that_microscopes_do_not_use_are_refused_by_name() -> None:
    data = files.tiff(files.grey(), compression="jpeg2000")
    message = refused(data)
    assert "Deflate" in message
    assert "34712" in message


def test_a_reader_that_crashes_or_hangs_costs_one_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    data = files.picture(files.grey(), "PNG")
    with IsolatedReader(max_px=1 << 20, timeout_s=60) as reader:
        for fault, cause in ((faults.crash, "crash"), (faults.hang, "timeout")):
            with monkeypatch.context() as patch:
                patch.setattr(isolated, "read_micrograph", fault)
                patch.setattr(reader, "_timeout_s", 2.0)
                with pytest.raises(GranuloError) as caught:
                    reader.read(data, name="evil.png")
            assert caught.value.metadata["cause"] == cause
            assert caught.value.code is Code.INVALID_ARGUMENT
            assert "evil.png" in caught.value.message
        np.testing.assert_array_equal(reader.read(data).pixels, files.grey())


def test_a_reader_that_died_while_it_read_nothing_is_replaced() -> None:
    data = files.picture(files.grey(), "PNG")
    with IsolatedReader() as reader:
        before = set(active_children())
        reader.read(data)
        for child in set(active_children()) - before:
            child.kill()
            child.join()
        np.testing.assert_array_equal(reader.read(data).pixels, files.grey())


def test_a_reader_stops_when_nobody_waits_any_more() -> None:
    class LeftError(Exception):
        pass

    def check() -> None:
        raise LeftError

    with IsolatedReader() as reader:
        with pytest.raises(LeftError):
            reader.run(faults.hang, b"", name="evil.png", check=check)
        # The only process is free again.
        data = files.picture(files.grey(), "PNG")
        np.testing.assert_array_equal(reader.read(data).pixels, files.grey())


def test_a_file_that_wants_too_much_memory_is_refused() -> None:
    with IsolatedReader(max_px=1) as reader, pytest.raises(GranuloError) as caught:
        reader.run(faults.hoard, b"", name="evil.png")
    assert caught.value.metadata["cause"] == "memory"


def test_an_isolated_reader_refuses_as_a_direct_one_does() -> None:
    with IsolatedReader(max_px=1000) as reader:
        for data, reason in (
            (b"text", Reason.IMAGE_UNREADABLE),
            (files.picture(files.grey(), "PNG"), Reason.IMAGE_TOO_LARGE),
        ):
            with pytest.raises(GranuloError) as caught:
                reader.read(data, name="sample")
            assert caught.value.reason is reason
            assert "cause" not in caught.value.metadata
