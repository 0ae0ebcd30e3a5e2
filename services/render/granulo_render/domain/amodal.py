# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole masks of particles, hidden parts included, and their storage as pages of labels."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.silhouettes import Fragments

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class AmodalMasks:
    """Every pixel of every particle within the image, seen or hidden."""

    size_px: int
    pixel: Index
    """(K,) ``row * size_px + column``, by particle and then ascending."""
    offsets: Index
    """(N + 1,): particle ``i`` owns the pixels ``offsets[i]`` to ``offsets[i + 1]``."""

    @property
    def area_px(self) -> Index:
        """(N,) number of pixels."""
        return np.diff(self.offsets)

    def of(self, particle: int) -> Index:
        """Pixels of one particle."""
        return self.pixel[self.offsets[particle] : self.offsets[particle + 1]]


def amodal(fragments: Fragments, instances: NDArray[np.uint16]) -> AmodalMasks:
    """Join what particles cover with what is seen of them.

    Parameters
    ----------
    fragments : Fragments
    instances : (H, W) uint16
        Rendered; id ``i + 1`` is particle ``i``. The two agree but for pixel centres that lie
        on an outline to within rounding; there the rendered image counts.

    Returns
    -------
    AmodalMasks
    """
    ids = instances.ravel()
    known = np.zeros(ids.size, dtype=bool)
    known[fragments.pixel[ids[fragments.pixel] == fragments.particle + 1]] = True
    missing = np.flatnonzero((ids > 0) & ~known)
    pixel, offsets = fragments.pixel, fragments.offsets
    if len(missing):
        particle = np.concatenate([fragments.particle, ids[missing].astype(np.int32) - 1])
        pixel = np.concatenate([pixel, missing])
        pixel = pixel[np.lexsort((pixel, particle))]
        counts = np.bincount(particle, minlength=len(offsets) - 1)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return AmodalMasks(instances.shape[0], pixel, offsets)


def amodal_pages(masks: AmodalMasks, rank: Index) -> NDArray[np.uint16]:
    """Pack masks into label images, so that those of one page never overlap.

    Parameters
    ----------
    masks : AmodalMasks
    rank : (N,) int64
        Of `occlusion.Occlusion`: particles of low rank come first.

    Returns
    -------
    (P, H, W) uint16
        Ids ``i + 1``. Every particle is on the first page with room for it, so that all that
        lies on top is on page 0. At least one page.
    """
    pages = [np.zeros(masks.size_px**2, dtype=np.uint16)]
    for i in np.lexsort((np.arange(len(rank)), rank)).tolist():
        pixels = masks.of(i)
        page = next((page for page in pages if not page[pixels].any()), None)
        if page is None:
            page = np.zeros_like(pages[0])
            pages.append(page)
        page[pixels] = i + 1
    return np.stack(pages).reshape(-1, masks.size_px, masks.size_px)


def amodal_masks(pages: NDArray[np.uint16]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Give the id and the whole mask (H, W) of every particle in pages, by ascending id."""
    found = [(int(i), k) for k, page in enumerate(pages) for i in np.unique(page[page > 0])]
    for i, k in sorted(found):
        yield i, pages[k] == i
