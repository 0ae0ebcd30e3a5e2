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
        centre=(0.9505, 0.8445, 0.8036, 0.2769, 0.5673, 0.9233, 6.4282, 0.5894),
        spread=(0.0593, 0.0724, 0.1192, 0.0503, 0.3098, 0.0605, 0.9357, 0.4941),
        weight=(0.3299, 0.0313, 1.4916, -0.6595, 0.4522, 0.1395, 0.2416, 0.063),
        bias=2.9028,
    ),
    "foreground": Calibration(
        centre=(0.9448, 0.8785, 0.0, 0.0, 0.4464, 0.9096, 5.6383, 0.9959),
        spread=(0.092, 0.1015, 1.0, 1.0, 0.3833, 0.0641, 1.5485, 0.9543),
        weight=(2.5129, -1.4913, 0.0, 0.0, 1.4259, 0.8174, 0.4808, 0.2083),
        bias=-0.6593,
    ),
}
