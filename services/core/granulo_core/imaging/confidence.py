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
        centre=(0.9494, 0.8402, 0.8026, 0.2786, 0.5753, 0.9248, 6.4098, 0.5925),
        spread=(0.0576, 0.075, 0.1105, 0.0502, 0.3073, 0.0598, 0.9472, 0.4994),
        weight=(0.342, -0.2297, 1.626, -0.7977, 0.4147, 0.1842, 0.4492, 0.0244),
        bias=2.9317,
    ),
    "foreground": Calibration(
        centre=(0.9414, 0.8754, 0.0, 0.0, 0.4437, 0.9074, 5.5759, 0.9704),
        spread=(0.0923, 0.1009, 1.0, 1.0, 0.3788, 0.0654, 1.5149, 0.9166),
        weight=(2.7862, -1.8184, 0.0, 0.0, 1.3957, 0.7639, 0.5359, 0.1315),
        bias=-0.9024,
    ),
}
