# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels as ImageJ's regions of interest."""

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import roifile
from numpy.typing import NDArray

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class Region:
    """One particle."""

    number: int
    """Its value in the labels."""
    mask: NDArray[np.bool_]
    """(h, w) of a box around it."""
    left: int
    top: int
    """Where the box begins in the image, in pixels."""
    properties: Mapping[str, str]
    """What ImageJ shows of it beside the outline."""


def write_regions(file: Path | IO[bytes], regions: Iterable[Region]) -> None:
    """Write a zip of regions of interest: the outline of every particle along its pixels' edges.

    Holes are filled, and of a particle in several pieces the largest is outlined: a region of this
    kind is one polygon.

    Parameters
    ----------
    file : Path or binary file
    regions : iterable of Region
        Label 1 becomes ``00001.roi``.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for region in regions:
            corners = outline(region.mask) + np.array([region.left, region.top])
            name = f"{region.number:05d}"
            roi = roifile.ImagejRoi.frompoints(corners, name=name)
            roi.roitype = roifile.ROI_TYPE.TRACED
            roi.props = "".join(f"{key}: {value}\n" for key, value in region.properties.items())
            # Without the time of day equal particles make equal files.
            entry = zipfile.ZipInfo(f"{name}.roi", _EPOCH)
            archive.writestr(entry, roi.tobytes(), zipfile.ZIP_DEFLATED, compresslevel=1)


def outline(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Corners of the pixels along the outline of a mask's largest piece.

    Parameters
    ----------
    mask : (H, W) bool

    Returns
    -------
    (n, 2) int32
        x and y, the upper left corner of the first pixel is (0, 0).
    """
    # Four subpixels a pixel: the outline through their centres runs beside every corner, and no
    # diagonal step of it cuts one.
    fine = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    pieces, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # Largest by its corners: the outline through the centres favours compact pieces.
    corners = max(((piece.reshape(-1, 2) + 1) // 2 for piece in pieces), key=_area)
    moved = np.any(corners != np.roll(corners, 1, axis=0), axis=1)
    corners = corners[moved]
    # On a straight edge only the ends count.
    before, after = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return np.asarray(corners[turns], dtype=np.int32)


def _area(corners: NDArray[np.integer[Any]]) -> float:
    """Area inside a polygon (the shoelace formula)."""
    x, y = corners[:, 0].astype(np.int64), corners[:, 1].astype(np.int64)
    return abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2
