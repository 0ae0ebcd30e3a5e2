# SPDX-License-Identifier: GPL-3.0-or-later
"""Perimeters from the crossings of the outline with straight lines (Crofton)."""

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain.morphology.outlines import Outlines
from granulo_analyzer.domain.morphology.runs import Floats, Ints


def crossings_of(framed: NDArray[np.int32], outlines: Outlines, count: int) -> Ints:
    """(4, n) how often lines along x, along y and along both diagonals cross an outline."""
    along_x = np.bincount(outlines.particle[outlines.side % 2 == 1], minlength=count)
    along_y = np.bincount(outlines.particle[outlines.side % 2 == 0], minlength=count)
    found = [along_x, along_y]
    pairs = ((framed[:-1, :-1], framed[1:, 1:]), (framed[:-1, 1:], framed[1:, :-1]))
    for one, other in pairs:
        differs = one != other
        ends = np.concatenate((one[differs], other[differs]))
        found.append(np.bincount(ends, minlength=count + 1)[1:])
    return np.stack(found)


def crofton(crossings: Ints, pixel_size: tuple[float, float]) -> Floats:
    """(n,) perimeters from crossings with four directions of lines.

    Crofton: the length is half the integral of the number of crossings over all lines. Every
    direction stands for the angles nearer to it than to the others, and its lines lie
    width x height / step apart (Legland et al. 2016).
    """
    width, height = pixel_size
    diagonal = float(np.hypot(width, height))
    angle = float(np.arctan2(height, width))
    angles = np.array([angle, np.pi / 2 - angle, np.pi / 4, np.pi / 4])
    spacing = width * height / np.array([width, height, diagonal, diagonal])
    perimeter: Floats = 0.5 * (angles * spacing) @ crossings
    return perimeter
