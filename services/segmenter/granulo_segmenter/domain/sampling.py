# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a large image is looked at before all of it is predicted."""

from granulo_segmenter.domain.planes import Window, whole

SAMPLED_ABOVE_PX = 2**24
"""Of larger images only samples are looked at before all is predicted at the final scale."""
_LOOK_PX = 512
_LOOKS_A_SIDE = 2
_SAMPLES_A_SIDE = 4
_SAMPLE_PX = 1024
_COMPARED_WHOLE_PX = 2**20


def samples(shape: tuple[int, int]) -> list[Window]:
    """The whole of an image, or windows spread evenly over a large one."""
    if shape[0] * shape[1] <= SAMPLED_ABOVE_PX:
        return [whole(shape)]
    return _spread(shape, _SAMPLES_A_SIDE, _SAMPLE_PX)


def parts(shape: tuple[int, int]) -> list[Window]:
    """Where scales are compared: in all of a small image, in a few parts of others."""
    if shape[0] * shape[1] <= _COMPARED_WHOLE_PX:
        return [whole(shape)]
    return looks(shape)


def looks(shape: tuple[int, int]) -> list[Window]:
    """A few small parts that tell what the rest is like."""
    return _spread(shape, _LOOKS_A_SIDE, _LOOK_PX)


def _spread(shape: tuple[int, int], a_side: int, side_px: int) -> list[Window]:
    """Windows in the middle of the fields of a grid."""
    spans = []
    for length in shape:
        field = -(-length // a_side)
        size = min(side_px, field)
        firsts = [start + (field - size) // 2 for start in range(0, length, field)]
        spans.append([(first, min(length, first + size)) for first in firsts if first < length])
    return [Window(*rows, *columns) for rows in spans[0] for columns in spans[1]]
