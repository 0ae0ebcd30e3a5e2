# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiles of an image, and the one map that their outputs make again.

Every pixel has exactly one tile that is responsible for it. A tile also sees a margin around its
own part, which is thrown away: the result depends on the tiling only as far as the network looks
beyond the margin. Tiles begin at multiples of the network's stride, because pooling would shift its
grid otherwise. Beyond the image's edges lies its mirror image.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_segmenter.domain.planes import Plane, Window


@dataclass(frozen=True)
class Tile:
    """One tile's own part of the image; what it sees is larger by the margin on every side."""

    row: int
    column: int


@dataclass(frozen=True)
class TilePlan:
    """How an image is cut; all tiles have one size."""

    height: int
    width: int
    margin: int
    """Pixels around a tile's own part."""
    part_height: int
    part_width: int
    tiles: tuple[Tile, ...]

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Height and width of what goes to the network."""
        return self.part_height + 2 * self.margin, self.part_width + 2 * self.margin


def plan_tiles(height: int, width: int, *, tile_px: int, overlap_px: int, stride: int) -> TilePlan:
    """Cut an image into tiles of one size, as few and as small as possible.

    Parameters
    ----------
    height, width : int
        Of the image.
    tile_px : int
        Largest side of a tile.
    overlap_px : int
        By how much neighbouring tiles overlap, rounded up to two strides' multiples: half of it is
        each one's margin.
    stride : int
        The network's; tile sides are multiples of it.

    Returns
    -------
    TilePlan

    Raises
    ------
    ValueError
        When the overlap leaves no room for a tile's own part.
    """
    margin = _round_up(math.ceil(overlap_px / 2), stride)
    room = tile_px // stride * stride - 2 * margin
    if room < stride:
        raise ValueError(
            f"tile_px {tile_px} is too small for an overlap of {overlap_px} at stride {stride}; at "
            f"least {2 * margin + stride} is needed"
        )
    part_height, rows = _divide(height, room, stride)
    part_width, columns = _divide(width, room, stride)
    tiles = tuple(
        Tile(row * part_height, column * part_width)
        for row in range(rows)
        for column in range(columns)
    )
    return TilePlan(height, width, margin, part_height, part_width, tiles)


def cut_tiles(image: Plane, plan: TilePlan) -> Iterator[NDArray[Any]]:
    """Yield what the network sees of every tile, in the plan's order.

    Parameters
    ----------
    image : Plane
    plan : TilePlan
        Of an image of this size.

    Yields
    ------
    (tile height, tile width)
    """
    for tile in plan.tiles:
        rows = mirrored(tile.row - plan.margin, plan.tile_shape[0], plan.height)
        columns = mirrored(tile.column - plan.margin, plan.tile_shape[1], plan.width)
        top, left = int(rows.min()), int(columns.min())
        seen = image.read(Window(top, int(rows.max()) + 1, left, int(columns.max()) + 1))
        # Not by the shape: what is all mirrored has it too, the wrong way round.
        if not (_is_ascending(rows) and _is_ascending(columns)):
            seen = seen[np.ix_(rows - top, columns - left)]
        yield np.ascontiguousarray(seen)


def store_tiles(
    plan: TilePlan,
    outputs: Iterable[Mapping[str, NDArray[Any]]],
    planes: Mapping[str, Plane],
    on_tile: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Put the tiles' own parts together.

    Parameters
    ----------
    plan : TilePlan
    outputs : iterable of mappings
        One a tile, in the plan's order; maps of the tile's size by name.
    planes : mapping of str to Plane
        Of the image's size; where the maps go.
    on_tile : callable
        Told how many tiles are done, and of how many.
    """
    margin = plan.margin
    for number, (tile, output) in enumerate(zip(plan.tiles, outputs, strict=True), start=1):
        own = Window(
            tile.row,
            min(plan.height, tile.row + plan.part_height),
            tile.column,
            min(plan.width, tile.column + plan.part_width),
        )
        rows, columns = own.shape
        for name, plane in planes.items():
            plane.write(own, output[name][margin : margin + rows, margin : margin + columns])
        on_tile(number, len(plan.tiles))


def mirrored(first: int, count: int, length: int) -> NDArray[np.int64]:
    """Indices of ``count`` pixels from ``first`` on, mirrored at the ends of the image."""
    if length == 1:
        return np.zeros(count, dtype=np.int64)
    place = np.arange(first, first + count) % (2 * length - 2)
    return np.minimum(place, 2 * length - 2 - place)


def _is_ascending(places: NDArray[np.int64]) -> bool:
    """Whether mirrored indices, which go up or down by one, only go up."""
    return int(places[-1] - places[0]) == len(places) - 1


def _divide(length: int, room: int, stride: int) -> tuple[int, int]:
    """Size of equal parts that are multiples of the stride, and how many cover the length."""
    count = math.ceil(length / room)
    part = _round_up(math.ceil(length / count), stride)
    return part, math.ceil(length / part)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
