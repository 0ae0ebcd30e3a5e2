# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances of an image that is looked at block by block: each is found once, and whole.

Every block sees a halo around its own part. An instance belongs to the block that holds the peak of
its marker, and that block alone draws it, with all that reaches into the halo. Blocks agree on
whose an instance is, because all that see a part of it in their own see it whole: where one is cut
by the edge of the halo, the halo is doubled and the block looked at again.

Many blocks hold a part of an instance that reaches more than `NEAR_PX` out of them, and each would
have to look at all of it. Such a one belongs to the first block that sees it whole, and the others
look no farther where all that they have of it is drawn. Halos grow only where something is cut, and
no window is larger than `MAX_WINDOW_PX`, so that memory stays bounded: of an instance that does not
fit into one, each block draws what lies in its own part, as an instance of its own.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from granulo_segmenter.domain.planes import Plane, Window, blocks

BLOCK_PX = 2048
"""Side of a block's own part."""
HALO_PX = 128
"""What a block sees beyond it at first."""
NEAR_PX = 1024
"""How far all sides of a halo grow, and instances belong to the block that holds their peak."""
MAX_WINDOW_PX = 2**26
"""Images of no more pixels are seen whole where they must be: nothing in them is ever cut."""

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
        seen = _look(find, block, labels, halo_px)
        mine = (seen.peaks_within() | seen.far()) & ~seen.settled | seen.cut
        numbers = np.zeros(len(mine), dtype=np.uint32)
        numbers[mine] = count + 1 + np.arange(np.count_nonzero(mine))
        mine_here = numbers[seen.labels]
        if seen.cut.any():
            elsewhere = seen.cut[seen.labels]
            elsewhere[seen.own.slices] = False
            mine_here[elsewhere] = 0
        area, box = _draw(labels, seen.window, mine_here, count, int(np.count_nonzero(mine)))
        areas.append(area)
        boxes.append(box)
        owners.append(np.full(len(area), number))
        count += len(area)
        on_block(number + 1, len(parts))
    return Found(np.concatenate(areas), np.concatenate(boxes), np.concatenate(owners))


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a block sees. Arrays of (n + 1,) are of its instances; the first entry is of none."""

    block: Window
    window: Window
    labels: NDArray[np.int32]
    """(h, w) of the window."""
    peaks: NDArray[np.int64]
    """(n + 1,)"""
    cut: NDArray[np.bool_]
    """(n + 1,): of the block's own part, and going on beyond the window."""
    settled: NDArray[np.bool_]
    """(n + 1,): those which do so, too, but all that the block has of them is drawn."""

    @property
    def own(self) -> Window:
        """The block's own part, counted from the window's corner."""
        return self.block.within(self.window)

    def inside(self, part: NDArray[np.int32]) -> NDArray[np.bool_]:
        """(n + 1,): which instances have a pixel in a part of the labels."""
        found = np.zeros(len(self.peaks), dtype=bool)
        found[part] = True
        found[0] = False
        return found

    def peaks_within(self) -> NDArray[np.bool_]:
        """(n + 1,): which instances have their peak in the block's own part."""
        rows, columns = np.divmod(self.peaks, self.window.shape[1])
        own = self.own
        within = (self.peaks >= 0) & (own.top <= rows) & (rows < own.bottom)
        return np.asarray(within & (own.left <= columns) & (columns < own.right))

    def far(self) -> NDArray[np.bool_]:
        """(n + 1,): which instances of the own part reach more than `NEAR_PX` out of it."""
        near = self.block.grown(NEAR_PX, (self.window.bottom, self.window.right))
        if self.window == self.window.shared(near):
            return np.zeros(len(self.peaks), dtype=bool)
        near = near.within(self.window)
        height, width = self.window.shape
        beyond = np.zeros(len(self.peaks), dtype=bool)
        for part in (
            self.labels[: max(0, near.top)],
            self.labels[min(height, near.bottom) :],
            self.labels[:, : max(0, near.left)],
            self.labels[:, min(width, near.right) :],
        ):
            beyond |= self.inside(part)
        return beyond & self.inside(self.labels[self.own.slices])

    def drawn(self, labels: Plane, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(n + 1,): of which of these instances the own part is drawn already."""
        if not which.any():
            return which
        own = self.labels[self.own.slices]
        return which & ~self.inside(own[labels.read(self.block) == 0])


def _look(find: Find, block: Window, labels: Plane, halo_px: int) -> _Seen:
    """Look at a block with as much around it as its instances need."""
    shape = labels.shape
    window = block.grown(halo_px, shape)
    while True:
        found, peaks = find(window)
        none = np.zeros(len(peaks), dtype=bool)
        seen = _Seen(block, window, found, peaks, cut=none, settled=none)
        ends = {side: seen.inside(edge) for side, edge in _ends(seen, shape).items()}
        cut = np.logical_or.reduce([none, *ends.values()]) & seen.inside(found[seen.own.slices])
        settled = seen.drawn(labels, cut) if halo_px >= NEAR_PX else none
        cut &= ~settled
        if not cut.any():
            return replace(seen, settled=settled)
        if halo_px < NEAR_PX:
            halo_px = min(NEAR_PX, max(1, 2 * halo_px))
            window = block.grown(halo_px, shape)
            continue
        larger = _grown(window, block, {side for side, at in ends.items() if (at & cut).any()})
        larger = larger.shared(Window(0, shape[0], 0, shape[1])) or window
        if larger.shape[0] * larger.shape[1] > MAX_WINDOW_PX:
            return replace(seen, cut=cut, settled=settled)
        window = larger


def _ends(seen: _Seen, shape: tuple[int, int]) -> dict[str, NDArray[np.int32]]:
    """The labels at the window's ends within the image, by side."""
    window, found = seen.window, seen.labels
    sides = {
        "top": (window.top > 0, found[0]),
        "bottom": (window.bottom < shape[0], found[-1]),
        "left": (window.left > 0, found[:, 0]),
        "right": (window.right < shape[1], found[:, -1]),
    }
    return {side: edge for side, (is_within, edge) in sides.items() if is_within}


def _grown(window: Window, block: Window, sides: AbstractSet[str]) -> Window:
    """A window that reaches twice as far out of the block on these sides."""

    def outwards(side: str, end: int, start: int) -> int:
        return end + (end - start if side in sides else 0)

    return Window(
        outwards("top", window.top, block.top),
        outwards("bottom", window.bottom, block.bottom),
        outwards("left", window.left, block.left),
        outwards("right", window.right, block.right),
    )


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
