# SPDX-License-Identifier: GPL-3.0-or-later
"""Which particles enter the statistics, and with what weight; every result names the rule.

A frame cuts large particles more often than small ones, so that what lies wholly inside is no fair
sample of what was there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain.morphology.runs import EDGE_BITS

NEAR_FRAME = 0.5
"""A particle of more than this share of the frame's width or height is close to its size."""


@dataclass(frozen=True)
class CountingRule:
    """How particles at the frame are treated."""

    name: str
    """For machines, as ``summary.json`` carries it."""
    description: str
    """For people, as the report prints it."""


MILES_LANTUEJOUL = CountingRule(
    "miles_lantuejoul",
    "Particles that touch the frame of the image are listed in the table and left out of all "
    "statistics, because their full size is unknown. Each of the others counts with the weight "
    "1/P, P = (W − x)(H − y)/(W·H) being the probability that a particle of its horizontal and "
    "vertical Feret diameters x, y lies wholly in a frame of W × H (Miles 1974, Lantuéjoul 1980; "
    "computed after ISO 13322-1).",
)
EXCLUDE_BORDER = CountingRule(
    "exclude_border",
    "Particles that touch the frame of the image are listed in the table and left out of all "
    "statistics, because their full size is unknown. Large particles touch the frame more often "
    "than small ones; no weight corrects for that here.",
)
COUNT_ALL = CountingRule(
    "count_all",
    "All particles count, those that touch the frame of the image with the part that is seen. "
    "Large particles reach into the frame more often than small ones, and cut ones look smaller "
    "than they are; nothing corrects for either here.",
)
TWO_EDGES = CountingRule(
    "two_edges",
    "Particles that touch the upper or the right edge of the image are listed in the table and "
    "left out of all statistics; those at the lower and the left edge count, so that the number "
    "by area is unbiased. They count with the part that is seen, which makes them look smaller "
    "than they are.",
)
RULES = {rule.name: rule for rule in (MILES_LANTUEJOUL, EXCLUDE_BORDER, COUNT_ALL, TWO_EDGES)}


def weights(
    rule: CountingRule, columns: Mapping[str, NDArray[Any]], width_px: int, height_px: int
) -> NDArray[np.float64]:
    """Weights of the particles of one image.

    Parameters
    ----------
    rule : CountingRule
    columns : mapping of str to (n,) array
        ``touches_border``, ``touched_edges``, ``feret_x_px`` and ``feret_y_px``, as far as the rule
        needs them.
    width_px, height_px : int
        Of the frame.

    Returns
    -------
    (n,) float64
        0 for a particle that does not count.
    """
    if rule == COUNT_ALL:
        return np.ones(len(columns["label"]))
    if rule == TWO_EDGES:
        forbidden = EDGE_BITS["top"] | EDGE_BITS["right"]
        return np.where(columns["touched_edges"] & forbidden, 0.0, 1.0)
    inside = ~columns["touches_border"]
    if rule == EXCLUDE_BORDER:
        return inside.astype(np.float64)
    found = np.zeros(len(inside))
    x, y = columns["feret_x_px"][inside], columns["feret_y_px"][inside]
    # What touches no edge is smaller than the frame, so that no probability is 0.
    found[inside] = width_px * height_px / ((width_px - x) * (height_px - y))
    return found


def near_frame(
    columns: Mapping[str, NDArray[Any]], width_px: int, height_px: int
) -> NDArray[np.bool_]:
    """Tell which particles are of about the frame's size: few of them can lie wholly inside.

    Their weight under `MILES_LANTUEJOUL` is large, so that single ones move the result, and
    particles that are larger than the frame are never counted at all.

    Returns
    -------
    (n,) bool
    """
    flags: NDArray[Any] = (columns["feret_x_px"] > NEAR_FRAME * width_px) | (
        columns["feret_y_px"] > NEAR_FRAME * height_px
    )
    return flags
