# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes image files of every format that Granulo reads, as instruments and programs do.

Where no library writes a format, its public description is followed: DM3 and DM4 after the tag
layout that several open readers document, SER after C. Boothroyd.
"""

import io
import json
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import tifffile
import zarr
from PIL import Image

_DM_TYPES = {"uint8": 6, "int16": 1, "uint16": 10, "int32": 7, "float32": 2, "float64": 12,
             "uint32": 11, "complex64": 3, "bgra": 23}  # fmt: skip
_DM_ELEMENTS = {"uint8": 8, "int16": 2, "uint16": 4, "int32": 3, "float32": 6, "float64": 7,
                "uint32": 5, "complex64": 6, "bgra": 5}  # fmt: skip
_SER_TYPES = {"uint8": 1, "uint16": 2, "uint32": 3, "int8": 4, "int16": 5, "int32": 6,
              "float32": 7, "float64": 8, "complex64": 9}  # fmt: skip


def grey(height: int = 48, width: int = 64, seed: int = 1, dtype: str = "uint8") -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(20, 220, (height, width))
    return drawn.astype(dtype)


def tiff(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def picture(array: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def mrc(array: np.ndarray, pixel_nm: float | None = None) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sections.mrc"
        with mrcfile.new(path) as writer:
            writer.set_data(array)
            if pixel_nm:
                writer.voxel_size = 10 * pixel_nm
        return path.read_bytes()


class _Dm:
    """Tags of DM3 (version 3) or DM4 (version 4)."""

    def __init__(self, version: int) -> None:
        self.version = version

    def number(self, value: int) -> bytes:
        return struct.pack(">q" if self.version == 4 else ">l", value)

    def group(self, name: str, tags: list[bytes]) -> bytes:
        size = self.number(0) if self.version == 4 else b""
        return self._named(20, name, b"\1\0" + size + self.number(len(tags)) + b"".join(tags))

    def data(self, name: str, info: tuple[int, ...], content: bytes) -> bytes:
        body = b"%%%%" + self.number(len(info)) + b"".join(map(self.number, info)) + content
        size = struct.pack(">q", len(body)) if self.version == 4 else b""
        return self._named(21, name, size + body)

    def _named(self, kind: int, name: str, body: bytes) -> bytes:
        text = name.encode()
        return struct.pack(">BH", kind, len(text)) + text + body

    def integer(self, name: str, value: int) -> bytes:
        return self.data(name, (5,), struct.pack("<L", value))

    def real(self, name: str, value: float) -> bytes:
        return self.data(name, (6,), struct.pack("<f", value))

    def text(self, name: str, value: str) -> bytes:
        encoded = value.encode("utf-16-le")
        return self.data(name, (20, 4, len(encoded) // 2), encoded)

    def axis(self, scale: float, unit: str) -> bytes:
        return self.group(
            "", [self.real("Origin", 0), self.real("Scale", scale), self.text("Units", unit)]
        )

    def image(self, array: np.ndarray, kind: str, scales: list[tuple[float, str]]) -> bytes:
        shape = array.shape[:-1] if kind == "bgra" else array.shape
        content = array.tobytes()
        code = _DM_ELEMENTS[kind]
        count = len(content) // {8: 1, 2: 2, 4: 2, 3: 4, 5: 4, 6: 4, 7: 8}[code]
        return self.group("", [
            self.group("ImageData", [
                self.group("Calibrations", [
                    self.group("Brightness", [self.text("Units", "")]),
                    self.group("Dimension", [self.axis(*scale) for scale in scales]),
                ]),
                self.data("Data", (20, code, count), content),
                self.integer("DataType", _DM_TYPES[kind]),
                self.group("Dimensions", [self.integer("", size) for size in shape[::-1]]),
                self.integer("PixelDepth", 4),
            ]),
            self.group("ImageTags", [self.text("Operator", "nobody")]),
            self.text("Name", "sample"),
        ])  # fmt: skip


def gatan(
    array: np.ndarray,
    *,
    version: int = 3,
    scales: list[tuple[float, str]] | None = None,
    kind: str | None = None,
) -> bytes:
    """A DM file with a thumbnail, as DigitalMicrograph writes it, and one image or stack."""
    dm = _Dm(version)
    thumbnail = dm.image(np.zeros((8, 8, 4), np.uint8), "bgra", [(1.0, ""), (1.0, "")])
    image = dm.image(array, kind or array.dtype.name, scales or [(1.0, "")] * min(3, array.ndim))
    tags = [
        dm.group("ImageList", [thumbnail, image]),
        dm.group("Thumbnails", [dm.group("", [dm.integer("ImageIndex", 0)])]),
    ]
    body = b"\1\0" + dm.number(len(tags)) + b"".join(tags)
    size = struct.pack(">q" if version == 4 else ">l", len(body))
    return struct.pack(">l", version) + size + struct.pack(">l", 1) + body


def ser(
    images: np.ndarray, pixel_m: float = 1e-9, *, version: int = 0x0210, valid: int | None = None
) -> bytes:
    """A SER series of (N, H, W) images; rows are stored from the lowest up."""
    count, height, width = images.shape
    offset = "<Q" if version >= 0x0220 else "<L"
    header_bytes = 22 + struct.calcsize(offset) + 4 + 24 + 4 + 6 + 4
    table = header_bytes
    first = table + 2 * count * struct.calcsize(offset)
    element_bytes = 50 + images[0].nbytes
    elements = [first + i * (element_bytes + 8) for i in range(count)]
    valid = count if valid is None else valid
    out = struct.pack("<HHHIIII", 0x4949, 0x0197, version, 0x4122, 0x4152, count, valid)
    out += struct.pack(offset, table) + struct.pack("<I", 1)
    out += struct.pack("<IddI", count, 0.0, 1.0, 0)
    out += struct.pack("<I", 6) + b"Number" + struct.pack("<I", 0)
    out += b"".join(struct.pack(offset, at) for at in elements)
    out += b"".join(struct.pack(offset, at + element_bytes) for at in elements)
    for image in images:
        out += struct.pack(
            "<ddiddihii", 0.0, pixel_m, 0, 0.0, pixel_m, 0, _SER_TYPES[image.dtype.name], width,
            height,
        )  # fmt: skip
        out += image[::-1].tobytes() + struct.pack("<HHI", 0x4152, 0, 0)
    return out


EMI = b"JK\x00\x02\x00\x00\x00\x00\x04M\x01\x00" + b"<ObjectInfo></ObjectInfo>"


def velox(
    images: dict[str, np.ndarray],
    pixel: tuple[float, float, str] | None = (1e-9, 1e-9, "m"),
    **options: Any,
) -> bytes:
    """A Velox file of images, each (H, W, frames); options of h5py's ``create_dataset``."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        version = json.dumps({"format": "Velox", "version": "1.0"}).encode()
        file.create_dataset("Version", data=np.array([version], dtype="S64"))
        for key, image in images.items():
            group = file.create_group(f"Data/Image/{key}")
            group.create_dataset("Data", data=image, **options)
            result: dict[str, Any] = {}
            if pixel:
                size = {"width": str(pixel[0]), "height": str(pixel[1])}
                result = {"PixelSize": size, "PixelUnitX": pixel[2], "PixelUnitY": pixel[2]}
            acquisition = {"AcquisitionStartDatetime": {"DateTime": "1763000000"}}
            text = json.dumps({"BinaryResult": result, "Acquisition": acquisition}).encode()
            frames = image.shape[2]
            column = np.zeros((2048, frames), np.uint8)
            column[: len(text)] = np.frombuffer(text, np.uint8)[:, None]
            packed = {"chunks": (500, 1), "compression": "gzip"} if "compression" in options else {}
            group.create_dataset("Metadata", data=column, **packed)
    return buffer.getvalue()


def ome_zarr(
    folder: Path,
    array: np.ndarray,
    axes: list[tuple[str, str]],
    scale: list[float],
    *,
    version: str = "0.5",
    **options: Any,
) -> Path:
    """An OME-Zarr image with one level; ``axes`` are names and units, ``scale`` per axis."""
    multiscales = [{
        "version": version,
        "axes": [{"name": name, "type": "space", **({"unit": unit} if unit else {})}
                 for name, unit in axes],
        "datasets": [{"path": "0", "coordinateTransformations": [
            {"type": "scale", "scale": scale}]}],
    }]  # fmt: skip
    group = zarr.open_group(folder, mode="w", zarr_format=2 if version == "0.4" else 3)
    group.create_array("0", data=array, **options)
    if version == "0.4":
        group.attrs["multiscales"] = multiscales
    else:
        group.attrs["ome"] = {"version": version, "multiscales": multiscales}
    return folder


def zipped(folder: Path, below: str = "", method: int = zipfile.ZIP_STORED) -> bytes:
    """A folder as a zip file, below a folder of the zip where one is named."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, below + path.relative_to(folder).as_posix())
    return buffer.getvalue()
