# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances of an image that is looked at block by block: each is found once, and whole.

Every block sees a halo around its own part. An instance belongs to the block that holds the peak of
its marker, and that block alone draws it, with all that reaches into the halo. Blocks agree on
whose an instance is, because all that see a part of it in their own see it whole: where one is cut
by the edge of the halo, the halo is doubled and the block looked at again. At most `MAX_HALO_PX` is
seen, so that memory stays bounded: of an instance that reaches farther out of a block, each block
draws what lies in its own part, as an instance of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from granulo_segmenter.domain.planes import Plane, Window, blocks

BLOCK_PX = 2048
"""Side of a block's own part."""
HALO_PX = 128
"""What a block sees beyond it at first."""
MAX_HALO_PX = 1024

Find = Callable[[Window], tuple[NDArray[np.int32], NDArray[np.int64]]]
"""Labels 1 to n of a window, and the flat index of each one's peak there, -1 for none."""


@dataclass(frozen=True, eq=False)
class Found:
    """Instances 1 to n of an image in the order of their numbers; gaps have no pixel."""

    area_px: NDArray[np.int64]
    """(n,)"""
    boxes: NDArray[np.int64]
    """(n, 4): top, bottom, left, right, ends excluded."""
    block: NDArray[np.int64]
    """(n,): the block that drew it."""

    def __len__(self) -> int:
        return len(self.area_px)


def stitch(
    find: Find,
    labels: Plane,
    *,
    block_px: int = BLOCK_PX,
    halo_px: int = HALO_PX,
    on_block: Callable[[int, int], None] = lambda _done, _total: None,
) -> Found:
    """Find and draw the instances of an image.

    Parameters
    ----------
    find : callable
        Finds the instances of a window.
    labels : Plane
        uint32 zeros; the instances are drawn into it.
    block_px, halo_px : int
    on_block : callable
        Told how many blocks are done, and of how many.

    Returns
    -------
    Found
    """
    parts = list(blocks(labels.shape, block_px))
    areas, boxes, owners = [], [], []
    count = 0
    for number, block in enumerate(parts):
        window, found, peaks, cut = _look(find, block, labels.shape, halo_px)
        rows, columns = np.divmod(peaks, window.shape[1])
        own = block.within(window)
        mine = (peaks >= 0) & (own.top <= rows) & (rows < own.bottom)
        mine &= (own.left <= columns) & (columns < own.right)
        mine |= cut
        numbers = np.zeros(len(peaks), dtype=np.uint32)
        numbers[mine] = count + 1 + np.arange(np.count_nonzero(mine))
        mine_here = numbers[found]
        if cut.any():
            elsewhere = cut[found]
            elsewhere[own.slices] = False
            mine_here[elsewhere] = 0
        area, box = _draw(labels, window, mine_here, count, int(np.count_nonzero(mine)))
        areas.append(area)
        boxes.append(box)
        owners.append(np.full(len(area), number))
        count += len(area)
        on_block(number + 1, len(parts))
    return Found(np.concatenate(areas), np.concatenate(boxes), np.concatenate(owners))


def _look(
    find: Find, block: Window, shape: tuple[int, int], halo_px: int
) -> tuple[Window, NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]:
    """Look at a block with as much around it as its instances need.

    Returns
    -------
    window, labels, peaks
        What was seen, and what `Find` gave.
    cut : (n + 1,) bool
        Instances of the block's own part that go on beyond the window all the same.
    """
    while True:
        window = block.grown(halo_px, shape)
        found, peaks = find(window)
        cut = _cut(found, len(peaks), block, window, shape)
        if halo_px >= MAX_HALO_PX or not cut.any():
            return window, found, peaks, cut
        halo_px = min(MAX_HALO_PX, max(1, 2 * halo_px))


def _cut(
    found: NDArray[np.int32], count: int, block: Window, window: Window, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Which instances of the block's own part reach an end of the window within the image."""
    at_end, inside = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    if window.top > 0:
        at_end[found[0]] = True
    if window.bottom < shape[0]:
        at_end[found[-1]] = True
    if window.left > 0:
        at_end[found[:, 0]] = True
    if window.right < shape[1]:
        at_end[found[:, -1]] = True
    inside[found[block.within(window).slices]] = True
    inside[0] = False
    return np.asarray(at_end & inside)


def _draw(
    labels: Plane, window: Window, numbers: NDArray[np.uint32], before: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the instances ``before + 1`` to ``before + count`` where nothing is drawn yet."""
    drawn = labels.read(window)
    fresh = np.where(drawn == 0, numbers, 0)
    labels.write(window, np.where(fresh > 0, fresh, drawn))
    local = np.where(fresh > 0, fresh.astype(np.int64) - before, 0).astype(np.int32)
    area = np.bincount(local.ravel(), minlength=count + 1)[1:]
    box = np.zeros((count, 4), dtype=np.int64)
    for index, found in enumerate(find_objects(local, max_label=count)):
        if found is not None:
            rows, columns = found
            box[index] = rows.start, rows.stop, columns.start, columns.stop
    box += np.array([window.top, window.top, window.left, window.left])
    return area, box
