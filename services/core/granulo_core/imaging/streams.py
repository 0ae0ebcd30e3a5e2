# SPDX-License-Identifier: GPL-3.0-or-later
"""One source of random numbers per effect: switching one on leaves what others draw as it was."""

from enum import IntEnum

import numpy as np


class Effect(IntEnum):
    """What draws random numbers; the numbers are part of what determines a picture."""

    LEVELS = 0
    BRIGHT = 1
    SURFACE = 2
    SUBSTRATE = 3
    RIDGES = 4
    SCRATCHES = 5
    SPECKS = 6
    CURLS = 7
    DIRT = 8
    STREAKS = 9
    DRIFT = 10
    SCAN_DRIFT = 11
    SCAN_JITTER = 12
    LINES = 13
    SHOT = 14
    GAUSSIAN = 15
    DATA_BAR = 16
    SCALE_BAR = 17
    CRACKS = 18


class Streams:
    """Independent generators, one per effect, that follow from one generator's state."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Take the key of all streams from ``rng``: always 128 bits, whatever is drawn later."""
        self._key = [int(part) for part in rng.integers(0, 2**63, 2)]

    def __getitem__(self, effect: Effect) -> np.random.Generator:
        """The generator of an effect, at its beginning."""
        return np.random.default_rng([*self._key, int(effect)])
