# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of microscopes: levels, pages and pixel sizes as the instrument meant them."""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from rsciio.digitalmicrograph import file_reader as read_dm
from rsciio.emd import file_reader as read_emd
from rsciio.tia import file_reader as read_tia

from granulo_core.errors import GranuloError, Reason
from granulo_core.imaging.read import count_pages, open_micrograph, read_micrograph

sys.path.insert(0, str(Path(__file__).parent))

import image_files as files

STACK = np.stack([files.grey(seed=seed, dtype="uint16") for seed in range(3)])
YX = [("y", "micrometer"), ("x", "micrometer")]


def refused(data: bytes | Path) -> str:
    with pytest.raises(GranuloError) as caught:
        read_micrograph(data, name="sample")
    assert caught.value.reason is Reason.IMAGE_UNREADABLE
    return caught.value.message


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
def test_gatan_images_are_read_without_their_thumbnail(version: int, dtype: str) -> None:
    image = files.grey(dtype=dtype)
    data = files.gatan(image, version=version, scales=[(0.5, "nm"), (0.25, "nm")])
    found = read_micrograph(data)
    np.testing.assert_array_equal(found.pixels, image)
    assert found.pixels.dtype.name == (dtype if dtype in ("uint8", "uint16") else "float32")
    assert found.pixel_size_nm == pytest.approx((0.5, 0.25))
    assert found.source == f"DM{version}, pixel size from Gatan tags"


def test_gatan_stacks_are_pages_and_gatan_colours_in_their_order(tmp_path: Path) -> None:
    data = files.gatan(STACK, version=4, scales=[(2.0, "µm"), (2.0, "µm"), (1.0, "")])
    assert count_pages(data) == 3
    found = read_micrograph(data, page=2)
    np.testing.assert_array_equal(found.pixels, STACK[2])
    assert found.pixel_size_nm == (2000.0, 2000.0)
    colours = np.zeros((32, 32, 4), np.uint8)
    colours[..., 1] = 200
    data = files.gatan(colours, kind="bgra", scales=[(1.0, "1/nm"), (1.0, "1/nm")])
    green = read_micrograph(data)
    assert set(np.unique(green.pixels)) == {117}
    assert green.pixel_size is None
    assert "complex" in refused(files.gatan(files.grey(dtype="complex64")))


def test_the_gatan_files_of_these_tests_are_ones_that_a_library_reads(tmp_path: Path) -> None:
    path = tmp_path / "sample.dm3"
    path.write_bytes(files.gatan(STACK[0], scales=[(0.5, "nm"), (0.25, "nm")]))
    (signal,) = read_dm(path)
    np.testing.assert_array_equal(signal["data"], read_micrograph(path).pixels)
    assert [axis["scale"] for axis in signal["axes"]] == [0.25, 0.5]


@pytest.mark.parametrize("version", [0x0210, 0x0220])
def test_ser_series_are_pages_the_right_way_up(version: int, tmp_path: Path) -> None:
    path = tmp_path / "series_1.ser"
    path.write_bytes(files.ser(STACK, 0.5e-9, version=version))
    assert count_pages(path) == 3
    for page in range(3):
        found = read_micrograph(path.read_bytes(), page=page)
        np.testing.assert_array_equal(found.pixels, STACK[page])
        assert found.pixel_size_nm == pytest.approx((0.5, 0.5))
    (signal,) = read_tia(path)
    np.testing.assert_array_equal(signal["data"], STACK)
    with open_micrograph(path) as opened:
        np.testing.assert_array_equal(opened.read(slice(5, 9), slice(3, 8)), STACK[0, 5:9, 3:8])


def test_an_interrupted_ser_series_has_the_pages_that_were_taken() -> None:
    assert count_pages(files.ser(STACK, valid=2)) == 2
    assert "0 of 3" in refused(files.ser(STACK, valid=0))


def test_a_diffraction_pattern_in_a_ser_file_has_no_pixel_size() -> None:
    assert read_micrograph(files.ser(STACK, 1e7)).pixel_size is None


