# SPDX-License-Identifier: GPL-3.0-or-later
"""Which particle hides which, by how much, and the order in which they lie."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from granulo_render.domain.silhouettes import Fragments

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Occlusion:
    """Pairs of particles that overlap in the image, sorted by ``over`` and then ``under``."""

    over: Index
    """(P,) index of the upper particle."""
    under: Index
    """(P,) index of the lower particle."""
    hidden_px: Index
    """(P,) pixels at which ``over`` lies above ``under``. Two particles that are wound around each
    other are two pairs."""
    rank: Index
    """(N,) 0 for particles above which nothing lies, else one more than the highest rank of the
    particles above."""


def occlusion(fragments: Fragments, height_nm: NDArray[np.float64]) -> Occlusion:
    """Order particles by their heights in the pixels that they share.

    Parameters
    ----------
    fragments : Fragments
    height_nm : (N,) float64
        Height of the centroids along the camera's axis.

    Returns
    -------
    Occlusion
        In a pixel the particle whose upper surface is higher lies above; of equally high ones
        that with the lower index. For the ranks, a pair is ordered by the larger number of
        pixels. Where particles lie above each other in a ring, the one among those left that has
        the highest centroid is taken as if nothing lay above it.
    """
    count = len(height_nm)
    over, under, hidden = _pairs(fragments, count)
    return Occlusion(over, under, hidden, _ranks(over, under, hidden, height_nm))


def _pairs(fragments: Fragments, count: int) -> tuple[Index, Index, Index]:
    # Most pixels show one particle only, which takes part in no pair.
    shared = np.flatnonzero(np.bincount(fragments.pixel)[fragments.pixel] > 1)
    pixel, particle = fragments.pixel[shared], fragments.particle[shared].astype(np.int64)
    order = np.lexsort((particle, -fragments.top_nm[shared], pixel))
    pixel, particle = pixel[order], particle[order]
    keys, hidden = pixel[:0], pixel[:0]
    for lag in range(1, len(pixel)):
        upper = np.flatnonzero(pixel[lag:] == pixel[:-lag])
        if not len(upper):
            break
        keys, hidden = _added(keys, hidden, particle[upper] * count + particle[upper + lag])
    over, under = np.divmod(keys, max(count, 1))
    return over, under, hidden


def _added(keys: Index, counts: Index, more: Index) -> tuple[Index, Index]:
    """Count ``more`` keys into sorted ones."""
    found, times = np.unique(more, return_counts=True)
    every, place = np.unique(np.concatenate([keys, found]), return_inverse=True)
    total = np.zeros(len(every), dtype=np.int64)
    np.add.at(total, place, np.concatenate([counts, times]))
    return every, total


def _ranks(over: Index, under: Index, hidden: Index, height_nm: NDArray[np.float64]) -> Index:
    count = len(height_nm)
    over, under = _decided(over, under, hidden, count)
    above = np.bincount(under, minlength=count)
    starts = np.searchsorted(over, np.arange(count + 1))
    rank = np.full(count, -1, dtype=np.int64)
    left, level = count, 0
    free = np.flatnonzero(above == 0)
    while left:
        if not len(free):
            rest = np.flatnonzero(rank < 0)
            free = rest[[int(np.argmax(height_nm[rest]))]]
        rank[free] = level
        left -= len(free)
        below = np.concatenate([under[starts[i] : starts[i + 1]] for i in free.tolist()])
        np.subtract.at(above, below, 1)
        candidates = np.unique(below)
        free = candidates[(above[candidates] == 0) & (rank[candidates] < 0)]
        level += 1
    return rank


def _decided(over: Index, under: Index, hidden: Index, count: int) -> tuple[Index, Index]:
    """Keep of two opposite pairs the one with more pixels, or with the lower index on top."""
    keys, opposite = over * count + under, under * count + over
    at = np.minimum(np.searchsorted(keys, opposite), max(len(keys) - 1, 0))
    both = keys[at] == opposite if len(keys) else np.zeros(0, dtype=bool)
    other = np.where(both, hidden[at], 0) if len(keys) else hidden
    kept = (hidden > other) | (both & (hidden == other) & (over < under))
    return over[kept], under[kept]
