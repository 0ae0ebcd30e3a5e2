# SPDX-License-Identifier: GPL-3.0-or-later
"""Annotated micrographs: what an image and its labels must be to be trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.read import MIN_SIDE_PX
from granulo_trainer.domain.job import StoredImage

MAX_PARTICLES = int(np.iinfo(np.uint16).max)
"""Most particles of one image: labels are kept in 16 bits."""


class UnusablePairError(ValueError):
    """An image and its labels do not fit, or hold nothing to learn from.

    Parameters
    ----------
    part : {"image", "labels"}
        Which of the two to change.
    text : str
        What is wrong and what would be right.
    """

    def __init__(self, part: str, text: str) -> None:
        super().__init__(text)
        self.part = part


@dataclass(frozen=True)
class SourcePair:
    """An uploaded image and its uploaded labels."""

    image: StoredImage
    labels: StoredImage


@dataclass(frozen=True)
class ImportPlan:
    """Everything that determines an annotated dataset."""

    dataset_id: str
    """Empty: it follows from the content."""
    pairs: tuple[SourcePair, ...]
    pixel_size_nm: tuple[float, float] | None
    """Of all images; None takes each file's own."""
    content_height_px: int
    """Rows below are left out; 0 takes what is found in each file."""


@dataclass(frozen=True)
class AnnotatedImage:
    """What a dataset's manifest tells of one of its images."""

    name: str
    """What the user calls it."""
    labels_name: str
    stem: str
    """Name of its objects, ``images/<stem>.tif`` and ``labels/<stem>.tif``."""
    height_px: int
    width_px: int
    particle_count: int
    pixel_size_nm: Sequence[float] | None
    """Width and height of a pixel; None where it is unknown."""


def fit_labels(
    shape: tuple[int, int],
    labels: NDArray[np.uint32],
    *,
    content_height_px: int,
    found_height_px: int,
) -> NDArray[np.uint16]:
    """Labels of a micrograph's content, numbered from 1.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the micrograph.
    labels : (H, W) uint32
        Instances, 0 is background.
    content_height_px : int
        Rows that belong to the annotation; 0 where the user does not say.
    found_height_px : int
        Row at which a data bar was found, else the height. It gives way to labels below it.

    Returns
    -------
    (content height, W) uint16
        Ids 1 to n, in the order of the given ones.

    Raises
    ------
    UnusablePairError
        Sizes differ, the content height lies outside of the image, there is no particle, nothing
        but particles, or more of them than 16 bits can number.
    """
    height, width = shape
    if labels.shape != shape:
        raise UnusablePairError(
            "labels",
            f"have {labels.shape[1]} × {labels.shape[0]} pixels and the image has "
            f"{width} × {height}; labels must be as large as their image",
        )
    if content_height_px > height:
        raise UnusablePairError(
            "image",
            f"has {height} rows, fewer than content_height_px = {content_height_px}; give at most "
            f"{height}, or 0",
        )
    if not content_height_px:
        content_height_px = height if labels[found_height_px:].any() else found_height_px
    if min(content_height_px, width) < MIN_SIDE_PX:
        raise UnusablePairError(
            "image",
            f"has {width} × {content_height_px} pixels of content; at least "
            f"{MIN_SIDE_PX} × {MIN_SIDE_PX} are needed",
        )
    ids, numbered = np.unique(labels[:content_height_px], return_inverse=True)
    count = len(ids) - int(ids[0] == 0)
    if count == 0:
        raise UnusablePairError(
            "labels", "hold no particle: all of it is 0; leave the image out or label it"
        )
    if ids[0] != 0:
        raise UnusablePairError(
            "labels",
            "hold no background: every pixel belongs to a particle, so that nothing tells where "
            "particles end; label the background 0",
        )
    if count > MAX_PARTICLES:
        raise UnusablePairError(
            "labels", f"hold {count} particles, more than {MAX_PARTICLES}; cut the image into parts"
        )
    fitted: NDArray[np.uint16] = numbered.reshape(content_height_px, width).astype(np.uint16)
    return fitted


def stored_grey(pixels: NDArray[Any]) -> NDArray[Any]:
    """Grey levels as they are kept: 8 and 16 bits as they are, others stretched to 16 bits.

    Parameters
    ----------
    pixels : (H, W) uint8, uint16 or float32

    Returns
    -------
    (H, W) uint8 or uint16
    """
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    low, high = float(pixels.min()), float(pixels.max())
    if high <= low:
        return np.zeros(pixels.shape, dtype=np.uint16)
    scaled = (pixels.astype(np.float64) - low) * (65535.0 / (high - low))
    stretched: NDArray[np.uint16] = np.rint(scaled).astype(np.uint16)
    return stretched
