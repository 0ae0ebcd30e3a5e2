# SPDX-License-Identifier: GPL-3.0-or-later
"""Length along a particle and width across it, for what is bent or branched."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from skimage.morphology import skeletonize

from granulo_analyzer.domain.morphology.outlines import Outlines
from granulo_analyzer.domain.morphology.runs import Floats, Ints

STRAIGHT_SOLIDITY = 0.95
"""From here on the longest way within a particle is as good as its maximum Feret diameter: a bent
fibre of this solidity is 0.5 % longer than its chord."""

_SMOOTHING_ROUNDS = 8
"""With (1, 2, 1)/4; a digital line is up to 8 % longer than the line it stands for."""
_DIRECTION_POINTS = 6
"""Along the medial line, to tell in which direction it ends."""
_STEP_PX = 0.25


@dataclass(frozen=True)
class _Graph:
    """The pixels of all skeletons, linked with their neighbours of the same particle."""

    pixel: Ints
    """(s,) places in the flat framed image."""
    particle: Ints
    """(s,) numbers from 1."""
    points: Floats
    """(s, 2) x and y in pixels of the framed image."""
    links: csr_array


def geodesic_lengths(
    framed: NDArray[np.int32],
    outlines: Outlines,
    bent: NDArray[np.bool_],
    scale: Floats,
) -> Floats:
    """Lengths of the longest paths along the medial lines, from tip to tip.

    Parameters
    ----------
    framed : (H + 2, W + 2) int32
        Particles numbered from 1 without gaps, framed by background.
    outlines : Outlines
    bent : (n,) bool
        Particles to measure.
    scale : (2,) float64
        Width and height of a pixel.

    Returns
    -------
    (n,) float64
        In the unit of the scale; 0 where it was not asked for or no medial line is left.
    """
    count = len(bent)
    lengths = np.zeros(count)
    graph = _skeletons(framed, outlines, bent, scale)
    if not len(graph.pixel):
        return lengths
    # The furthest node from any node is an end of the longest path of a tree (Bulterman 2002).
    _, component = connected_components(graph.links, directed=False)
    _, start = np.unique(component, return_index=True)
    end = _furthest(graph, component, start)[0]
    other, previous, way = _furthest(graph, component, end)
    # Of a particle in pieces the longest piece counts.
    order = np.lexsort((way, graph.particle[end]))
    last = np.flatnonzero(np.diff(graph.particle[end][order], append=count + 1))
    chosen = order[last]
    number = graph.particle[end[chosen]]
    path = _paths(graph.points, previous, other[chosen])
    lengths[number - 1] = path.lengths(scale)
    for tip, direction in path.ends():
        lengths[number - 1] += _reach(framed, number, tip, direction, scale)
    return lengths


def fibre_widths(area: Floats, length: Floats) -> Floats:
    """(n,) widths of the stadiums, straight or bent, of this area and length.

    A band of constant width w and round ends along a line, L from tip to tip, has the area
    w·(L - w) + π·w²/4 (Steiner's formula), whether the line is bent or not. A disc is the stadium
    of w = L.
    """
    bow = 1 - np.pi / 4
    root = np.sqrt(np.maximum(length**2 - 4 * bow * area, 0.0))
    widths: Floats = 2 * area / (length + root)
    return np.minimum(widths, length)


def _skeletons(
    framed: NDArray[np.int32], outlines: Outlines, bent: NDArray[np.bool_], scale: Floats
) -> _Graph:
    width = framed.shape[1]
    wanted = np.concatenate(([False], bent))[framed]
    # A line of background keeps touching particles apart.
    beyond = outlines.pixel + np.array([-width, 1, width, -1])[outlines.side]
    wanted.ravel()[outlines.pixel[framed.ravel()[beyond] > 0]] = False
    skeleton = skeletonize(wanted) if wanted.any() else wanted
    pixel = np.flatnonzero(skeleton)
    particle = framed.ravel()[pixel].astype(np.int64)
    points = np.stack((pixel % width, pixel // width), axis=1).astype(np.float64)
    rows, columns = [], []
    for step in (1, width - 1, width, width + 1):
        beside = np.searchsorted(pixel, pixel + step)
        beside[beside == len(pixel)] = 0
        linked = (pixel[beside] == pixel + step) & (particle[beside] == particle)
        rows.append(np.flatnonzero(linked))
        columns.append(beside[linked])
    row, column = np.concatenate(rows), np.concatenate(columns)
    weight = np.hypot(*((points[row] - points[column]) * scale).T)
    links = csr_array((weight, (row, column)), shape=(len(pixel), len(pixel)))
    return _Graph(pixel, particle, points, links)


def _furthest(
    graph: _Graph, component: NDArray[np.int32], start: Ints
) -> tuple[Ints, Ints, Floats]:
    """Furthest node of every component from its start, all previous nodes, and the distance."""
    distance, previous, _ = dijkstra(
        graph.links, directed=False, indices=start, min_only=True, return_predecessors=True
    )
    order = np.lexsort((distance, component))
    end = order[np.flatnonzero(np.diff(component[order], append=-1))]
    return end, previous.astype(np.int64), distance[end]


@dataclass(frozen=True)
class _Paths:
    """Smoothed paths, one after the other, of at least one point each."""

    points: Floats
    """(m, 2) x and y in pixels of the framed image."""
    first: Ints
    """(k,) where every path begins."""

    def lengths(self, scale: Floats) -> Floats:
        """(k,) in the unit of the scale."""
        steps = np.hypot(*(np.diff(self.points, axis=0, append=self.points[-1:]) * scale).T)
        steps[np.append(self.first[1:], len(steps)) - 1] = 0.0
        lengths: Floats = np.add.reduceat(steps, self.first)
        return lengths

    def ends(self) -> Iterator[tuple[Floats, Floats]]:
        """Give the first points of all paths and their directions outwards, then the last ones."""
        last = np.append(self.first[1:], len(self.points)) - 1
        for tip, inwards in (
            (self.first, np.minimum(self.first + _DIRECTION_POINTS, last)),
            (last, np.maximum(last - _DIRECTION_POINTS, self.first)),
        ):
            direction = self.points[tip] - self.points[inwards]
            norm = np.hypot(direction[:, 0], direction[:, 1])
            yield self.points[tip], direction / np.where(norm == 0, 1.0, norm)[:, None]


def _paths(points: Floats, previous: Ints, ends: Ints) -> _Paths:
    """The paths that lead from every end back to its start."""
    at, owner = ends, np.arange(len(ends))
    nodes, owners = [], []
    while len(at):
        nodes.append(at)
        owners.append(owner)
        onwards = previous[at] >= 0
        at, owner = previous[at[onwards]], owner[onwards]
    node, owner = np.concatenate(nodes), np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    path, owner = points[node[order]], owner[order]
    inner = np.zeros(len(path), dtype=np.bool_)
    inner[1:-1] = (owner[1:-1] == owner[:-2]) & (owner[1:-1] == owner[2:])
    place = np.flatnonzero(inner)
    for _ in range(_SMOOTHING_ROUNDS):
        path[place] = (path[place - 1] + 2 * path[place] + path[place + 1]) / 4
    return _Paths(path, np.flatnonzero(np.diff(owner, prepend=-1)))


def _reach(
    framed: NDArray[np.int32], number: Ints, tip: Floats, direction: Floats, scale: Floats
) -> Floats:
    """(k,) how far it is from a point to the outline of its particle, in the unit of the scale."""
    steps = np.zeros(len(tip))
    going = np.hypot(direction[:, 0], direction[:, 1]) > 0
    while going.any():
        column, row = np.rint(tip + (steps + _STEP_PX)[:, None] * direction).astype(np.int64).T
        going &= framed[row, column] == number
        steps[going] += _STEP_PX
    # The outline lies somewhere within the last step.
    reach: Floats = (steps + _STEP_PX / 2) * np.hypot(*(direction * scale).T)
    return reach
