# SPDX-License-Identifier: GPL-3.0-or-later
"""Distributions fitted by maximum likelihood to weighted values, and the choice among them.

Weights enter the likelihood as multiplicities (a pseudo-likelihood), scaled so that all together
are the effective number of particles; so a model is not preferred for what the weights pretend to
know. Models are compared by BIC = −2·ln L + p·ln n (Schwarz 1978).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp, ndtr

from granulo_analyzer.domain.classes import Floats
from granulo_analyzer.domain.mixtures import MAX_COMPONENTS, Components, fit_components

Curve = Callable[[Floats], Floats]
_LARGEST_EXPONENT = 500.0


@dataclass(frozen=True)
class LogNormal:
    """Maximum-likelihood log-normal distribution."""

    median: float
    gsd: float
    """Geometric standard deviation, exp(sigma)."""
    mode: float
    ks_distance: float
    """Largest distance between the fitted and the empirical distribution function."""

    def density(self, x: Floats) -> Floats:
        """Probability density at positive ``x`` (any shape)."""
        found: Floats = np.exp(_lognormal(x, np.log(self.median), np.log(self.gsd)))
        return found

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class Fit:
    """One model of the distribution."""

    family: str
    """``normal``, ``lognormal``, ``weibull``, ``lognormal_mixture_2``, …"""
    parameters: Mapping[str, float]
    """``mean`` and ``stddev``; ``median`` and ``gsd``; ``shape`` and ``scale``; ``share_1``,
    ``median_1``, ``gsd_1``, … by rising median."""
    bic: float
    ks_distance: float
    intervals: Mapping[str, tuple[float, float]]
    """Of the parameters, by bootstrap; empty where none were asked for."""

    @property
    def is_mixture(self) -> bool:
        """Whether it has several components."""
        return _kind(self.family) == "mixture"

    def density(self, x: Floats) -> Floats:
        """Probability density at positive ``x`` (any shape)."""
        found: Floats = np.exp(_FAMILIES[_kind(self.family)].log_density(self.parameters, x))
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "family": self.family,
            "bic": self.bic,
            "ks_distance": self.ks_distance,
            "parameters": {
                name: {"value": value, "lower": bounds[0], "upper": bounds[1]}
                for name, value in self.parameters.items()
                for bounds in [self.intervals.get(name, (float("nan"),) * 2)]
            },
        }


def fit_lognormal(values: Floats, mass: Floats) -> LogNormal | None:
    """Fit a log-normal distribution.

    Parameters
    ----------
    values, mass : (c,) float64
        Rising and positive, with their weights.

    Returns
    -------
    LogNormal or None
        None where the values do not spread.
    """
    if not _spread(values):
        return None
    parameters = _fit_lognormal(values, mass)
    mu, sigma = np.log(parameters["median"]), np.log(parameters["gsd"])
    return LogNormal(
        **parameters,
        mode=float(np.exp(mu - sigma**2)),
        ks_distance=ks_distance(_lognormal_share(values, mu, sigma), mass),
    )


def fit_all(values: Floats, mass: Floats, effective: float) -> tuple[Fit, ...]:
    """Fit every family, and mixtures of 2 to `MAX_COMPONENTS` components.

    Parameters
    ----------
    values, mass : (c,) float64
        Rising and positive, with their weights.
    effective : float
        Effective number of particles.

    Returns
    -------
    tuple of Fit
        By rising BIC: the first is the choice. Empty where the values do not spread; without those
        that have more parameters than a third of the particles.
    """
    if not _spread(values):
        return ()
    found = []
    for kind in ("normal", "lognormal", "weibull"):
        parameters = _FAMILIES[kind].fit(values, mass)
        found.append(_judged(kind, parameters, values, mass, effective))
    components = fit_components(np.log(values), mass, 1)
    for number in range(2, MAX_COMPONENTS + 1):
        if 3 * (3 * number - 1) > effective:
            break
        components = fit_components(np.log(values), mass, number, smaller=components)
        family = f"lognormal_mixture_{number}"
        found.append(_judged(family, _mixture_parameters(components), values, mass, effective))
    return tuple(sorted(found, key=lambda fit: fit.bic))


def refit(fit: Fit, values: Floats, mass: Floats) -> Mapping[str, float]:
    """Parameters of the same family for another sample, e.g. a bootstrap's replicate."""
    if _kind(fit.family) != "mixture":
        return _FAMILIES[fit.family].fit(values, mass)
    start = _components(fit.parameters)
    return _mixture_parameters(start.improved(np.log(values), mass))


def ks_distance(fitted: Floats, mass: Floats) -> float:
    """Largest distance between distribution functions.

    Parameters
    ----------
    fitted : (c,) float64
        The model's at rising values.
    mass : (c,) float64
        Weights of these values.
    """
    steps = np.concatenate(([0.0], np.cumsum(mass))) / mass.sum()
    return float(max(np.max(steps[1:] - fitted), np.max(fitted - steps[:-1])))


@dataclass(frozen=True)
class _Family:
    fit: Callable[[Floats, Floats], dict[str, float]]
    log_density: Callable[[Mapping[str, float], Floats], Floats]
    """Natural logarithm: far out the density itself is 0 to the machine."""
    share: Callable[[Mapping[str, float], Floats], Floats]
    """Distribution function."""


def _judged(
    family: str, parameters: Mapping[str, float], values: Floats, mass: Floats, effective: float
) -> Fit:
    model = _FAMILIES[_kind(family)]
    logs = model.log_density(parameters, values)
    likelihood = effective * float(np.sum((mass * logs)[mass > 0]) / mass.sum())
    # The shares of a mixture add up to 1.
    free = len(parameters) - (_kind(family) == "mixture")
    bic = -2 * likelihood + free * float(np.log(max(effective, 1.0)))
    distance = ks_distance(model.share(parameters, values), mass)
    return Fit(family, parameters, bic, distance, {})


