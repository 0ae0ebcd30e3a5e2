# SPDX-License-Identifier: GPL-3.0-or-later
"""Micrographs without what was burned into them: the network sees what the ink may have covered.

A letter on a particle cuts it into pieces, and a bright one is taken for a particle itself. Both
end when the ink is painted over from its surroundings before the network looks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.lettering import writing
from granulo_core.imaging.normalise import to_grey
from granulo_segmenter.domain.planes import Plane, Window, blocks

_BLOCK_PX = 4096
"""Writing is looked for in squares of this side, each by itself."""
_EDGE_PX = 2
"""The blurred edge of a letter is the letter's."""
_BOX_EDGE_PX = 4
"""That of a box, which is much longer, with what sharpening and compression leave beside it."""
_AROUND_PX = 8
_RADIUS_PX = 3


@dataclass(frozen=True, eq=False)
class Ink:
    """Writing in one window."""

    window: Window
    mask: NDArray[np.bool_]
    """(h, w) of the window."""
    hides: bool
    """Whether so much is covered that nothing is known of it."""

    def cropped(self, window: Window) -> "Ink | None":
        """What of it lies in a window of the same image."""
        shared = self.window.shared(window)
        if shared is None:
            return None
        return Ink(shared, self.mask[shared.within(self.window).slices], self.hides)


def find_ink(content: Plane) -> list[Ink]:
    """Find burned-in writing.

    Parameters
    ----------
    content : Plane
        Grey levels as they are in the file.

    Returns
    -------
    list of Ink
        One for each place; windows reach some pixels beyond the ink and may overlap.
    """
    found = []
    for block in blocks(content.shape, _BLOCK_PX):
        drawn = writing(to_grey(content.read(block)))
        for mask, hides, edge_px in (
            (drawn.ink & ~drawn.boxes, False, _EDGE_PX),
            (drawn.boxes, True, _BOX_EDGE_PX),
        ):
            if mask.any():
                found += [
                    Ink(place.shifted(block.top, block.left), own, hides)
                    for place, own in _places(mask, edge_px)
                ]
    return found


def _places(drawn: NDArray[np.bool_], edge_px: int) -> Iterator[tuple[Window, NDArray[np.bool_]]]:
    """Ink with its edges, of letters that are near one another."""
    wide = cv2.dilate(drawn.astype(np.uint8), np.ones((2 * edge_px + 1,) * 2, np.uint8))
    near = cv2.dilate(wide, np.ones((2 * _AROUND_PX + 1,) * 2, np.uint8))
    count, numbers, boxes, _ = cv2.connectedComponentsWithStats(near, connectivity=8)
    for number in range(1, count):
        left, top, width, height = (int(value) for value in boxes[number, :4])
        window = Window(top, top + height, left, left + width)
        yield window, (wide[window.slices] > 0) & (numbers[window.slices] == number)


class PaintedOver:
    """A plane to be read, without its ink.

    Parameters
    ----------
    content : Plane
    ink : sequence of Ink
    """

    def __init__(self, content: Plane, ink: Sequence[Ink]) -> None:
        self._content = content
        self._patches = [(one, _painted(content.read(one.window), one.mask)) for one in ink]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self._content.shape

    def read(self, window: Window) -> NDArray[Any]:
        """The numbers of a window."""
        values = self._content.read(window)
        shared = [(one.cropped(window), one.window, patch) for one, patch in self._patches]
        if any(part for part, _, _ in shared):
            values = values.copy()
        for part, place, patch in shared:
            if part:
                here, there = part.window.within(window), part.window.within(place)
                values[here.slices][part.mask] = patch[there.slices][part.mask]
        return values

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Refuse."""
        raise TypeError("a micrograph is not written to")


def _painted(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """The ink's pixels from what is around them (Telea 2004), in the type of the image."""
    planes = np.atleast_3d(values).astype(np.float32)
    painted = [
        cv2.inpaint(
            np.ascontiguousarray(planes[..., index]),
            mask.astype(np.uint8),
            _RADIUS_PX,
            cv2.INPAINT_TELEA,
        )
        for index in range(planes.shape[2])
    ]
    result = np.stack(painted, axis=-1).reshape(values.shape)
    if values.dtype.kind in "iu":
        result = np.rint(result)
    typed: NDArray[Any] = result.astype(values.dtype)
    return typed
