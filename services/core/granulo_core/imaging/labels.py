# SPDX-License-Identifier: GPL-3.0-or-later
"""Label images and micrographs as OME-TIFF, and label images from anybody's files.

Written files are byte-identical for equal input: their UUID is derived from the content, and they
carry no date.
"""

import hashlib
import io
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage.measure import label as connected_regions

from granulo_core.errors import GranuloError
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.raster import (
    DEFAULT_MAX_PX,
    Raster,
    open_raster,
    open_rasters,
    unreadable,
)

ImageKind = Literal["micrograph", "labels", "mask", "depth", "amodal"]
LabelKind = Literal["auto", "instances", "binary"]

_TILE_PX = 512
_OME_TYPES = {"uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "float32": "float"}
_DTYPES: dict[ImageKind, tuple[str, ...]] = {
    "micrograph": ("uint8", "uint16"),
    "labels": ("uint16", "uint32"),
    "mask": ("uint8",),
    "depth": ("float32",),
    "amodal": ("uint16",),
}


def encode_tiff(
    array: NDArray[Any],
    pixel_size: PixelSize | tuple[float, float] | None = None,
    *,
    kind: ImageKind,
) -> bytes:
    """Write an image as an OME-TIFF of one page, or amodal labels as several, without loss.

    Parameters
    ----------
    array : (H, W), or (P, H, W) for amodal labels
        uint8 or uint16 for a micrograph, uint8 for a mask, float32 in nanometres for depth,
        uint16 for amodal labels; for labels uint16 or uint32, and any other integer type without
        negative values, which becomes uint32.
    pixel_size : PixelSize or (x_nm, y_nm), optional
        Left out of the file where it is unknown.
    kind : {"micrograph", "labels", "mask", "depth", "amodal"}
        What the numbers mean; also the image's name in the OME-XML.

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        When shape or type do not fit the kind.
    """
    axes = 3 if kind == "amodal" else 2
    if array.ndim != axes or array.size == 0:
        raise ValueError(f"expected {kind} with {axes} axes, got shape {array.shape}")
    if kind == "labels" and array.dtype.name not in _DTYPES["labels"]:
        array = _as_labels(array)
    if array.dtype.name not in _DTYPES[kind]:
        raise ValueError(
            f"{kind} must be {' or '.join(_DTYPES[kind])}, got {array.dtype}; convert it first"
        )
    if isinstance(pixel_size, tuple):
        pixel_size = PixelSize(*pixel_size)
    pixels = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    body = _ome_body(pixels.shape, pixels.dtype, pixel_size, kind)
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        pixels,
        description=_ome_xml(body, hashlib.sha256(body.encode("ascii") + pixels.tobytes())),
        photometric="minisblack",
        compression="zlib",
        # Labels are runs of equal numbers: trying harder takes three times as long for little.
        compressionargs={"level": 1} if kind == "labels" else None,
        rowsperstrip=max(1, min(pixels.shape[-2], (1 << 20) // max(1, pixels.strides[-2]))),
        software="Granulo",
        metadata=None,
        byteorder="<",
    )
    return buffer.getvalue()


def write_labels(
    path: Path,
    shape: tuple[int, int],
    read_rows: Callable[[int, int], NDArray[np.uint32]],
    pixel_size: PixelSize | None = None,
) -> None:
    """Write labels that may be larger than memory as a tiled OME-BigTIFF, without loss.

    Parameters
    ----------
    path : Path
    shape : (height, width)
    read_rows : callable
        Rows ``[first, end)`` of the labels, (n, width) uint32; asked for twice.
    pixel_size : PixelSize, optional
        Left out of the file where it is unknown.
    """
    body = _ome_body(shape, np.dtype("<u4"), pixel_size, "labels")
    content = hashlib.sha256(body.encode("ascii"))
    for first in range(0, shape[0], _TILE_PX):
        rows = read_rows(first, min(shape[0], first + _TILE_PX))
        content.update(np.ascontiguousarray(rows, dtype="<u4").data)
    write_tiles(path, [(shape, read_rows)], np.dtype("<u4"), _ome_xml(body, content))


def write_tiles(
    path: Path,
    pages: Sequence[tuple[tuple[int, int], Callable[[int, int], NDArray[Any]]]],
    dtype: np.dtype[Any],
    description: str,
) -> None:
    """Write pages that may be larger than memory as a tiled BigTIFF.

    Parameters
    ----------
    path : Path
    pages : sequence of ((height, width), read_rows)
        See `write_labels`.
    dtype : numpy.dtype
    description : str
        ASCII, of the first page.
    """
    with tifffile.TiffWriter(path, bigtiff=True, byteorder="<") as writer:
        for number, (shape, read_rows) in enumerate(pages):
            writer.write(
                _tiles(shape, read_rows, dtype),
                shape=shape,
                dtype=dtype,
                tile=(_TILE_PX, _TILE_PX),
                description=description if number == 0 else None,
                photometric="minisblack",
                compression="zlib",
                compressionargs={"level": 1},
                software="Granulo",
                metadata=None,
            )


def _tiles(
    shape: tuple[int, int],
    read_rows: Callable[[int, int], NDArray[Any]],
    dtype: np.dtype[Any],
) -> Iterator[NDArray[Any]]:
    height, width = shape
    for first in range(0, height, _TILE_PX):
        rows = read_rows(first, min(height, first + _TILE_PX))
        for left in range(0, width, _TILE_PX):
            tile = np.zeros((_TILE_PX, _TILE_PX), dtype)
            part = rows[:, left : left + _TILE_PX]
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def decode_labels(
    data: bytes | Path,
    kind: LabelKind = "auto",
    *,
    max_px: int = DEFAULT_MAX_PX,
    name: str | None = None,
) -> NDArray[np.uint32]:
    """Read a label image; what is no label image is refused rather than counted.

    Parameters
    ----------
    data : bytes or Path
        PNG, BMP or TIFF; JPEG is refused, because its losses change ids.
    kind : {"auto", "instances", "binary"}
        ``instances``: every grey level is the id of a particle, 0 is background. ``binary``: 0 and
        one other level, one particle per 4-connected component. ``auto``: binary where there is one
        level besides 0, instances otherwise.
    max_px : int
        Largest accepted number of pixels.
    name : str, optional
        What the user calls the file, for messages.

    Returns
    -------
    (H, W) uint32
        Ids as they are in the file (``instances``), or 1 to n (``binary``).

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE for files that cannot be read and for micrographs, colour pictures,
        fractions and negative numbers; IMAGE_TOO_LARGE above ``max_px``.
    """
    name = name or (data.name if isinstance(data, Path) else "the label image")
    raster = open_raster(data, max_px=max_px, name=name)
    labels = _plain_labels(raster, name)
    levels = _distinct(labels)
    if kind == "binary" and len(levels) > 1:
        raise unreadable(
            name,
            f"should be a binary mask, but has {len(levels)} levels besides 0; a mask holds 0 and "
            "one other level",
        )
    if kind == "binary" or (kind == "auto" and len(levels) == 1):
        _, components = cv2.connectedComponents((labels > 0).astype(np.uint8), connectivity=4)
        return np.asarray(components, dtype=np.uint32)
    stored = raster.samples.dtype
    # No microscope writes whole numbers of 32 bits, but Granulo its labels: however torn, e.g. by a
    # network that was hardly trained, they are ids.
    if stored.kind == "f" or stored.itemsize < 4:
        _refuse_grey_levels(labels, levels, name)
    if len(levels) == 1 and int(connected_regions(labels > 0, connectivity=2).max()) > 1:
        raise unreadable(
            name,
            f"has the single id {levels[0]} in several places: a binary mask, not instance ids; "
            "name it as a mask (X_m.tif) or number its particles",
        )
    return labels


def decode_label_pages(
    data: bytes | Path, *, max_px: int = DEFAULT_MAX_PX, name: str | None = None
) -> NDArray[np.uint32]:
    """Read labels of whole particles, which overlap and therefore lie on several pages.

    Parameters
    ----------
    data : bytes or Path
        As `encode_tiff` writes amodal labels.
    max_px : int
        Largest accepted number of pixels of a page.
    name : str, optional
        What the user calls the file, for messages.

    Returns
    -------
    (P, H, W) uint32

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE, also for pages of different size; IMAGE_TOO_LARGE above ``max_px``.
    """
    name = name or (data.name if isinstance(data, Path) else "the label image")
    pages = [_plain_labels(raster, name) for raster in open_rasters(data, max_px=max_px, name=name)]
    if len({page.shape for page in pages}) > 1:
        raise unreadable(name, "has pages of different size; all must have that of the labels")
    return np.stack(pages)


def _ome_body(
    shape: tuple[int, ...], dtype: np.dtype[Any], pixel_size: PixelSize | None, kind: str
) -> str:
    height, width = shape[-2:]
    pages = shape[0] if len(shape) == 3 else 1
    size = ""
    if pixel_size is not None:
        size = (
            f' PhysicalSizeX="{pixel_size.x_nm!r}" PhysicalSizeXUnit="nm"'
            f' PhysicalSizeY="{pixel_size.y_nm!r}" PhysicalSizeYUnit="nm"'
        )
    return (
        f'<Image ID="Image:0" Name={quoteattr(kind)}>'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="{_OME_TYPES[dtype.name]}" '
        f'SizeX="{width}" SizeY="{height}" SizeC="1" SizeZ="{pages}" SizeT="1" '
        f'BigEndian="false"{size}>'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="{pages}"/>'
        "</Pixels></Image></OME>"
    )


def _ome_xml(body: str, content: "hashlib._Hash") -> str:
    """The whole document; its UUID follows from the body and the pixels."""
    identity = uuid.uuid5(uuid.NAMESPACE_OID, content.hexdigest())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:schemaLocation="http://www.openmicroscopy.org/Schemas/OME/2016-06 '
        'http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd" '
        f'UUID="urn:uuid:{identity}" Creator="Granulo">{body}'
    )


def _as_labels(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in "iu":
        raise ValueError(f"labels must be whole numbers, got {array.dtype}")
    if array.min() < 0 or array.max() > np.iinfo(np.uint32).max:
        raise ValueError("labels must lie between 0 and 2^32 - 1")
    return array.astype(np.uint32)


def _plain_labels(raster: Raster, name: str) -> NDArray[np.uint32]:
    samples = raster.samples
    if raster.format == "JPEG":
        raise unreadable(
            name, "is a JPEG, whose losses change particle ids; save labels as PNG or TIFF"
        )
    if samples.ndim == 3:
        samples = _single_channel(samples, name)
    if samples.dtype == np.bool_:
        return samples.astype(np.uint32)
    if samples.dtype.kind == "f":
        if not np.isfinite(samples).all() or (samples != np.rint(samples)).any():
            raise unreadable(
                name, "holds fractions or NaN: a probability map or micrograph, not particle ids"
            )
    elif samples.dtype.kind not in "iu":
        raise unreadable(name, f"holds {samples.dtype} samples, not particle ids")
    if samples.min() < 0 or samples.max() > np.iinfo(np.uint32).max:
        raise unreadable(name, "holds ids outside 0 to 2^32 - 1")
    return samples.astype(np.uint32)


def _single_channel(samples: NDArray[Any], name: str) -> NDArray[Any]:
    colours = samples[..., :3] if samples.shape[2] >= 3 else samples[..., :1]
    if any((colours[..., 0] != colours[..., index]).any() for index in range(1, colours.shape[2])):
        raise unreadable(
            name,
            "is a colour picture, not a label image; save the ids as one grey channel of PNG or "
            "TIFF",
        )
    return colours[..., 0]


def _distinct(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    found = np.unique(labels)
    return found[found > 0]


def _refuse_grey_levels(labels: NDArray[np.uint32], levels: NDArray[np.uint32], name: str) -> None:
    """Tell ids from brightness: ids come in few, large regions, and neighbours differ by chance."""
    if len(levels) < 2:
        return
    regions = int(connected_regions(labels, connectivity=1, background=0).max())
    mean_area = np.count_nonzero(labels) / regions
    torn = regions > 4 * len(levels) + 20 and mean_area < 25
    # 16-bit brightness has nearly as many levels as regions.
    crumbs = regions > 200 and mean_area < 6
    if torn or crumbs or _is_smooth(labels, levels):
        raise _grey_level_error(name, len(levels), regions)


def _is_smooth(labels: NDArray[np.uint32], levels: NDArray[np.uint32]) -> bool:
    """Without background, and almost every step between neighbours is 1 or 2: a gradient."""
    if len(levels) <= 16 or np.count_nonzero(labels) < 0.99 * labels.size:
        return False
    signed = labels.astype(np.int64)
    steps = np.concatenate([np.abs(np.diff(signed, axis=axis)).ravel() for axis in (0, 1)])
    steps = steps[steps > 0]
    return bool(steps.size) and float(np.percentile(steps, 75)) <= 2


def _grey_level_error(name: str, levels: int, regions: int) -> GranuloError:
    return unreadable(
        name,
        f"looks like a grey-level image, not a label image ({levels} levels in {regions} separate "
        "regions); give an image in which every particle has one number",
    )
