# SPDX-License-Identifier: GPL-3.0-or-later
"""What a training run is made of, and the presets."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from granulo_core.imaging.normalise import InputConvention

Preset = Literal["small", "base", "paper"]
PRESETS: tuple[Preset, ...] = ("small", "base", "paper")
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
METADATA_NAME = "assets.extra/granulo.json"
"""Where an exported version says how to use it; TensorFlow Serving ignores the folder."""


class ConfigError(ValueError):
    """Settings that cannot be trained: all of them at once.

    Parameters
    ----------
    problems : sequence of (field, description)
        Fields are named as in the request.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(text for _, text in problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Network:
    """Which network: what its weights fit."""

    preset: Preset
    filters: tuple[int, ...]
    """Feature maps of each level; empty where they are not known."""


@dataclass(frozen=True)
class TrainingConfig:
    """Every number of a training run; frozen, and stored with each checkpoint."""

    preset: Preset
    """Which network, targets and loss."""
    filters: tuple[int, ...]
    """Feature maps of each level, finest first."""
    epochs: int
    """Epochs; a checkpoint and a validation prediction after each (M17)."""
    steps_per_epoch: int
    """Mini-batches per epoch."""
    batch_size: int
    """Patches per mini-batch."""
    patch_px: int
    """Side of a training patch; a multiple of the network's stride."""
    learning_rate: float
    """Peak rate of Adam."""
    seed: int
    """Seed of weights, patches and looks."""
    convention: InputConvention
    """How images become the network's input."""
    cosine_schedule: bool
    """Warm up and decay the rate along a cosine, instead of a constant rate."""
    uses_per_patch: int
    """How often a drawn patch is used, each time turned, flipped and relit anew."""
    patches_per_block: int
    """Patches among which the order is shuffled."""
    max_steps: int = 0
    """The run ends after so many mini-batches; 0 sets no limit."""
    max_minutes: float = 0.0
    """The run ends after so many minutes of training, all its parts together; 0 sets no limit."""
    early_stopping_epochs: int = 0
    """The run ends after so many epochs in a row without a better figure; 0 never."""
    precision: Precision = "auto"
    """What the network computes in; "auto" is the fastest that the device has."""
    deterministic: bool = False
    """Bit by bit the same weights every time, at the cost of speed."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained; field names are those of the request."""
        problems = list(_problems(self))
        if problems:
            raise ConfigError(problems)

    @property
    def stride(self) -> int:
        """Image sides must be multiples of this many pixels."""
        halvings = len(self.filters) - 1 + (1 if self.predicts_instances else 0)
        return int(2**halvings)

    @property
    def predicts_instances(self) -> bool:
        """Whether the network tells touching particles apart itself; the paper's does not."""
        return self.preset != "paper"

    @property
    def total_steps(self) -> int:
        """Most mini-batches of the whole run; early stopping and minutes may end it before."""
        steps = self.epochs * self.steps_per_epoch
        return min(steps, self.max_steps) if self.max_steps else steps

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return {**asdict(self), "filters": list(self.filters)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainingConfig":
        """Inverse of :meth:`to_json`."""
        known = {item.name for item in fields(cls)}
        unknown = set(values) - known
        if unknown:
            raise ValueError(f"unknown training settings: {', '.join(sorted(unknown))}")
        return cls(
            **{
                **values,
                "filters": tuple(values["filters"]),
                "convention": InputConvention.from_json(values["convention"]),
            }
        )


def _problems(config: TrainingConfig) -> Iterator[tuple[str, str]]:
    for name in (
        "epochs",
        "steps_per_epoch",
        "batch_size",
        "uses_per_patch",
        "patches_per_block",
    ):
        if getattr(config, name) < 1:
            yield name, f"{name} must be at least 1, got {getattr(config, name)}"
    for name in ("max_steps", "max_minutes", "early_stopping_epochs"):
        if not 0 <= getattr(config, name) < math.inf:
            yield name, f"{name} must be 0 (no limit) or more, got {getattr(config, name)}"
    if config.deterministic and config.max_minutes:
        text = (
            "deterministic and max_minutes exclude each other: how far a training gets in a given "
            "time differs from run to run; use max_steps"
        )
        yield "deterministic", text
    if config.precision not in PRECISIONS:
        yield "precision", f"precision {config.precision!r} is none of {', '.join(PRECISIONS)}"
    if not 0.0 < config.learning_rate <= 1.0:
        yield "learning_rate", f"learning_rate must lie in (0, 1], got {config.learning_rate!r}"
    if len(config.filters) < 2 or min(config.filters) < 1:
        yield "filters", f"filters needs two levels or more, got {config.filters}"
    elif config.patch_px < 2 * config.stride or config.patch_px % config.stride:
        text = (
            f"patch_px must be a multiple of {config.stride} and at least {2 * config.stride} for "
            f"the preset {config.preset!r}, got {config.patch_px}"
        )
        yield "patch_px", text


# Most feature maps are where there are few pixels: these cost parameters, and hardly any time
# (docs/decisions/0028-feature-maps.md).
_SMALL = TrainingConfig(
    preset="small",
    filters=(24, 48, 96, 192, 256),
    epochs=8,
    steps_per_epoch=40,
    batch_size=8,
    patch_px=256,
    learning_rate=0.002,
    seed=0,
    convention=InputConvention(),
    cosine_schedule=True,
    uses_per_patch=2,
    patches_per_block=64,
)

_BASE = replace(_SMALL, preset="base", filters=(32, 64, 128, 224, 288))

# M13, M15 and M16: CLAHE, the U-Net of 64 to 1024 feature maps, 500 epochs of 150 mini-batches of
# two 400 x 400 px patches, Adam at 0.001.
_PAPER = TrainingConfig(
    preset="paper",
    filters=(64, 128, 256, 512, 1024),
    epochs=500,
    steps_per_epoch=150,
    batch_size=2,
    patch_px=400,
    learning_rate=0.001,
    seed=0,
    convention=InputConvention(
        low_percentile=0.0, high_percentile=100.0, white_level=255, clahe_clip_limit=2.0
    ),
    cosine_schedule=False,
    uses_per_patch=1,
    patches_per_block=60,
)


_PRESETS = {config.preset: config for config in (_SMALL, _BASE, _PAPER)}


def preset_config(preset: str, *, width: float = 1.0, **overrides: Any) -> TrainingConfig:
    """A preset with some of its values replaced.

    Parameters
    ----------
    preset : {"small", "base", "paper"}
    width : float
        Factor on the numbers of feature maps.
    **overrides
        Fields of :class:`TrainingConfig`.

    Raises
    ------
    ConfigError
        For an unknown preset, or values that cannot be trained; names all of them.
    """
    if preset not in _PRESETS:
        text = f"unknown preset {preset!r}; there are: {', '.join(PRESETS)}"
        raise ConfigError([("preset", text)])
    base = _PRESETS[preset]
    problems: list[tuple[str, str]] = []
    if not 0.0 < width <= 4.0:
        problems.append(("width", f"width must lie in (0, 4], got {width!r}"))
    elif width != 1.0:
        overrides.setdefault("filters", tuple(max(1, round(width * n)) for n in base.filters))
    try:
        config = replace(base, **overrides)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    return config
