# SPDX-License-Identifier: GPL-3.0-or-later
"""Chooses the thresholds that turn a network's outputs into particles, on held-out renders.

Renders are easier than micrographs, and few of them are kept back: the best of many thresholds on
them is partly luck, and deep markers that suit clean renders merge real particles. So the default
has to be beaten beyond the scatter between scenes: of all thresholds that are within one standard
error of the best, the nearest to the default is taken (the one-standard-error rule of Breiman et
al., Classification and Regression Trees, 1984, section 3.4.3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.instances import InstanceParams, decode
from granulo_core.imaging.matching import evaluate

FEWEST_SCENES = 2
"""Of a single scene no scatter between scenes is known: the default stays."""
_LEAST_GAIN = 0.005
"""Mean AP that thresholds must gain to replace the default at all."""
# What counts as one step away from the default.
_STEPS: Mapping[str, float] = {
    "marker_depth": 0.05,
    "marker_threshold": 0.1,
}
_DEPTHS = (0.06, 0.09, 0.12, 0.18, 0.25)
_MARKERS = (0.35, 0.5, 0.6, 0.7)


@dataclass(frozen=True, eq=False)
class PredictedImage:
    """One look of a held-out scene and what the network makes of it."""

    pixels: NDArray[np.uint8]
    """(H, W), prepared by the network's input convention."""
    outputs: NDArray[np.float32]
    """(H, W, 2) foreground and distance."""
    truth: NDArray[Any]
    """(H, W) true instances."""


@dataclass(frozen=True)
class Tuning:
    """What the search found."""

    params: InstanceParams
    default_ap: float
    """Mean AP over IoU 0.50 to 0.95 with the default, over all looks of all scenes."""
    tuned_ap: float
    """The same with ``params``; equal where the default stays."""
    standard_error: float
    """Of the difference of the two, between scenes."""
    scenes: int
    images: int
    candidates: int
    """Different thresholds that were tried."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {
            "default_ap": self.default_ap,
            "tuned_ap": self.tuned_ap,
            "standard_error": self.standard_error,
            "scenes": self.scenes,
            "images": self.images,
            "candidates": self.candidates,
        }


def tune(
    scenes: Sequence[Sequence[PredictedImage]], default: InstanceParams | None = None
) -> Tuning | None:
    """Search thresholds by mean AP, in favour of the default.

    Parameters
    ----------
    scenes : sequence of sequences of PredictedImage
        The looks of each held-out scene, at least one a scene.
    default : InstanceParams, optional
        What is begun with and drawn towards.

    Returns
    -------
    Tuning or None
        None for fewer than two scenes.

    Notes
    -----
    Depth and threshold of the markers are searched together, because deep markers ask for low
    thresholds. The foreground threshold stays: rendered outlines are sharper than real ones, and
    moving it for their sake lost faint real particles. So does the smoothing: a pixel of it is
    better on renders and merged small real particles (AP50 on TiO2 0.75 instead of 0.80).
    """
    if len(scenes) < FEWEST_SCENES:
        return None
    default = default or InstanceParams()
    search = _Search(scenes, default)
    chosen = search.choose(
        [
            default,
            *(
                replace(default, marker_depth=depth, marker_threshold=threshold)
                for depth in _DEPTHS
                for threshold in _MARKERS
            ),
        ]
    )
    before, after = _scores(scenes, default), _scores(scenes, chosen)
    if (after - before).mean() < _LEAST_GAIN:
        chosen, after = default, before
    return Tuning(
        params=chosen,
        default_ap=float(before.mean()),
        tuned_ap=float(after.mean()),
        standard_error=_standard_error(after - before),
        scenes=len(scenes),
        images=sum(len(looks) for looks in scenes),
        candidates=len(search.known),
    )


def within_one_standard_error(
    scores: Sequence[NDArray[np.float64]], distances: Sequence[float]
) -> int:
    """Index of the candidate nearest to the default among those as good as the best.

    Parameters
    ----------
    scores : sequence of (S,) float
        Each candidate's score on the same S scenes.
    distances : sequence of float
        Each candidate's distance from the default.

    Returns
    -------
    int
        A candidate is as good as the best where its mean is at most one standard error of their
        paired difference below it. Among equally near ones the better.
    """
    best = max(range(len(scores)), key=lambda i: (float(scores[i].mean()), -distances[i]))
    equal = [
        i
        for i, score in enumerate(scores)
        if (scores[best] - score).mean() <= _standard_error(scores[best] - score)
    ]
    return min(equal, key=lambda i: (distances[i], -float(scores[i].mean())))


class _Search:
    """Scores of thresholds by scene, each worked out once."""

    def __init__(self, scenes: Sequence[Sequence[PredictedImage]], default: InstanceParams) -> None:
        self.known: dict[InstanceParams, NDArray[np.float64]] = {}
        self._scenes = scenes
        self._default = default

    def scores(self, params: InstanceParams) -> NDArray[np.float64]:
        """(S,) mean AP of each scene over its looks."""
        if params not in self.known:
            self.known[params] = _scores(self._scenes, _without_faint_filter(params))
        return self.known[params]

    def choose(self, candidates: Sequence[InstanceParams]) -> InstanceParams:
        """One stage of the search; the default's own values are always among the candidates."""
        scores = [self.scores(params) for params in candidates]
        distances = [_distance(params, self._default) for params in candidates]
        return candidates[within_one_standard_error(scores, distances)]


def _without_faint_filter(params: InstanceParams) -> InstanceParams:
    """It takes two thirds of the time; before and after are scored with it."""
    return replace(params, min_contrast_fraction=0.0)


def _scores(
    scenes: Sequence[Sequence[PredictedImage]], params: InstanceParams
) -> NDArray[np.float64]:
    """(S,) mean AP of each scene over its looks."""
    return np.array([np.mean([_ap(image, params) for image in looks]) for looks in scenes])


def _ap(image: PredictedImage, params: InstanceParams) -> float:
    found = decode(image.outputs[..., 0], image.outputs[..., 1], params, image.pixels)
    return evaluate(image.truth, found)["ap"]


def _distance(params: InstanceParams, default: InstanceParams) -> float:
    steps = (
        abs(getattr(params, name) - getattr(default, name)) / step for name, step in _STEPS.items()
    )
    return float(sum(steps))


def _standard_error(differences: NDArray[np.float64]) -> float:
    return float(differences.std(ddof=1) / np.sqrt(differences.size))