def _spread(values: Floats) -> bool:
    return len(values) > 1 and bool(values[-1] > values[0] * (1 + 1e-9))


def _kind(family: str) -> str:
    return "mixture" if family.startswith("lognormal_mixture") else family


def _fit_normal(values: Floats, mass: Floats) -> dict[str, float]:
    mean = float(np.average(values, weights=mass))
    return {
        "mean": mean,
        "stddev": float(np.sqrt(np.average((values - mean) ** 2, weights=mass))),
    }


def _fit_lognormal(values: Floats, mass: Floats) -> dict[str, float]:
    logs = _fit_normal(np.log(values), mass)
    return {"median": float(np.exp(logs["mean"])), "gsd": float(np.exp(logs["stddev"]))}


def _fit_weibull(values: Floats, mass: Floats) -> dict[str, float]:
    """Root of the profile likelihood's derivative (Rinne 2008, section 11.3), then the scale."""
    # A replicate may lack the largest values, and hold one value only.
    values, mass = values[mass > 0], mass[mass > 0]
    if not _spread(values):
        return {"shape": np.nan, "scale": np.nan}
    logs = np.log(values / values[-1])
    mean_log = float(np.average(logs, weights=mass))

    def slope(shape: float) -> float:
        powers = mass * np.exp(shape * logs)
        return float(powers @ logs / powers.sum()) - 1 / shape - mean_log

    # The spread of ln x is about π/(√6·shape).
    deviation = np.sqrt(np.average((logs - mean_log) ** 2, weights=mass))
    guess = np.pi / np.sqrt(6) / max(float(deviation), 1e-12)
    low, high = guess / 4, guess * 4
    while slope(low) > 0:
        low /= 4
    while slope(high) < 0:
        high *= 4
    shape = float(brentq(slope, low, high, xtol=1e-10, rtol=1e-10))
    mean_power = float(np.average(np.exp(shape * logs), weights=mass))
    return {"shape": shape, "scale": float(values[-1]) * mean_power ** (1 / shape)}


def _normal(x: Floats, mean: float, stddev: float) -> Floats:
    """Logarithm of the density, as those that follow."""
    found: Floats = -(((x - mean) / stddev) ** 2) / 2 - np.log(stddev * np.sqrt(2 * np.pi))
    return found


def _lognormal(x: Floats, mu: float, sigma: float) -> Floats:
    logs = np.log(x)
    found: Floats = _normal(logs, mu, sigma) - logs
    return found


def _lognormal_share(x: Floats, mu: float, sigma: float) -> Floats:
    found: Floats = ndtr((np.log(x) - mu) / sigma)
    return found


def _weibull(parameters: Mapping[str, float], x: Floats) -> Floats:
    shape, logs = parameters["shape"], np.log(x / parameters["scale"])
    # Bounded, so that a value out of all reach makes the model hopeless rather than infinite.
    powers = np.exp(np.minimum(shape * logs, _LARGEST_EXPONENT))
    found: Floats = np.log(shape / x) + shape * logs - powers
    return found


def _mixture_parameters(components: Components) -> dict[str, float]:
    found = {}
    for number in range(len(components.shares)):
        found[f"share_{number + 1}"] = float(components.shares[number])
        found[f"median_{number + 1}"] = float(np.exp(components.means[number]))
        found[f"gsd_{number + 1}"] = float(np.exp(components.deviations[number]))
    return found


def _components(parameters: Mapping[str, float]) -> Components:
    columns = [
        np.array([value for name, value in parameters.items() if name.startswith(kind)])
        for kind in ("share_", "median_", "gsd_")
    ]
    return Components(columns[0], np.log(columns[1]), np.log(columns[2]))


def _mixture(parameters: Mapping[str, float], x: Floats) -> Floats:
    columns = _columns(parameters)
    with np.errstate(divide="ignore"):  # a component may have lost all
        parts = [np.log(share) + _lognormal(x, mu, sigma) for share, mu, sigma in columns]
    total: Floats = logsumexp(parts, axis=0)
    return total


def _mixture_share(parameters: Mapping[str, float], x: Floats) -> Floats:
    columns = _columns(parameters)
    total: Floats = np.sum(
        [share * _lognormal_share(x, mu, sigma) for share, mu, sigma in columns], axis=0
    )
    return total


def _columns(parameters: Mapping[str, float]) -> list[tuple[float, float, float]]:
    """Share, mu and sigma of every component."""
    found = _components(parameters)
    return list(zip(found.shares, found.means, found.deviations, strict=True))


_FAMILIES = {
    "normal": _Family(
        _fit_normal,
        lambda p, x: _normal(x, p["mean"], p["stddev"]),
        lambda p, x: np.asarray(ndtr((x - p["mean"]) / p["stddev"])),
    ),
    "lognormal": _Family(
        _fit_lognormal,
        lambda p, x: _lognormal(x, np.log(p["median"]), np.log(p["gsd"])),
        lambda p, x: _lognormal_share(x, np.log(p["median"]), np.log(p["gsd"])),
    ),
    "weibull": _Family(
        _fit_weibull,
        _weibull,
        lambda p, x: -np.expm1(-((x / p["scale"]) ** p["shape"])),
    ),
    "mixture": _Family(
        lambda values, mass: _mixture_parameters(fit_components(np.log(values), mass, 2)),
        _mixture,
        _mixture_share,
    ),
}
