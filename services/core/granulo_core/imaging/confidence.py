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
        centre=(0.9675, 0.8502, 0.8588, 0.3032, 0.8273, 0.9481, 6.7306, 0.5665),
        spread=(0.0339, 0.062, 0.0538, 0.0291, 0.2023, 0.0481, 1.0052, 0.5258),
        weight=(0.4402, 0.0856, 0.8067, -0.5054, 1.0177, 0.4857, 0.0636, -0.0522),
        bias=3.7239,
    ),
    "foreground": Calibration(
        centre=(0.9402, 0.8587, 0.0, 0.0, 0.6564, 0.9321, 5.9544, 0.9287),
        spread=(0.0989, 0.0949, 1.0, 1.0, 0.3764, 0.0578, 1.6861, 1.0254),
        weight=(2.5396, -0.2678, 0.0, 0.0, 2.9955, 0.8819, -0.0073, -0.0297),
        bias=0.8291,
    ),
}