def test_an_emi_file_leads_to_the_ser_files_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "sample[1].emi"
    path.write_bytes(files.EMI)
    assert "no sample[1]_1.ser" in refused(path)
    (tmp_path / "sample[1]_2.ser").write_bytes(files.ser(STACK[2:]))
    (tmp_path / "sample[1]_1.ser").write_bytes(files.ser(STACK[:2]))
    (tmp_path / "other_1.ser").write_bytes(files.ser(STACK))
    assert count_pages(path) == 3
    np.testing.assert_array_equal(read_micrograph(path, page=2).pixels, STACK[2])
    assert "name_1.ser" in refused(files.EMI)


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (16, 16, 1)}, {"chunks": (48, 64, 2), "compression": "gzip"},
     {"chunks": (20, 30, 3), "compression": "gzip", "shuffle": True}],
    ids=["contiguous", "chunks", "gzip", "gzip and shuffle"],
)  # fmt: skip
def test_velox_images_and_frames_are_pages(options: dict[str, Any], tmp_path: Path) -> None:
    frames = np.moveaxis(STACK, 0, -1)
    data = files.velox({"b": frames}, (2e-9, 3e-9, "m"), **options)
    assert count_pages(data) == 3
    path = tmp_path / "sample.emd"
    path.write_bytes(data)
    for source in (data, path):
        for page in range(3):
            found = read_micrograph(source, page=page)
            np.testing.assert_array_equal(found.pixels, STACK[page])
            assert found.pixel_size_nm == pytest.approx((2.0, 3.0))
        with open_micrograph(source, page=1) as opened:
            region = opened.read(slice(7, 41), slice(11, 60))
        np.testing.assert_array_equal(region, STACK[1, 7:41, 11:60])


def test_several_velox_images_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    one, two = STACK[0][..., None], STACK[1][..., None]
    data = files.velox({"f2": two, "0a": one}, None)
    np.testing.assert_array_equal(read_micrograph(data, page=0).pixels, STACK[0])
    np.testing.assert_array_equal(read_micrograph(data, page=1).pixels, STACK[1])
    assert read_micrograph(data).pixel_size is None
    assert "1/m" in str(files.velox({"a": one}, (1e7, 1e7, "1/m")))
    assert read_micrograph(files.velox({"a": one}, (1e7, 1e7, "1/m"))).pixel_size is None


def test_velox_files_never_lead_into_other_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(64 * 64))
    path = tmp_path / "external.emd"
    with h5py.File(path, "w") as file:
        file.create_group("Data/Image/a").create_dataset(
            "Data", (64, 64, 1), "u1", external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
        )
    assert "other files" in refused(path)
    other = tmp_path / "other.emd"
    other.write_bytes(files.velox({"a": STACK[0][..., None]}))
    for link in (h5py.ExternalLink("other.emd", "/Data/Image/a"), h5py.SoftLink("/Data/Image")):
        with h5py.File(path, "w") as file:
            file.create_group("Data/Image")["a"] = link
        assert "without images" in refused(path)


def test_velox_chunks_that_were_never_written_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sample.emd"
    for options in ({"chunks": (16, 16, 1)}, {}):
        with h5py.File(path, "w") as file:
            data = file.create_group("Data/Image/a").create_dataset(
                "Data", (64, 64, 1), "u1", **options
            )
            if options:
                data[:16, :16] = 1
        assert "without all" in refused(path)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
def test_mrc_sections_are_pages(dtype: str) -> None:
    sections = STACK.astype(dtype)
    data = files.mrc(sections, pixel_nm=0.37)
    assert count_pages(data) == 3
    found = read_micrograph(data, page=1)
    np.testing.assert_array_equal(found.pixels, sections[1])
    assert found.pixel_size_nm == pytest.approx((0.37, 0.37), rel=1e-5)


def test_an_uncalibrated_mrc_file_has_no_pixel_size() -> None:
    assert read_micrograph(files.mrc(STACK.astype("float32"))).pixel_size is None
    # 1 Å is what programs write where nobody calibrated.
    assert read_micrograph(files.mrc(STACK.astype("float32"), pixel_nm=0.1)).pixel_size is None
    assert "complex" in refused(files.mrc(STACK[0].astype("complex64")))


