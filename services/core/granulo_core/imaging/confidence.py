# SPDX-License-Identifier: GPL-3.0-or-later
"""How sure an instance is: the probability that it is a particle, found with an IoU of 0.5.

A logistic function of the traits (`granulo_core.imaging.traits`). The numbers were fitted by
``benchmarks/calibration.py`` to the default model's instances on scenes that it was not trained on;
the same program measures the error on other scenes, see ``docs/accuracy.md``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration:
    """Logistic regression on standardised traits."""

    centre: tuple[float, ...]
    """Subtracted from the traits."""
    spread: tuple[float, ...]
    """Divides what is left."""
    weight: tuple[float, ...]
    bias: float

    def probability(self, traits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of every instance.

        Parameters
        ----------
        traits : (n, k) float

        Returns
        -------
        (n,) float
        """
        # Beyond three spreads nothing was seen: a line is not to be followed into the unknown.
        standard = np.clip((traits - np.array(self.centre)) / np.array(self.spread), -3.0, 3.0)
        result: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-(standard @ self.weight + self.bias)))
        return result


def expected_calibration_error(
    probability: NDArray[np.float64], true: NDArray[np.bool_], bins: int = 10
) -> float:
    """Mean distance between confidence and accuracy over bins of equal width (ECE).

    Parameters
    ----------
    probability : (n,) float
    true : (n,) bool
    bins : int

    Returns
    -------
    float
        Weighted by the number of instances in each bin; 0 where there is none.
    """
    if not len(probability):
        return 0.0
    place = np.minimum((probability * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    difference = np.bincount(place, probability - true, minlength=bins)
    return float(np.abs(difference).sum() / count.sum())


CALIBRATIONS: Mapping[str, Calibration] = {
    # By the network's distance, and by the paper's recipe.
    "distance": Calibration(
        centre=(0.9519, 0.8516, 0.7997, 0.275, 0.5306, 0.9216, 6.3814, 0.5886),
        spread=(0.0562, 0.072, 0.1126, 0.0513, 0.3172, 0.0603, 0.9429, 0.5024),
        weight=(0.6249, -0.6344, 1.4677, -0.8009, -0.0332, 0.4344, 0.1322, -0.1572),
        bias=2.5329,
    ),
    "foreground": Calibration(
        centre=(0.9503, 0.8875, 0.0, 0.0, 0.4197, 0.9051, 5.6512, 0.899),
        spread=(0.0802, 0.0944, 1.0, 1.0, 0.3801, 0.0661, 1.4569, 0.8778),
        weight=(2.9432, -1.9364, 0.0, 0.0, 1.2876, 0.8352, 0.2671, 0.2003),
        bias=-0.889,
    ),
}
