# SPDX-License-Identifier: GPL-3.0-or-later
"""The network's outputs for a whole image, tile by tile, at the scale that it likes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_segmenter.domain.planes import MakePlane, Plane, Window, blocks
from granulo_segmenter.domain.tiling import TilePlan, cut_tiles, store_tiles

PredictTiles = Callable[
    [Iterable[NDArray[np.uint8]], Sequence[str]], Iterator[Mapping[str, NDArray[Any]]]
]
"""Takes tiles and the names of wanted outputs, yields each tile's outputs in order."""

_STEPS = 16
"""Scales are multiples of one part of this many, so that blocks are rescaled as the whole is."""
_RESCALED_PX = 2048
_CUBIC_PX = 4
_MIRRORS: tuple[tuple[slice, slice], ...] = tuple(
    (slice(None, None, down), slice(None, None, across)) for down in (1, -1) for across in (1, -1)
)


@dataclass(frozen=True)
class Maps:
    """Outputs of the network, read at the image's own scale."""

    planes: Mapping[str, Plane]
    """float16, at the network's scale."""
    shape: tuple[int, int]
    """Of the image."""
    scale: Fraction = Fraction(1)
    """Pixels of the network for one of the image."""
    beside: "Maps | None" = None
    """At another scale, to be averaged with."""

    def read(self, name: str, window: Window) -> NDArray[np.float32]:
        """One output of a window of the image.

        Parameters
        ----------
        name : str
        window : Window

        Returns
        -------
        (h, w) float32
        """
        own = self._own(name, window)
        if self.beside is not None:
            own += self.beside.read(name, window)
            own *= np.float32(0.5)
        return own

    def _own(self, name: str, window: Window) -> NDArray[np.float32]:
        plane = self.planes[name]
        if self.scale == 1:
            return plane.read(window).astype(np.float32)
        up, down = self.scale.numerator, self.scale.denominator
        # One unit more on every side: interpolation looks there.
        outer = _aligned(window.grown(down, self.shape), down)
        found = plane.read(_times(outer, self.scale)).astype(np.float32)
        height, width = outer.shape
        how = cv2.INTER_LINEAR if up < down else cv2.INTER_AREA
        resized = cv2.resize(found, (width, height), interpolation=how)
        return np.asarray(resized[window.within(outer).slices], dtype=np.float32)


def predict(
    image: Plane,
    plan: TilePlan,
    predict_tiles: PredictTiles,
    names: Sequence[str],
    make_plane: MakePlane,
    *,
    flips: bool = False,
    on_tile: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Plane]:
    """Predict an image.

    Parameters
    ----------
    image : Plane
        uint8, as the network takes it.
    plan : TilePlan
    predict_tiles : callable
    names : sequence of str
        Wanted outputs.
    make_plane : callable
    flips : bool
        Average over the four mirror images.
    on_tile : callable
        Told how many tiles are done, and of how many.

    Returns
    -------
    dict of str to Plane
        float16, of the image's size.
    """
    planes = {name: make_plane(image.shape, np.float16) for name in names}
    # Mirroring a tile keeps its size, and so the network's grid.
    mirrors = _MIRRORS if flips else _MIRRORS[:1]
    tiles = (
        np.ascontiguousarray(tile[mirror]) for tile in cut_tiles(image, plan) for mirror in mirrors
    )
    outputs = _averaged(predict_tiles(tiles, names), names, mirrors)
    store_tiles(plan, outputs, planes, on_tile)
    return planes


def fitting(scale: float) -> Fraction:
    """The nearest scale that blocks can be brought to."""
    return Fraction(max(1, round(scale * _STEPS)), _STEPS)


def rescaled(image: Plane, scale: Fraction, make_plane: MakePlane) -> Plane:
    """An image at another scale; its sides are rounded up to the scale's denominator first."""
    up, down = scale.numerator, scale.denominator
    units = [-(-side // down) for side in image.shape]
    result = make_plane((units[0] * up, units[1] * up), np.uint8)
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    margin = -(-_CUBIC_PX // down) * down if scale > 1 else 0
    padded = units[0] * down, units[1] * down
    for block in blocks(padded, _RESCALED_PX // down * down):
        outer = block.grown(margin, padded)
        inner = Window(
            outer.top, min(outer.bottom, image.shape[0]),
            outer.left, min(outer.right, image.shape[1]),
        )  # fmt: skip
        part = image.read(inner)
        bottom, right = outer.bottom - inner.bottom, outer.right - inner.right
        if bottom or right:
            part = cv2.copyMakeBorder(part, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        target = _times(outer, scale)
        height, width = target.shape
        resized = cv2.resize(part, (width, height), interpolation=how)
        own = _times(block, scale)
        result.write(own, resized[own.within(target).slices])
    return result


def _averaged(
    outputs: Iterator[Mapping[str, NDArray[Any]]],
    names: Sequence[str],
    mirrors: Sequence[tuple[slice, slice]],
) -> Iterator[Mapping[str, NDArray[Any]]]:
    if len(mirrors) == 1:
        yield from outputs
        return
    while (first := next(outputs, None)) is not None:
        total = {name: first[name].astype(np.float32) for name in names}
        for mirror in mirrors[1:]:
            found = next(outputs)
            for name in names:
                total[name] += found[name][mirror]
        yield {name: total[name] / len(mirrors) for name in names}


def _aligned(window: Window, unit: int) -> Window:
    return Window(
        window.top // unit * unit, -(-window.bottom // unit) * unit,
        window.left // unit * unit, -(-window.right // unit) * unit,
    )  # fmt: skip


def _times(window: Window, scale: Fraction) -> Window:
    return Window(
        int(window.top * scale), int(window.bottom * scale),
        int(window.left * scale), int(window.right * scale),
    )  # fmt: skip
