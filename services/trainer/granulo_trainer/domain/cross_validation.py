# SPDX-License-Identifier: GPL-3.0-or-later
"""Cross-validation on annotated images (M19): folds, the choice of an epoch, means."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from granulo_trainer.domain.config import TrainingConfig

VALIDATION_ERROR = "validation_loss"
"""Figure of an epoch that M19 calls the validation error: the loss on the images left out."""
_FOLD_STREAM = 4


@dataclass(frozen=True)
class FoldJob:
    """Everything that the task of one fold needs to know."""

    name: str
    """``cross-validations/<id>``; also the prefix of its objects."""
    fold: int
    """From 0."""
    folds: int
    dataset: str
    """``annotated/<id>``"""
    left_out: tuple[str, ...]
    """Stems of the images that the fold is scored on."""
    config: TrainingConfig
    datasets: tuple[str, ...]
    """What is trained on besides."""
    weights: tuple[float, ...]
    """Relative share of patches from ``dataset`` and each of ``datasets``; empty: in proportion."""

    @property
    def folder(self) -> str:
        """Prefix of the fold's objects."""
        return f"{self.name}/folds/{self.fold:03d}"

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal jobs give equal bytes."""
        values = {**asdict(self), "config": self.config.to_json()}
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "FoldJob":
        """Inverse of :meth:`to_bytes`."""
        values = json.loads(data)
        for field in ("left_out", "datasets", "weights"):
            values[field] = tuple(values[field])
        return cls(**{**values, "config": TrainingConfig.from_json(values["config"])})


def assign_folds(count: int, folds: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Divide images into folds of nearly equal size.

    Parameters
    ----------
    count : int
        Number of images, at least 2.
    folds : int
        2 to ``count``, or 0 for one fold an image, in their order (leave-one-out).
    seed : int
        Equal seeds give equal folds.

    Returns
    -------
    tuple of tuple of int
        Every image is in exactly one fold.
    """
    if folds == 0:
        return tuple((image,) for image in range(count))
    order = np.random.default_rng([seed, _FOLD_STREAM]).permutation(count)
    return tuple(tuple(sorted(int(image) for image in order[k::folds])) for k in range(folds))


def best_epoch(history: Sequence[Mapping[str, float]]) -> int:
    """Epoch with the lowest validation error, from 1; among equals the first.

    Raises
    ------
    ValueError
        When no epoch has one.
    """
    ranked = [
        (figures[VALIDATION_ERROR], epoch)
        for epoch, figures in enumerate(history, start=1)
        if math.isfinite(figures.get(VALIDATION_ERROR, math.nan))
    ]
    if not ranked:
        raise ValueError("no epoch has a validation error to choose by")
    return min(ranked)[1]


def means(images: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each figure over images."""
    return {name: float(np.mean([image[name] for image in images])) for name in images[0]}


def means_and_deviations(images: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each figure over images, and ``<figure>_stddev``, that of a sample (n - 1)."""
    found = means(images)
    for name in images[0]:
        values = [image[name] for image in images]
        found[f"{name}_stddev"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return found
