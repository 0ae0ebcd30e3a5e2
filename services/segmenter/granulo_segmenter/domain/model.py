# SPDX-License-Identifier: GPL-3.0-or-later
"""What the segmenter must know of a network: ``assets.extra/granulo.json`` of its SavedModel."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from granulo_core.imaging.instances import InstanceParams
from granulo_core.imaging.normalise import InputConvention
from granulo_core.imaging.scale import ScaleParams

FORMAT = 1
FOREGROUND = "foreground"
DISTANCE = "distance"
MAX_TILE_PX = 1024
"""Pixels travel in messages only between segmenter and model server: a tile must fit into one."""


@dataclass(frozen=True)
class ModelFacts:
    """How to prepare a network's input and to read its outputs."""

    stride: int = 16
    """Sides of its input are multiples of this."""
    tile_px: int = MAX_TILE_PX
    """Suggested side of a tile."""
    outputs: tuple[str, ...] = (FOREGROUND, DISTANCE)
    convention: InputConvention = field(default_factory=InputConvention)
    instances: InstanceParams = field(default_factory=InstanceParams)
    scale: ScaleParams | None = None
    """The particle size that it likes best; None predicts at the image's own scale only."""

    def __post_init__(self) -> None:
        """Refuse what no image could be tiled for."""
        if not 1 <= self.stride <= MAX_TILE_PX // 4:
            raise ValueError(f"stride must lie between 1 and {MAX_TILE_PX // 4}, got {self.stride}")
        if not 4 * self.stride <= self.tile_px <= MAX_TILE_PX or self.tile_px % self.stride:
            raise ValueError(
                f"tile_px must be a multiple of the stride {self.stride} between 4 strides and "
                f"{MAX_TILE_PX}, got {self.tile_px}"
            )
        if FOREGROUND not in self.outputs:
            raise ValueError(f"outputs must contain {FOREGROUND!r}, got {list(self.outputs)}")

    @property
    def has_distance(self) -> bool:
        """Whether instances can be divided by the network's own distance."""
        return DISTANCE in self.outputs

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {
            "format": FORMAT,
            "stride": self.stride,
            "tile_px": self.tile_px,
            "outputs": list(self.outputs),
            "input": self.convention.to_json(),
            "instances": self.instances.to_json(),
            **({"scale": self.scale.to_json()} if self.scale else {}),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ModelFacts":
        """Read ``granulo.json``.

        Raises
        ------
        ValueError, KeyError, TypeError
            When it is of a newer format or holds unusable values.
        """
        if content.get("format") != FORMAT:
            raise ValueError(f"format must be {FORMAT}, got {content.get('format')!r}")
        return cls(
            stride=int(content["stride"]),
            tile_px=int(content["tile_px"]),
            outputs=tuple(str(name) for name in content["outputs"]),
            convention=InputConvention.from_json(dict(content["input"])),
            instances=InstanceParams.from_json(dict(content["instances"])),
            scale=ScaleParams.from_json(dict(content["scale"])) if "scale" in content else None,
        )


@dataclass(frozen=True)
class ServedModel:
    """A model version as the model server knows it."""

    name: str
    """Of the model among those of its tenant."""
    version: int
    tenant: str = ""

    @property
    def server_name(self) -> str:
        """Its name on the model server, which all tenants share; no model's name has a dot."""
        return f"{self.tenant}.{self.name}" if self.tenant else self.name

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"


@dataclass(frozen=True)
class ResolvedModel:
    """What a request's model name means now."""

    served: ServedModel
    facts: ModelFacts
    digest: str
    """Of the SavedModel's files: everything that the outputs depend on."""

    @property
    def resource(self) -> str:
        """``models/<model>/versions/<version>``."""
        return f"models/{self.served.name}/versions/{self.served.version}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.served.name,
            "version": self.served.version,
            "tenant": self.served.tenant,
            "facts": self.facts.to_json(),
            "digest": self.digest,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ResolvedModel":
        """Read what `to_json` gave."""
        return cls(
            served=ServedModel(content["name"], content["version"], content.get("tenant", "")),
            facts=ModelFacts.from_json(content["facts"]),
            digest=content["digest"],
        )
