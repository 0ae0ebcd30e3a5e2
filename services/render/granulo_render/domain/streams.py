# SPDX-License-Identifier: GPL-3.0-or-later
"""Independent random streams of a scene."""

import zlib

import numpy as np


class Streams:
    """Random generators of one scene by what they are for.

    Each name has a stream of its own, so that drawing more numbers for one thing leaves all others
    as they were: a new look keeps the geometry, another brightness law keeps the sizes.

    Parameters
    ----------
    seed : int
        Seed of the dataset, any 64-bit integer.
    index : int
        Number of the scene, 0 or more.
    """

    def __init__(self, seed: int, index: int) -> None:
        self._key = (seed % 2**64, index)

    def of(self, name: str) -> np.random.Generator:
        """Make the generator of a stream, at its beginning."""
        entropy = [*self._key, zlib.crc32(name.encode())]
        return np.random.default_rng(np.random.SeedSequence(entropy))
