# SPDX-License-Identifier: GPL-3.0-or-later
"""What the workflow tells its tasks: plain values that travel as JSON."""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import TypeAdapter

from granulo_analyzer.domain.jobs import StoredFile
from granulo_core.imaging.profiles import Line

SetName = Literal["real", "synthetic"]


class _Job:
    def to_bytes(self) -> bytes:
        """JSON."""
        return TypeAdapter(type(self)).dump_json(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote."""
        return TypeAdapter(cls).validate_json(data)


@dataclass(frozen=True)
class ImageOfSet:
    """One micrograph of a set."""

    set_name: SetName
    number: int
    """Place in the set, from 1."""
    file: StoredFile

    @property
    def field(self) -> str:
        """Of the request."""
        return f"{self.set_name}[{self.number - 1}]"


@dataclass(frozen=True)
class ComparisonSettings:
    """What changes the figures beside the images."""

    patch_px: int
    max_patches: int
    """Of each set."""
    perplexity: float
    seed: int
    vgg16_weights: StoredFile | None = None
    """None: the built-in features."""
    line: Line | None = None
    """Of the profile through the first images."""
    line_width_px: float = 1.0

    @property
    def features(self) -> str:
        """What describes a patch, in words."""
        if self.vgg16_weights is None:
            return "built-in texture features"
        return "VGG16, 1000 outputs before the softmax"


@dataclass(frozen=True)
class DescribeJob(_Job):
    """The patches of one image, as numbers."""

    comparison: str
    """``comparisons/<id>``."""
    image: ImageOfSet
    most: int
    """Patches of this image."""
    settings: ComparisonSettings
    max_px: int


@dataclass(frozen=True)
class DescribedImage:
    """What is known of one image."""

    image: ImageOfSet
    table: StoredFile
    """Features and corners of its patches."""
    noise: float
    edge_width_px: float | None
    """None where no edge stands out."""


@dataclass(frozen=True)
class CompareJob(_Job):
    """The whole comparison."""

    comparison: str
    images: tuple[DescribedImage, ...]
    settings: ComparisonSettings
    max_px: int