def test_bytes_of_an_mrc_file_have_the_sign_that_imod_tells() -> None:
    data = bytearray(files.mrc(STACK[0].astype("int8")))
    data[152:160] = np.array([1146047817, 0], "<i4").tobytes()
    found = read_micrograph(bytes(data))
    np.testing.assert_array_equal(found.pixels, STACK[0].astype("int8").view("uint8"))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("compressor", ["default", "none"])
def test_ome_zarr_is_read_from_folders_and_zip_files(
    version: str, compressor: str, tmp_path: Path
) -> None:
    options = {} if compressor == "default" else {"compressors": None}
    folder = files.ome_zarr(
        tmp_path / "sample.zarr", STACK[0], YX, [0.003, 0.002], version=version, chunks=(20, 30),
        **options,
    )  # fmt: skip
    for data in (folder, files.zipped(folder), files.zipped(folder, "sample.ome.zarr/")):
        found = read_micrograph(data)
        np.testing.assert_array_equal(found.pixels, STACK[0])
        assert found.pixel_size_nm == pytest.approx((2.0, 3.0))
        with open_micrograph(data) as opened:
            region = opened.read(slice(15, 45), slice(10, 61))
            np.testing.assert_array_equal(region, STACK[0, 15:45, 10:61])


def test_axes_of_ome_zarr_beyond_y_and_x_are_pages(tmp_path: Path) -> None:
    array = np.stack([STACK, STACK[::-1]])
    axes = [("c", ""), ("z", "nanometer"), ("y", "nanometer"), ("x", "nanometer")]
    folder = files.ome_zarr(tmp_path / "stack.zarr", array, axes, [1, 9, 4.0, 5.0])
    assert count_pages(folder) == 6
    for page in range(6):
        found = read_micrograph(folder, page=page)
        np.testing.assert_array_equal(found.pixels, array.reshape(6, 48, 64)[page])
        assert found.pixel_size_nm == (5.0, 4.0)


def test_a_compressed_zip_of_an_ome_zarr_image_is_read(tmp_path: Path) -> None:
    folder = files.ome_zarr(tmp_path / "sample.zarr", STACK[0], YX, [1, 1])
    data = files.zipped(folder, method=zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(read_micrograph(data).pixels, STACK[0])


def test_zarr_folders_that_are_no_ome_image_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty)
    folder = files.ome_zarr(tmp_path / "xy.zarr", STACK[0], [("x", "nm"), ("y", "nm")], [1, 1])
    assert "should be the last two" in refused(folder)
    sharded = files.ome_zarr(
        tmp_path / "sharded.zarr", STACK[0], YX, [1, 1], chunks=(8, 8), shards=(48, 64)
    )
    assert "shard" in refused(sharded)


def test_a_chunk_of_ome_zarr_outside_its_folder_is_not_read(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(STACK[0].tobytes())
    folder = files.ome_zarr(
        tmp_path / "sample.zarr", np.zeros_like(STACK[0]), YX, [1, 1], compressors=None,
        chunks=(48, 64),
    )  # fmt: skip
    (folder / "0" / "c" / "0").mkdir(parents=True, exist_ok=True)
    (folder / "0" / "c" / "0" / "0").unlink(missing_ok=True)
    (folder / "0" / "c" / "0" / "0").symlink_to(outside)
    assert not read_micrograph(folder).pixels.any()


def test_the_content_decides_what_a_file_is_not_its_name(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.dm3"
    path.write_bytes(files.picture(files.grey(), "PNG"))
    found = read_micrograph(path)
    np.testing.assert_array_equal(found.pixels, files.grey())
    assert found.source == "PNG"
    assert "whatever its name" in refused(b"\0\0\0\7" + bytes(2000))


def test_the_velox_files_of_these_tests_are_ones_that_a_library_reads(tmp_path: Path) -> None:
    path = tmp_path / "sample.emd"
    path.write_bytes(files.velox({"a" * 32: STACK[0][..., None]}, (2e-9, 2e-9, "m")))
    signals = read_emd(path)
    np.testing.assert_array_equal(signals[0]["data"], STACK[0])


def test_a_server_s_start_does_not_pay_for_the_readers() -> None:
    code = (
        "import sys, granulo_core.imaging.read, granulo_core.imaging.reading.isolated\n"
        "print({'h5py', 'zarr', 'rsciio', 'mrcfile', 'dask', 'pint'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
