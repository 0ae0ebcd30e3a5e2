# SPDX-License-Identifier: GPL-3.0-or-later
"""Mixtures of normal distributions for weighted values (expectation-maximisation).

scikit-learn's estimator takes no weights.
"""

from dataclasses import dataclass

import numpy as np

from granulo_analyzer.domain.classes import Floats

MAX_COMPONENTS = 4
_ROUNDS = 300
_PRECISION = 1e-8
_SMALLEST_DEVIATION = 0.05
"""Of a component, as a share of the whole's: one that shrinks to a point has no likelihood."""


@dataclass(frozen=True)
class Components:
    """A mixture, by rising mean."""

    shares: Floats
    """(k,) adding up to 1."""
    means: Floats
    deviations: Floats

    def densities(self, x: Floats) -> Floats:
        """(k, c) share times density of every component at every place."""
        z = (x - self.means[:, None]) / self.deviations[:, None]
        scale = self.shares / (self.deviations * np.sqrt(2 * np.pi))
        found: Floats = scale[:, None] * np.exp(-(z**2) / 2)
        return found

    def mean_log_likelihood(self, x: Floats, mass: Floats) -> float:
        """Per unit of mass."""
        return float(np.average(np.log(self.densities(x).sum(axis=0) + 1e-300), weights=mass))

    def improved(self, x: Floats, mass: Floats) -> "Components":
        """The mixture of the nearest maximum of the likelihood (Dempster et al. 1977)."""
        mean = np.average(x, weights=mass)
        floor = _SMALLEST_DEVIATION * float(np.sqrt(np.average((x - mean) ** 2, weights=mass)))
        mixture, before = self, -np.inf
        for _ in range(_ROUNDS):
            parts = mixture.densities(x) + 1e-300
            total = parts.sum(axis=0)
            likelihood = float(np.average(np.log(total), weights=mass))
            if likelihood - before < _PRECISION:
                break
            before = likelihood
            taken = parts / total * mass
            size = np.maximum(taken.sum(axis=1), 1e-12 * mass.sum())
            means = taken @ x / size
            spread = np.sum(taken * (x - means[:, None]) ** 2, axis=1) / size
            mixture = Components(
                size / size.sum(), means, np.maximum(np.sqrt(spread), max(floor, 1e-12))
            )
        order = np.argsort(mixture.means, kind="stable")
        return Components(mixture.shares[order], mixture.means[order], mixture.deviations[order])


def fit_components(
    x: Floats, mass: Floats, number: int, smaller: Components | None = None
) -> Components:
    """Fit a mixture; the best of a few starts that follow from the values alone.

    Parameters
    ----------
    x : (c,) float64
        Rising.
    mass : (c,) float64
        Weights.
    number : int
        Of components.
    smaller : Components, optional
        The mixture of one component less: each of its components is a start when it is halved.

    Returns
    -------
    Components
    """
    starts = [_of_groups(x, mass, number)]
    if smaller is not None:
        starts += [_halved(smaller, place) for place in range(len(smaller.shares))]
    fitted = [start.improved(x, mass) for start in starts]
    return max(fitted, key=lambda mixture: mixture.mean_log_likelihood(x, mass))


def _of_groups(x: Floats, mass: Floats, number: int) -> Components:
    """Components of groups of equal mass."""
    below = (np.cumsum(mass) - mass / 2) / mass.sum()
    group = np.minimum((below * number).astype(np.int64), number - 1)
    size = np.bincount(group, mass, minlength=number) + 1e-12 * mass.sum()
    means = np.bincount(group, mass * x, minlength=number) / size
    spread = np.average((x - np.average(x, weights=mass)) ** 2, weights=mass)
    return Components(size / size.sum(), means, np.full(number, np.sqrt(spread) / number + 1e-12))


def _halved(mixture: Components, place: int) -> Components:
    mean, deviation = mixture.means[place], mixture.deviations[place]
    share = mixture.shares[place] / 2
    others = np.arange(len(mixture.shares)) != place
    return Components(
        np.append(mixture.shares[others], (share, share)),
        np.append(mixture.means[others], (mean - deviation / 2, mean + deviation / 2)),
        np.append(mixture.deviations[others], (deviation / 2, deviation / 2)),
    )
