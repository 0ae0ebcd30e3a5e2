# SPDX-License-Identifier: GPL-3.0-or-later
"""Damaged files of every format: each gives an image or a refusal, in bounded time and memory."""

import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from granulo_core.errors import Code, GranuloError, Reason
from granulo_core.imaging.read import Micrograph
from granulo_core.imaging.reading.isolated import IsolatedReader

sys.path.insert(0, str(Path(__file__).parent))

import image_files as files

MAX_PX = 1 << 20
TIME_LIMIT_S = 30.0
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@cache
def intact() -> dict[str, bytes]:
    """One file of every format and, for TIFF, of every decoder."""
    image, wide = files.grey(), files.grey(dtype="uint16")
    with tempfile.TemporaryDirectory() as folder:
        zarr = files.zipped(
            files.ome_zarr(
                Path(folder) / "a.zarr", wide, [("y", "nanometer"), ("x", "nanometer")],
                [1.0, 1.0], chunks=(16, 32),
            )
        )  # fmt: skip
    frames = wide[..., None]
    return {
        "tiff": files.tiff(image, rowsperstrip=8),
        "tiff-lzw": files.tiff(wide, compression="lzw", rowsperstrip=8, byteorder=">"),
        "tiff-deflate-tiles": files.tiff(
            wide, compression="zlib", tile=(16, 16), predictor=True, bigtiff=True
        ),
        "tiff-zstd": files.tiff(image, compression="zstd"),
        "tiff-jpeg": files.tiff(image, compression="jpeg", tile=(16, 16)),
        "ome-tiff": files.tiff(
            np.stack([image, image]), ome=True, photometric="minisblack",
            metadata={"axes": "ZYX", "PhysicalSizeX": 0.002, "PhysicalSizeY": 0.002},
        ),
        "png": files.picture(image, "PNG"),
        "png-16": files.picture(wide, "PNG"),
        "bmp": files.picture(image, "BMP"),
        "jpeg": files.picture(image, "JPEG"),
        "mrc": files.mrc(np.stack([image, image]).astype("float32"), 0.5),
        "emd": files.velox({"a": frames}),
        "emd-gzip": files.velox({"a": frames}, chunks=(16, 16, 1), compression="gzip"),
        "dm3": files.gatan(wide, scales=[(0.5, "nm"), (0.5, "nm")]),
        "dm4": files.gatan(wide, version=4),
        "ser": files.ser(np.stack([wide, wide])),
        "ome-zarr": zarr,
    }  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    form: str
    how: str
    seed: int

    def __str__(self) -> str:
        return f"{self.form}-{self.how}-{self.seed}"

    def data(self) -> bytes:
        whole = intact()[self.form]
        rng = np.random.default_rng([self.seed, *self.form.encode(), *self.how.encode()])
        return MUTATIONS[self.how](bytearray(whole), rng)


def _truncated(data: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(data[: int(len(data) * rng.uniform(0.02, 0.98))])


def _flipped(data: bytearray, rng: np.random.Generator, end: int, count: int) -> bytes:
    for at in rng.integers(0, min(end, len(data)), count):
        data[at] ^= int(rng.integers(1, 256))
    return bytes(data)


def _extreme(data: bytearray, rng: np.random.Generator) -> bytes:
    """A field of the header becomes one of the numbers on which readers stumble."""
    at = int(rng.integers(0, min(400, len(data) - 4)))
    order = "<" if rng.random() < 0.5 else ">"
    struct.pack_into(f"{order}I", data, at, int(rng.choice(EXTREMES)))
    return bytes(data)


def _without_a_part(data: bytearray, rng: np.random.Generator) -> bytes:
    at, length = int(rng.integers(8, len(data))), int(rng.integers(1, 200))
    del data[at : at + length]
    return bytes(data)


def _with_a_part_twice(data: bytearray, rng: np.random.Generator) -> bytes:
    at, length = int(rng.integers(0, len(data))), int(rng.integers(1, 200))
    data[at:at] = data[at : at + length]
    return bytes(data)


MUTATIONS: dict[str, Callable[[bytearray, np.random.Generator], bytes]] = {
    "truncated": _truncated,
    "header": lambda data, rng: _flipped(data, rng, 300, int(rng.integers(1, 6))),
    "anywhere": lambda data, rng: _flipped(data, rng, len(data), int(rng.integers(1, 40))),
    "extreme": _extreme,
    "gap": _without_a_part,
    "repeat": _with_a_part_twice,
}
ALL = [
    Mutation(form, how, seed)
    for form in intact()
    for how in MUTATIONS
    for seed in range(6 if how in ("truncated", "header", "extreme") else 3)
]
# Every form and every mutation, each form with other seeds.
SAMPLE = [
    Mutation(form, how, number % 3)
    for number, form in enumerate(intact())
    for how in list(MUTATIONS)[number % 2 :: 2]
]


@pytest.fixture(scope="module")
def reader() -> Iterator[IsolatedReader]:
    with IsolatedReader(max_px=MAX_PX, timeout_s=TIME_LIMIT_S) as made:
        yield made


def check(reader: IsolatedReader, mutation: Mutation) -> None:
    found = attempt(reader, mutation.data())
    if isinstance(found, GranuloError):
        assert found.code is Code.INVALID_ARGUMENT, found
        assert "mutant" in found.message
        # The process that reads must neither crash nor hang.
        assert "cause" not in found.metadata, found
        if mutation.how == "truncated":
            assert found.reason is Reason.IMAGE_UNREADABLE
    else:
        assert mutation.how != "truncated", "a truncated file gave an image"
        assert found.pixels.size <= MAX_PX
        assert found.pixels.dtype.name in ("uint8", "uint16", "float32")
        assert np.isfinite(found.pixels).all()


def attempt(reader: IsolatedReader, data: bytes) -> Micrograph | GranuloError:
    try:
        return reader.read(data, name="mutant")
    except GranuloError as error:
        return error


def test_there_are_enough_mutations() -> None:
    assert len(ALL) >= 200
    assert len({mutation.data() for mutation in ALL}) >= 0.95 * len(ALL)
    assert {mutation.how for mutation in SAMPLE} == set(MUTATIONS)


def test_the_intact_files_are_read(reader: IsolatedReader) -> None:
    for form, data in intact().items():
        found = reader.read(data, name=form)
        expected = files.grey()
        if form in ("jpeg", "tiff-jpeg"):
            assert np.abs(found.pixels.astype(int) - expected).mean() < 20, form
        else:
            np.testing.assert_array_equal(found.pixels, expected, err_msg=form)


@pytest.mark.parametrize("mutation", SAMPLE, ids=str)
def test_a_damaged_file_gives_an_image_or_a_refusal(
    mutation: Mutation, reader: IsolatedReader
) -> None:
    check(reader, mutation)


@pytest.mark.long
@pytest.mark.parametrize("mutation", ALL, ids=str)
def test_every_damaged_file_gives_an_image_or_a_refusal(
    mutation: Mutation, reader: IsolatedReader
) -> None:
    check(reader, mutation)


@pytest.mark.long
@pytest.mark.parametrize("form", list(intact()))
def test_a_file_that_ends_anywhere_is_refused(form: str, reader: IsolatedReader) -> None:
    whole = intact()[form]
    for end in np.unique(np.linspace(0, len(whole) - 64, 60).astype(int)):
        with pytest.raises(GranuloError) as caught:
            reader.read(whole[:end], name="mutant")
        assert caught.value.reason is Reason.IMAGE_UNREADABLE, end
        assert "cause" not in caught.value.metadata, caught.value
