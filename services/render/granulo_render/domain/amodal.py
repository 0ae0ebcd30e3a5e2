# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole masks of particles, hidden parts included, and their storage as pages of labels."""

import math
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


def as_rendered(fragments: Fragments, instances: NDArray[np.uint16]) -> Fragments:
    """Correct fragments where the rendered image says otherwise.

    The two agree but for rounding: about pixel centres that lie on an outline, and about which of
    two surfaces that touch is the upper one. There the image counts.

    Parameters
    ----------
    fragments : Fragments
        Of the whole scene.
    instances : (H, W) uint16
        Rendered; id ``i + 1`` is particle ``i``.

    Returns
    -------
    Fragments
        Without lower surfaces. What is seen is a fragment, and the highest one of its pixel.
    """
    ids = instances.ravel()
    seen = ids[fragments.pixel] == fragments.particle + 1
    known = np.zeros(ids.size, dtype=bool)
    known[fragments.pixel[seen]] = True
    missing = np.flatnonzero((ids > 0) & ~known)
    kept = ~_refuted(fragments, ids, seen)
    other = np.full(ids.size, -np.inf, dtype=np.float32)
    below = kept & ~seen
    np.maximum.at(other, fragments.pixel[below], fragments.top_nm[below])
    above = np.nextafter(other, np.float32(np.inf))
    top = np.where(seen, np.maximum(fragments.top_nm, above[fragments.pixel]), fragments.top_nm)

    particle = np.concatenate([fragments.particle[kept], ids[missing].astype(np.int32) - 1])
    pixel = np.concatenate([fragments.pixel[kept], missing])
    top = np.concatenate([top[kept], above[missing]])
    if len(missing):
        order = np.lexsort((pixel, particle))
        particle, pixel, top = particle[order], pixel[order], top[order]
    counts = np.bincount(particle, minlength=len(fragments.offsets) - 1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Fragments(particle, pixel, top, None, offsets)


def _refuted(
    fragments: Fragments, ids: NDArray[np.uint16], seen: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Fragments on an outline that would be seen if they were there."""
    height = np.where(ids > 0, np.inf, -np.inf)
    height[fragments.pixel[seen]] = fragments.top_nm[seen]
    refuted = ~seen & (fragments.top_nm > height[fragments.pixel])
    doubtful = np.flatnonzero(refuted)
    if len(doubtful):
        keys = fragments.particle * np.int64(ids.size) + fragments.pixel
        inside = np.ones(len(doubtful), dtype=bool)
        width = math.isqrt(ids.size)
        for step in (-1, 1, -width, width):
            beside = keys[doubtful] + step
            at = np.minimum(np.searchsorted(keys, beside), len(keys) - 1)
            inside &= keys[at] == beside
        # Within a mask it is the order of two touching surfaces that rounding has changed.
        refuted[doubtful[inside]] = False
    return refuted


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
