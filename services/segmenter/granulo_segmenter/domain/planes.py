# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that are read and written in windows, because they may be larger than memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True)
class Window:
    """A rectangle of an image, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """What to index an array with."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grown(self, margin_px: int, shape: tuple[int, int]) -> "Window":
        """Larger on every side, as far as an image of ``shape`` reaches."""
        return Window(
            max(0, self.top - margin_px),
            min(shape[0], self.bottom + margin_px),
            max(0, self.left - margin_px),
            min(shape[1], self.right + margin_px),
        )

    def shifted(self, rows: int, columns: int) -> "Window":
        """As large, but elsewhere."""
        return Window(
            self.top + rows, self.bottom + rows, self.left + columns, self.right + columns
        )

    def shared(self, other: "Window") -> "Window | None":
        """What lies in both, if anything does."""
        top, bottom = max(self.top, other.top), min(self.bottom, other.bottom)
        left, right = max(self.left, other.left), min(self.right, other.right)
        return Window(top, bottom, left, right) if top < bottom and left < right else None

    def within(self, outer: "Window") -> "Window":
        """The same place, counted from the upper left corner of ``outer``."""
        return self.shifted(-outer.top, -outer.left)


class Plane(Protocol):
    """One number a pixel, in memory or elsewhere."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""

    def read(self, window: Window) -> NDArray[Any]:
        """The numbers of a window; not to be written to."""

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Replace the numbers of a window."""


MakePlane = Callable[[tuple[int, int], DTypeLike], Plane]
"""Makes a plane of zeros of a shape and a type."""


class ArrayPlane:
    """A plane in memory.

    Parameters
    ----------
    array : (H, W)
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    @classmethod
    def zeros(cls, shape: tuple[int, int], dtype: DTypeLike) -> "ArrayPlane":
        """A new plane; see `MakePlane`."""
        return cls(np.zeros(shape, dtype))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.array.shape
        return height, width

    def read(self, window: Window) -> NDArray[Any]:
        """A view of a window."""
        return self.array[window.slices]

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Replace the numbers of a window."""
        self.array[window.slices] = values


def whole(shape: tuple[int, int]) -> Window:
    """The window that shows everything."""
    return Window(0, shape[0], 0, shape[1])


def blocks(shape: tuple[int, int], side_px: int) -> Iterator[Window]:
    """Cut an image into squares, smaller ones at its lower and right ends, row by row."""
    for top in range(0, shape[0], side_px):
        for left in range(0, shape[1], side_px):
            yield Window(top, min(shape[0], top + side_px), left, min(shape[1], left + side_px))
