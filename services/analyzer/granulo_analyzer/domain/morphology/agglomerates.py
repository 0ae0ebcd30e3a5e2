# SPDX-License-Identifier: GPL-3.0-or-later
"""Which particles hang together, and how ragged the wholes are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from granulo_analyzer.domain.morphology.outlines import Outlines
from granulo_analyzer.domain.morphology.runs import Floats, Ints, Runs

GAP_PX = 1.0
"""Particles with at most so many pixels of background between them count as touching: networks
and watersheds leave such a line between particles that touch."""

_DIAGONAL_PX = 1.5
"""Reach, from pixel centre to pixel centre, of pixels that meet in an edge or a corner."""
_MIN_BOX_SIZES = 3
_BOXES_ACROSS = 4
"""A box may be a quarter of the agglomerate's longer side."""


@dataclass(frozen=True)
class Agglomerates:
    """Groups of touching particles; one that touches no other is a group of its own."""

    number: Ints
    """(n,) agglomerate of every particle, from 1, in the order of their lowest labels."""
    constituents: Ints
    """(n,) particles in it."""


def agglomerates_of(
    framed: NDArray[np.int32], outlines: Outlines, count: int, gap_px: float
) -> Agglomerates:
    """Group particles that touch or are nearly so.

    Parameters
    ----------
    framed : (H + 2, W + 2) int32
    outlines : Outlines
    count : int
        Number of particles.
    gap_px : float
        Widest gap between outlines that still counts as touching; 0: a shared edge or corner.

    Returns
    -------
    Agglomerates
    """
    height, width = framed.shape
    pixel = np.unique(outlines.pixel)
    row, column = np.divmod(pixel, width)
    own = framed.ravel()[pixel]
    reach = gap_px + _DIAGONAL_PX
    pairs = []
    # Half of the directions: the others are the same pairs seen from the other side.
    for dy in range(int(reach) + 1):
        for dx in range(-int(reach) if dy else 1, int(reach) + 1):
            if np.hypot(dx, dy) > reach:
                continue
            inside = (row + dy < height) & (column + dx >= 0) & (column + dx < width)
            other = framed[row[inside] + dy, column[inside] + dx]
            meet = (other > 0) & (other != own[inside])
            pairs.append(np.stack((own[inside][meet], other[meet])).astype(np.int64) - 1)
    one, other = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(one), dtype=np.bool_), (one, other)), shape=(count, count))
    _, group = connected_components(graph, directed=False)
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(1, len(first) + 1)
    number = rank[inverse]
    return Agglomerates(number, np.bincount(number)[number])


def fractal_dimensions(runs: Runs, agglomerates: Agglomerates) -> Floats:
    """(n,) box-counting dimensions of the agglomerates' silhouettes.

    The number of square boxes that cover the silhouette falls with their side s as s^-D; D is the
    slope of the logarithms over the sides 1, 2, 4, … px up to a quarter of the agglomerate's longer
    side. NaN below three sides: what is smaller than 16 px has no slope to speak of.
    """
    groups = int(agglomerates.number.max())
    longest = _longer_sides(runs.box(), agglomerates.number, groups)
    sizes = 1 + np.floor(np.log2(np.maximum(longest / _BOXES_ACROSS, 1.0))).astype(np.int64)
    counts = _box_counts(runs, agglomerates.number, groups, int(sizes.max()))
    used = np.arange(len(counts)) < sizes[:, None]
    x = np.where(used, np.arange(len(counts)) * np.log(2), 0.0)
    x -= np.where(used, x.sum(axis=1, keepdims=True) / sizes[:, None], 0.0)
    spread = np.where(sizes >= _MIN_BOX_SIZES, (x**2).sum(axis=1), np.nan)
    slope: Floats = (x * np.log(np.stack(counts, axis=1))).sum(axis=1) / spread
    dimension: Floats = -slope[agglomerates.number - 1]
    return dimension


def _longer_sides(box: Ints, number: Ints, groups: int) -> Ints:
    order = np.argsort(number, kind="stable")
    first = np.searchsorted(number[order], np.arange(1, groups + 1))
    low = np.minimum.reduceat(box[order, :2], first)
    high = np.maximum.reduceat(box[order, 2:], first)
    longer: Ints = (high - low).max(axis=1)
    return longer


def _box_counts(runs: Runs, number: Ints, groups: int, sizes: int) -> list[Ints]:
    """(groups,) boxes that every group covers, for the sides 1, 2, 4, … px."""
    group = number[runs.particle] - 1
    row, start, end = runs.row, runs.start, runs.start + runs.length - 1
    found = []
    for _ in range(sizes):
        order = np.lexsort((start, row, group))
        group, row, start, end = (values[order] for values in (group, row, start, end))
        # A stretch counts from where those before it in its row of boxes have ended.
        line = np.cumsum((np.diff(group, prepend=-1) != 0) | (np.diff(row, prepend=-1) != 0))
        offset = line * (int(end.max()) + 2)
        reached = np.maximum.accumulate(end + offset)
        before = np.append(-1, reached[:-1])
        new = np.maximum(end + offset - np.maximum(before, start + offset - 1), 0)
        found.append(np.bincount(group, new, minlength=groups).astype(np.int64))
        kept = new > 0
        group, row, start, end = group[kept], row[kept] // 2, start[kept] // 2, end[kept] // 2
    return found
