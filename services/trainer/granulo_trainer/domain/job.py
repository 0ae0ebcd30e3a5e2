# SPDX-License-Identifier: GPL-3.0-or-later
"""One training run as a task's payload: what is trained, on what, and where it goes."""

import json
from dataclasses import asdict, dataclass

from granulo_trainer.domain.config import TrainingConfig


@dataclass(frozen=True)
class StoredImage:
    """An object in the store that holds an image."""

    key: str
    digest: str
    """Empty where the request did not say it."""
    name: str
    """What the user calls it."""


@dataclass(frozen=True)
class ValidationPair:
    """A validation image and, where known, its true labels."""

    image: StoredImage
    labels: StoredImage | None


@dataclass(frozen=True)
class TrainingJob:
    """Everything that the training task needs to know."""

    version: str
    """``models/<model>/versions/<n>``; also the prefix of its objects."""
    datasets: tuple[str, ...]
    config: TrainingConfig
    validation: tuple[ValidationPair, ...]
    weights: tuple[float, ...] = ()
    """Relative share of patches from each dataset; empty: in proportion to their scenes."""
    base_version: str = ""
    """``models/<model>/versions/<n>`` whose weights are the first ones; empty: fresh weights."""

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal jobs give equal bytes."""
        values = {**asdict(self), "config": self.config.to_json()}
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "TrainingJob":
        """Inverse of :meth:`to_bytes`."""
        values = json.loads(data)
        return cls(
            version=values["version"],
            datasets=tuple(values["datasets"]),
            config=TrainingConfig.from_json(values["config"]),
            validation=tuple(
                ValidationPair(
                    image=StoredImage(**pair["image"]),
                    labels=StoredImage(**pair["labels"]) if pair["labels"] else None,
                )
                for pair in values["validation"]
            ),
            weights=tuple(values["weights"]),
            base_version=values["base_version"],
        )
