# SPDX-License-Identifier: GPL-3.0-or-later
"""Which particles enter the statistics; the rule is named in every report, for it moves results."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CountingRule:
    """How particles at the frame are treated."""

    name: str
    """For machines, as ``summary.json`` carries it."""
    description: str
    """For people, as the report prints it."""


EXCLUDE_BORDER = CountingRule(
    "exclude_border",
    "Particles that touch the frame of the image are listed in the table and left out of all "
    "statistics, because their full size is unknown. Large particles touch the frame more often "
    "than small ones; no weight corrects for that here.",
)


def counted(touches_border: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which particles enter the statistics under `EXCLUDE_BORDER`.

    Parameters
    ----------
    touches_border : (n,) bool

    Returns
    -------
    (n,) bool
    """
    flags: NDArray[Any] = ~touches_border
    return flags
