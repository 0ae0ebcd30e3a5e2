# SPDX-License-Identifier: GPL-3.0-or-later
"""Which scene of several datasets a training patch comes from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Mixture:
    """Datasets by their numbers of scenes, and the share of patches that each of them gives.

    Scenes are numbered through, dataset after dataset; those of one dataset are equally likely.
    """

    counts: tuple[int, ...]
    """Scenes of each dataset."""
    weights: tuple[float, ...]
    """Share of each dataset's patches relative to the others'; a dataset of weight 0 gives none."""

    def __post_init__(self) -> None:
        """Refuse mixtures that nothing can be drawn from."""
        if len(self.counts) != len(self.weights):
            raise ValueError(
                f"{len(self.counts)} datasets have {len(self.weights)} weights; give one each"
            )
        if any(not math.isfinite(weight) or weight < 0 for weight in self.weights):
            raise ValueError(f"weights must be 0 or more, got {self.weights}")
        if any(
            count < 0 or (weight > 0 and count < 1)
            for count, weight in zip(self.counts, self.weights, strict=True)
        ):
            raise ValueError(f"a dataset without a scene cannot give patches: {self.counts}")
        if self.scene_count and not any(self.weights):
            raise ValueError("all weights are 0; give one dataset or more a positive weight")

    @classmethod
    def in_proportion(cls, counts: Sequence[int]) -> "Mixture":
        """Every scene is equally likely, whatever dataset it belongs to."""
        return cls(tuple(counts), tuple(float(count) for count in counts))

    @property
    def scene_count(self) -> int:
        """Number of scenes."""
        return sum(self.counts)

    def draw(self, rng: np.random.Generator) -> int:
        """Number of a random scene."""
        if self._is_even:
            return int(rng.integers(self.scene_count))
        dataset = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        return self._starts[dataset] + int(rng.integers(self.counts[dataset]))

    def draw_beside(self, scene: int, rng: np.random.Generator) -> int:
        """Number of a random scene of the same dataset, so that shares stay what they are."""
        dataset = int(np.searchsorted(self._starts, scene, side="right")) - 1
        return self._starts[dataset] + int(rng.integers(self.counts[dataset]))

    @cached_property
    def _is_even(self) -> bool:
        return self.weights == tuple(float(count) for count in self.counts)

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        return tuple(int(start) for start in np.cumsum((0, *self.counts[:-1])))

    @cached_property
    def _cumulative(self) -> NDArray[np.float64]:
        shares = np.array(self.weights, dtype=np.float64)
        # By the largest first: finite weights may have a sum that is not.
        shares /= shares.max()
        cumulative: NDArray[np.float64] = np.cumsum(shares / shares.sum())
        # Rounding must not leave a last crumb that belongs to no dataset, or to one of weight 0.
        cumulative[np.flatnonzero(shares)[-1] :] = 1.0
        return cumulative
