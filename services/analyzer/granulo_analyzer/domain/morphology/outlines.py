# SPDX-License-Identifier: GPL-3.0-or-later
"""Sub-pixel outlines of all particles at once, as linked points.

The raw outline runs through the middles of pixel edges (marching squares at one half). It zigzags
by half a pixel, so that its extremes are too far out and its length is 5 % too long: it is smoothed
along itself. Smoothing cuts corners, and by more than it moves noise: where it moves a point
further than noise does, the point is pushed back out. ``docs/metrics.md`` has the resulting bias.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain.morphology.runs import Floats, Ints

_ROUNDS = 4
"""Of smoothing with (1, 2, 1)/4: a Gaussian of 1.1 px along the outline."""
_MORE_ROUNDS = 8
"""On top, to tell corners from noise by how far they still move."""
_NOISE_PX = 0.3
"""Movement by the further rounds that is noise or a gentle curve."""
_GAIN = 3.0
"""How far a point is pushed back, in units of what the movement exceeds noise by. Both numbers
were chosen on discs, ellipses, rectangles, stadiums and stars of 10 to 60 px."""
_SMALLEST_SMOOTHED = 16
"""Points of an outline; shorter ones (up to about 4 px across) would shrink to nothing."""

# Sides of a pixel, clockwise as seen: top, right, bottom, left.
_MIDDLES = np.array([(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)])


@dataclass(frozen=True)
class Outlines:
    """Closed outlines of all particles, holes included; points are sorted by particle."""

    particle: Ints
    """(p,) index of the particle of every point."""
    first: Ints
    """(n,) index of every particle's first point."""
    pixel: Ints
    """(p,) place of the point's pixel in the flat framed image."""
    side: Ints
    """(p,) on which side of the pixel the raw point lies: 0 top, 1 right, 2 bottom, 3 left."""
    following: Ints
    """(p,) index of the next point, clockwise around the particle."""
    before: Ints
    """(p,) index of the point before."""
    points: Floats
    """(p, 2) x and y of the smoothed outline in pixels; pixel 0 spans 0 to 1."""

    def lengths(self, scale: Floats) -> Floats:
        """(n,) lengths of the smoothed polygons, those of holes included."""
        steps = (self.points[self.following] - self.points) * scale
        sums: Floats = np.add.reduceat(np.hypot(steps[:, 0], steps[:, 1]), self.first)
        return sums


def outlines_of(framed: NDArray[np.int32]) -> Outlines:
    """Trace and smooth the outlines of all particles.

    Parameters
    ----------
    framed : (H + 2, W + 2) int32
        Particles numbered from 1 without gaps, framed by background. Where two pixels of a
        particle meet in a corner only, the outline passes between them.

    Returns
    -------
    Outlines
    """
    width = framed.shape[1]
    flat = framed.ravel()
    keys = _edge_keys(flat, width)
    pixel, side = keys >> 2, keys & 3
    outwards = np.array([-width, 1, width, -1])[side]
    onwards = np.array([1, width, -1, -width])[side]
    own = flat[pixel]
    beside = flat[pixel + onwards] == own
    across = flat[pixel + onwards + outwards] == own
    # Turn right around a corner of the pixel, else go straight on, or left where a pixel bars it.
    following_key = np.where(
        ~beside,
        (pixel << 2) + ((side + 1) & 3),
        np.where(
            ~across,
            ((pixel + onwards) << 2) + side,
            ((pixel + onwards + outwards) << 2) + ((side + 3) & 3),
        ),
    )
    following = np.searchsorted(keys, following_key)
    order = np.argsort(own, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    following = place[following[order]]
    before = np.empty_like(following)
    before[following] = np.arange(len(following))
    pixel, side, particle = pixel[order], side[order], own[order].astype(np.int64) - 1
    raw = np.stack((pixel % width - 1, pixel // width - 1), axis=1) + _MIDDLES[side]
    first = np.flatnonzero(np.diff(particle, prepend=-1))
    return Outlines(
        particle=particle,
        first=first,
        pixel=pixel,
        side=side,
        following=following,
        before=before,
        points=_smoothed(raw, particle, first, following, before),
    )


def _edge_keys(flat: NDArray[np.int32], width: int) -> Ints:
    """(p,) 4·pixel + side of every pixel edge between a particle and something else, rising."""
    beside = np.flatnonzero(flat[1:] != flat[:-1])
    below = np.flatnonzero(flat[width:] != flat[:-width])
    places = ((below + width, 0), (beside, 1), (below, 2), (beside + 1, 3))
    keys = [(pixel[flat[pixel] > 0] << 2) + side for pixel, side in places]
    return np.sort(np.concatenate(keys))


def _smoothed(raw: Floats, particle: Ints, first: Ints, following: Ints, before: Ints) -> Floats:
    smooth = _rounds(raw, following, before, _ROUNDS)
    moved = smooth - _rounds(smooth, following, before, _MORE_ROUNDS)
    distance = np.hypot(moved[:, 0], moved[:, 1])
    excess = np.maximum(distance - _NOISE_PX, 0.0) / np.maximum(distance, _NOISE_PX)
    points = smooth + (_GAIN * excess)[:, None] * moved
    # An upright corner would be pushed beyond the edges that meet in it, which are sure.
    low, high = (pick.reduceat(raw, first, axis=0)[particle] for pick in (np.minimum, np.maximum))
    points = np.clip(points, low, high)
    short = _in_short_loops(following)
    return np.where(short[:, None], raw, points)


def _rounds(points: Floats, following: Ints, before: Ints, rounds: int) -> Floats:
    x, y = points.T.copy()
    for _ in range(rounds):
        x, y = ((v[before] + 2 * v + v[following]) / 4 for v in (x, y))
    return np.stack((x, y), axis=1)


def _in_short_loops(following: Ints) -> NDArray[Any]:
    own = np.arange(len(following))
    short = np.zeros(len(following), dtype=np.bool_)
    at = following
    # The shortest outline, that of one pixel, has four points; all have an even number.
    for _ in range(1, _SMALLEST_SMOOTHED - 1):
        at = following[at]
        short |= at == own
    return short
