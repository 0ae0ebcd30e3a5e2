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
        centre=(0.9508, 0.843, 0.7992, 0.2809, 0.5771, 0.9202, 6.4543, 0.5745),
        spread=(0.0556, 0.0753, 0.093, 0.0488, 0.3076, 0.0635, 0.9148, 0.481),
        weight=(0.9861, -0.66, 1.3485, -0.6119, 0.2074, 0.1762, 0.0782, -0.041),
        bias=2.5693,
    ),
    "foreground": Calibration(
        centre=(0.9357, 0.8726, 0.0, 0.0, 0.3986, 0.9041, 5.4871, 1.0026),
        spread=(0.099, 0.1071, 1.0, 1.0, 0.3814, 0.0682, 1.5677, 0.9762),
        weight=(2.9434, -1.8615, 0.0, 0.0, 1.352, 0.813, 0.6119, 0.352),
        bias=-1.2861,
    ),
}
