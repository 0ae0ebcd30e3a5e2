# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiles of an image, and the one map that their outputs make again.

Every pixel has exactly one tile that is responsible for it. A tile also sees a margin around its
own part, which is thrown away: the result depends on the tiling only as far as the network looks
beyond the margin. Tiles begin at multiples of the network's stride, because pooling would shift its
grid otherwise. Beyond the image's edges lies its mirror image.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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


def cut_tiles(image: NDArray[Any], plan: TilePlan) -> Iterator[NDArray[Any]]:
    """Yield what the network sees of every tile, in the plan's order.

    Parameters
    ----------
    image : (H, W)
    plan : TilePlan
        Of an image of this size.

    Yields
    ------
    (tile height, tile width)
    """
    bottom = max(tile.row for tile in plan.tiles) + plan.part_height - plan.height
    right = max(tile.column for tile in plan.tiles) + plan.part_width - plan.width
    margin = plan.margin
    padded = np.pad(image, ((margin, margin + bottom), (margin, margin + right)), mode="reflect")
    height, width = plan.tile_shape
    for tile in plan.tiles:
        yield np.ascontiguousarray(
            padded[tile.row : tile.row + height, tile.column : tile.column + width]
        )


def assemble(
    plan: TilePlan, outputs: Iterable[Mapping[str, NDArray[Any]]], names: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Put the tiles' own parts together.

    Parameters
    ----------
    plan : TilePlan
    outputs : iterable of mappings
        One a tile, in the plan's order; maps of the tile's size by name.
    names : sequence of str
        Which maps to assemble.

    Returns
    -------
    dict of str to (H, W) float32
    """
    maps = {name: np.zeros((plan.height, plan.width), dtype=np.float32) for name in names}
    margin = plan.margin
    for tile, output in zip(plan.tiles, outputs, strict=True):
        for name, target in maps.items():
            window = target[
                tile.row : tile.row + plan.part_height, tile.column : tile.column + plan.part_width
            ]
            rows, columns = window.shape
            window[:] = output[name][margin : margin + rows, margin : margin + columns]
    return maps


def _divide(length: int, room: int, stride: int) -> tuple[int, int]:
    """Size of equal parts that are multiples of the stride, and how many cover the length."""
    count = math.ceil(length / room)
    part = _round_up(math.ceil(length / count), stride)
    return part, math.ceil(length / part)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
