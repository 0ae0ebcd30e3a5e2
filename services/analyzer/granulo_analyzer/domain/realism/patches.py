# SPDX-License-Identifier: GPL-3.0-or-later
"""Where patches are taken: from real images in sequence, from synthetic ones at random (M11)."""

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.patch_texture import patch_corners

FEWEST_PATCHES = 8
"""Of one set: with fewer, neighbours and a classifier tell nothing."""
_FEWEST_IMAGES = 2


def count_patches(shape: tuple[int, ...], side_px: int) -> int:
    """How many patches an image gives: as many as fit side by side, 0 where it is too small."""
    return len(patch_corners(shape, side_px)) if min(shape) >= side_px else 0


def sequential(shape: tuple[int, ...], side_px: int, most: int) -> NDArray[np.int64]:
    """Corners of patches side by side, row by row; evenly thinned out where there are more.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image, none of them below ``side_px``.
    side_px, most : int

    Returns
    -------
    (n, 2) int64
        Row and column of the upper left pixel.
    """
    corners = np.array(patch_corners(shape, side_px))
    return corners[thinned(len(corners), most)]


def at_random(shape: tuple[int, ...], side_px: int, most: int, seed: int) -> NDArray[np.int64]:
    """Corners of as many patches as `sequential` takes, anywhere; they may overlap.

    Parameters
    ----------
    shape : (int, int)
    side_px, most : int
    seed : int
        Equal seeds give equal corners.

    Returns
    -------
    (n, 2) int64
        Row and column of the upper left pixel.
    """
    count = min(count_patches(shape, side_px), most)
    highest = np.array(shape) - side_px + 1
    return np.random.default_rng(seed).integers(highest, size=(count, 2))


def thinned(count: int, most: int) -> NDArray[np.int64]:
    """Places of at most ``most`` of ``count`` things in a row, evenly spread."""
    kept = min(count, most)
    return np.arange(kept) * count // max(kept, 1)


def units(image: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
    """What patches of one set depend on one another by: their image.

    A single image is split into an upper and a lower half, which then count as images.

    Parameters
    ----------
    image, row : (n,) int64
        Number of the image of every patch, and its upper row.

    Returns
    -------
    (n,) int64
        Numbered from 0.
    """
    if len(np.unique(image)) >= _FEWEST_IMAGES:
        return np.asarray(np.unique(image, return_inverse=True)[1])
    order = np.argsort(row, kind="stable")
    half = np.zeros(len(row), dtype=np.int64)
    half[order[len(order) // 2 :]] = 1
    return half
