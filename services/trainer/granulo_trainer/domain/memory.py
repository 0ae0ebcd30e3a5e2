# SPDX-License-Identifier: GPL-3.0-or-later
"""How much memory a training needs, roughly: to refuse what cannot fit before any work."""

from dataclasses import replace
from itertools import pairwise

from granulo_trainer.domain.config import TrainingConfig

_RUNTIME_BYTES = 640 << 20
"""TensorFlow, scenes and patches."""
_BYTES_PER_PARAMETER = 4 * 5
"""The weight, its gradient, Adam's two moments, and a copy while a checkpoint is written."""


def training_bytes(config: TrainingConfig) -> int:
    """Estimate the peak of a training's memory.

    Parameters
    ----------
    config : TrainingConfig

    Returns
    -------
    int
        Bytes: TensorFlow, the weights, and the feature maps of one forward pass (measured peaks:
        docs/performance.md). Maps are counted in the precision asked for, ``auto`` as the
        smallest: an estimate that refuses must not be too high.
    """
    value_bytes = 4 if config.precision == "float32" else 2
    pixels = config.batch_size * config.patch_px**2
    maps = value_bytes * _maps_per_pixel(config) * pixels
    return int(_RUNTIME_BYTES + _BYTES_PER_PARAMETER * _parameters(config) + maps)


def largest_batch(config: TrainingConfig, available_bytes: int) -> int:
    """Patches per mini-batch that fit; 0 where not a single one does."""
    fixed = training_bytes(replace(config, batch_size=1))
    per_patch = training_bytes(replace(config, batch_size=2)) - fixed
    return max(0, min(config.batch_size, 1 + (available_bytes - fixed) // max(1, per_patch)))


def largest_patch(config: TrainingConfig, available_bytes: int) -> int:
    """Largest ``patch_px`` that fits with one patch per mini-batch; 0 where none does."""
    sides = range(2 * config.stride, config.patch_px + 1, config.stride)
    fitting = [
        side
        for side in sides
        if training_bytes(replace(config, batch_size=1, patch_px=side)) <= available_bytes
    ]
    return max(fitting, default=0)


def smaller(config: TrainingConfig) -> str:
    """What to try when the memory did not suffice, as the end of a sentence."""
    if config.batch_size > 1:
        return f"train again with a batch_size of {config.batch_size // 2} or a smaller patch_px"
    half = max(2 * config.stride, config.patch_px // 2 // config.stride * config.stride)
    if half < config.patch_px:
        return f"train again with a patch_px of {half}"
    return "train again with a smaller width, or on a machine with more memory"


def _maps_per_pixel(config: TrainingConfig) -> float:
    """Values that a forward pass keeps, per pixel of a patch."""
    # A convolution, its normalisation and its activation each leave a map.
    first = 1 if config.predicts_instances else 0
    kept = 0.0
    for level, count in enumerate(config.filters):
        is_deepest = level == len(config.filters) - 1
        # Down: two convolutions. Up: two more, and what goes into them.
        maps = 6 * count if is_deepest else 15 * count
        kept += maps / 4.0 ** (level + first)
    return kept


def _parameters(config: TrainingConfig) -> int:
    """Weights of the paper's convolutions, and roughly of the others'; biases are few."""
    filters = config.filters
    down = sum(9 * a * b for a, b in zip((1, *filters), filters, strict=False))
    down += sum(9 * count * count for count in filters)
    up = sum((4 + 9) * deep * high + 9 * high * high for high, deep in pairwise(filters))
    return down + up
