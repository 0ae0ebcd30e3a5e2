# SPDX-License-Identifier: GPL-3.0-or-later
"""What a training run is made of, and the two presets."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from granulo_core.imaging.normalise import InputConvention

Preset = Literal["small", "paper"]
PRESETS: tuple[Preset, ...] = ("small", "paper")
METADATA_NAME = "assets.extra/granulo.json"
"""Where an exported version says how to use it; TensorFlow Serving ignores the folder."""


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

    def __post_init__(self) -> None:
        """Refuse what cannot be trained; field names are those of the request."""
        for name in (
            "epochs",
            "steps_per_epoch",
            "batch_size",
            "uses_per_patch",
            "patches_per_block",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 < self.learning_rate <= 1.0:
            raise ValueError(f"learning_rate must lie in (0, 1], got {self.learning_rate!r}")
        if self.patch_px < 2 * self.stride or self.patch_px % self.stride:
            raise ValueError(
                f"patch_px must be a multiple of {self.stride} and at least {2 * self.stride} for "
                f"the preset {self.preset!r}, got {self.patch_px}"
            )
        if len(self.filters) < 2 or min(self.filters) < 1:
            raise ValueError(f"filters needs two levels or more, got {self.filters}")

    @property
    def stride(self) -> int:
        """Image sides must be multiples of this many pixels."""
        halvings = len(self.filters) - 1 + (1 if self.preset == "small" else 0)
        return int(2**halvings)

    @property
    def total_steps(self) -> int:
        """Mini-batches of the whole run."""
        return self.epochs * self.steps_per_epoch

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


_SMALL = TrainingConfig(
    preset="small",
    filters=(24, 48, 72, 112, 144),
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


def preset_config(preset: str, **overrides: Any) -> TrainingConfig:
    """A preset with some of its values replaced.

    Parameters
    ----------
    preset : {"small", "paper"}
    **overrides
        Fields of :class:`TrainingConfig`.

    Raises
    ------
    ValueError
        For an unknown preset, or values that cannot be trained.
    """
    if preset == "small":
        return replace(_SMALL, **overrides)
    if preset == "paper":
        return replace(_PAPER, **overrides)
    raise ValueError(f"unknown preset {preset!r}; there are: {', '.join(PRESETS)}")
