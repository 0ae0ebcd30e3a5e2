# SPDX-License-Identifier: Apache-2.0
"""An adaptation as studies: one with the base model, one that trains it further."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from granulo_client.errors import UsageError
from granulo_client.recipes import is_recipe_file
from granulo_client.study import (
    EvaluateSection,
    RenderItem,
    SegmentSection,
    Study,
    TrainingItem,
    TrainSection,
    ValidationItem,
)

BASE_MODEL = "default"
"""The model that is adapted."""
REPLAY_RECIPE = "mixed_any"
"""Its scenes are trained on beside the material's, so that the rest is not forgotten."""
STEPS_PER_EPOCH = 40

# Not yet chosen by measurement: benchmarks/adapt.py compares values, see docs/adapt.md.
_REPLAY_SHARE = 0.25
_LEARNING_RATE = 0.0005
_MAX_EPOCHS = 1000
_HELD_OUT_SCENES = 8
_HELD_OUT_SEED = 1_000_003
"""Added to the seed: renders that no training with a seed near by has seen."""
_MAX_VALIDATION = 4
_MAX_VALIDATION_BYTES = 32 * 1024 * 1024
_PATCH_PX = 256
_STRIDE_PX = 32


@dataclass(frozen=True)
class Adaptation:
    """What the user asks for, checked."""

    images: tuple[Path, ...]
    recipe: str
    """A preset, or a recipe file."""
    model: str
    """Name of the adapted model."""
    scenes: int
    minutes: float | None
    """Of training; None where ``steps`` are given."""
    steps: int | None
    seed: int
    pixel_size_nm: float | None
    size_px: int | None
    """Side of the scenes; the recipe's by default."""
    truth: Path | None
    content_height_px: int


def model_name(recipe: str) -> str:
    """Name of the adapted model where the user gives none: ``mine.yaml`` to ``mine-adapted``."""
    words = re.sub(r"[^a-z0-9_-]+", "-", Path(recipe).stem.lower()).strip("-_")
    return f"{words[:50] or 'model'}-adapted"


def after_study(asked: Adaptation, base: str, scene_px: int) -> Study:
    """The study that renders, trains the base further, and measures the result.

    Parameters
    ----------
    asked : Adaptation
    base : str
        Resource name of the version to begin with.
    scene_px : int
        Side of the scenes.

    Raises
    ------
    UsageError
        The scenes are too small to train on.
    """
    recipe = _absolute(asked.recipe)
    replayed = max(1, asked.scenes // 2)
    epochs = _MAX_EPOCHS if asked.steps is None else -(-asked.steps // STEPS_PER_EPOCH)
    return Study(
        render=(
            _training(recipe, asked.scenes, asked, 1.0 - _REPLAY_SHARE),
            _training(REPLAY_RECIPE, replayed, asked, _REPLAY_SHARE),
        ),
        train=TrainSection(
            model=asked.model,
            base_version=base,
            epochs=epochs,
            steps_per_epoch=STEPS_PER_EPOCH,
            patch_px=_patch_px(scene_px),
            learning_rate=_LEARNING_RATE,
            seed=asked.seed,
            max_steps=asked.steps,
            max_minutes=asked.minutes,
            validation=tuple(ValidationItem(image=path) for path in _validation(asked.images)),
        ),
        segment=_segment(asked, recipe, None),
        evaluate=_evaluate(asked),
    )


def before_study(asked: Adaptation, base: str) -> Study:
    """The study that measures the base on the same images and the same held-out renders."""
    return Study(segment=_segment(asked, _absolute(asked.recipe), base), evaluate=_evaluate(asked))


def _segment(asked: Adaptation, recipe: str, model: str | None) -> SegmentSection:
    # A few scenes need not be measured on many.
    heldout = min(_HELD_OUT_SCENES, max(2, asked.scenes // 2))
    seed = asked.seed + _HELD_OUT_SEED
    return SegmentSection(
        images=tuple(str(path) for path in asked.images),
        heldout=(RenderItem(recipe=recipe, count=heldout, seed=seed, size_px=asked.size_px),),
        model=model,
        pixel_size_nm=asked.pixel_size_nm,
    )


def _evaluate(asked: Adaptation) -> EvaluateSection | None:
    if asked.truth is None:
        return None
    return EvaluateSection(truth=asked.truth.absolute(), content_height_px=asked.content_height_px)


def _training(recipe: str, count: int, asked: Adaptation, weight: float) -> TrainingItem:
    return TrainingItem(
        recipe=recipe, count=count, seed=asked.seed, size_px=asked.size_px, weight=weight
    )


def _absolute(recipe: str) -> str:
    """A recipe file by its whole path, so that the study may lie anywhere; a preset's name."""
    return str(Path(recipe).absolute()) if is_recipe_file(recipe) else recipe


def _patch_px(scene_px: int) -> int | None:
    """Side of the patches: the preset's, unless the scenes are smaller."""
    if scene_px >= _PATCH_PX:
        return None
    side = scene_px // _STRIDE_PX * _STRIDE_PX
    if side < 2 * _STRIDE_PX:
        raise UsageError(
            f"scenes of {scene_px} px are too small to train on; give --size {2 * _STRIDE_PX} or "
            "more (the recipe's imaging.size_px, where --size is left out)."
        )
    return side


def _validation(images: Sequence[Path]) -> list[Path]:
    """A few of the images, evenly chosen: each costs three predictions an epoch."""
    small = [path for path in images if path.stat().st_size <= _MAX_VALIDATION_BYTES]
    count = min(_MAX_VALIDATION, len(small))
    return [small[(2 * i + 1) * len(small) // (2 * count)] for i in range(count)]
