# SPDX-License-Identifier: GPL-3.0-or-later
"""What ImageJ and scikit-image call area, perimeter, Feret diameter and so on."""

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.measure import regionprops

Floats = NDArray[np.float64]


def imagej(mask: NDArray[np.bool_]) -> dict[str, float]:
    """ImageJ 1.54's "Analyze Particles" of one particle without holes.

    `ij.gui.PolygonRoi` traces the corners of the pixels. Perimeter: the sides of that polygon, less
    2 - √2 for every corner but the second of two that lie one pixel apart (`getTracedPerimeter`).
    Feret diameters: of the hull of the corners. Ellipse: of the second moments, scaled to the area
    (`ij.process.EllipseFitter`).

    Parameters
    ----------
    mask : (H, W) bool

    Returns
    -------
    dict
    """
    corners = _traced(mask)
    hull = cv2.convexHull(corners.astype(np.float32))[:, 0].astype(np.float64)
    area = float(mask.sum())
    perimeter = _traced_perimeter(corners)
    apart = hull[:, None] - hull
    max_feret = float(np.sqrt((apart**2).sum(axis=2).max()))
    edges = np.roll(hull, -1, axis=0) - hull
    normals = np.stack((-edges[:, 1], edges[:, 0])) / np.hypot(edges[:, 0], edges[:, 1])
    min_feret = float(np.ptp(hull @ normals, axis=0).min())
    y, x = np.nonzero(mask)
    covariance = np.cov(np.stack((x, y)), bias=True) + np.eye(2) / 12
    low, high = np.linalg.eigvalsh(covariance)
    scale = np.sqrt(area / (4 * np.pi * np.sqrt(low * high)))
    major, minor = 4 * np.sqrt(high) * scale, 4 * np.sqrt(low) * scale
    return {
        "area": area,
        "perimeter": perimeter,
        "max_feret": max_feret,
        "min_feret": min_feret,
        "ellipse_major": major,
        "ellipse_minor": minor,
        "circularity": 4 * np.pi * area / perimeter**2,
        "solidity": area / float(cv2.contourArea(hull.astype(np.float32))),
    }


def scikit_image(mask: NDArray[np.bool_]) -> dict[str, float]:
    """scikit-image's `regionprops` of one particle."""
    found = regionprops(mask.astype(np.uint8))[0]
    return {
        "area": float(found.area),
        "perimeter": float(found.perimeter),
        "max_feret": float(found.feret_diameter_max),
        "ellipse_major": float(found.axis_major_length),
        "ellipse_minor": float(found.axis_minor_length),
        "circularity": 4 * np.pi * float(found.area) / float(found.perimeter) ** 2,
        "solidity": float(found.solidity),
    }


def _traced(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(k, 2) corners of the outer polygon along the pixels' edges, in order."""
    # Four subpixels a pixel: the outline through their centres runs beside every corner.
    fine = np.repeat(np.repeat(np.pad(mask, 1).astype(np.uint8), 2, axis=0), 2, axis=1)
    pieces, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = max(pieces, key=cv2.contourArea)[:, 0].astype(np.int64)
    corners = (points + 1) // 2 - 1
    corners = corners[np.any(corners != np.roll(corners, 1, axis=0), axis=1)]
    before = corners - np.roll(corners, 1, axis=0)
    after = np.roll(corners, -1, axis=0) - corners
    return corners[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def _traced_perimeter(corners: NDArray[np.int64]) -> float:
    sides = np.abs(corners - np.roll(corners, 1, axis=0)).sum(axis=1)
    cut, corner = 0, False
    for side in sides.tolist():
        corner = side > 1 or not corner
        cut += corner
    return float(sides.sum()) - cut * (2 - float(np.sqrt(2)))
