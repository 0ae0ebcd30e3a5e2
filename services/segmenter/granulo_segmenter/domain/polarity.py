# SPDX-License-Identifier: GPL-3.0-or-later
"""Dark particles on bright ground: found out by which of an image and its negative is believed.

A network that has learnt bright particles finds dark ones in pieces, or the ground between them.
How much of its foreground becomes particles of high confidence tells the two apart, see
``benchmarks/calibration.py`` and docs/accuracy.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass

CLEAR_SHARE = 0.90
"""So much is believed of no image that is seen the wrong way: its negative need not be asked."""

_LEAST_SHARE = 0.65
"""Less than this is no evidence of dark particles: nothing is understood either way."""


@dataclass(frozen=True)
class Belief:
    """What becomes of the network's foreground."""

    believed_px: float
    """Areas of the particles, weighted with their confidence."""
    foreground_px: int

    @property
    def share(self) -> float:
        """0 to 1; 0 where there is no foreground."""
        return self.believed_px / self.foreground_px if self.foreground_px else 0.0

    @property
    def is_clear(self) -> bool:
        """Whether it leaves no doubt."""
        return self.share >= CLEAR_SHARE


def is_inverted(as_it_is: Belief, negative: Belief) -> bool:
    """Whether the particles are darker than the ground."""
    return negative.share >= _LEAST_SHARE and negative.share > as_it_is.share


def together(beliefs: Iterable[Belief]) -> Belief:
    """What is believed of several parts."""
    parts = list(beliefs)
    return Belief(
        sum(part.believed_px for part in parts), sum(part.foreground_px for part in parts)
    )
