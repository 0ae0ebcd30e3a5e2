# SPDX-License-Identifier: GPL-3.0-or-later
"""What the workflow tells its tasks: plain values that travel as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from granulo_analyzer.domain.counting import MILES_LANTUEJOUL
from granulo_analyzer.domain.settings import AnalysisSettings

PixelSizeNm = tuple[float, float]


@dataclass(frozen=True)
class StoredFile:
    """An object of the store under the name that the user knows it by."""

    key: str
    digest: str
    name: str


@dataclass(frozen=True)
class MeasureJob:
    """One image to measure."""

    analysis: str
    """``analyses/<id>``, under which the results go."""
    number: int
    """Place in the set, from 1."""
    name: str
    """Name of the image in tables and report."""
    field: str
    """The request field that errors name, e.g. ``analysis.label_set.items[2]``."""
    labels: StoredFile
    image: StoredFile | None
    pixel_size_nm: PixelSizeNm | None
    """Goes before what the files say."""
    content_height_px: int
    """Rows from here on are a data bar; 0: look for one in the micrograph."""
    max_px: int
    page: int = 0
    """Which image of the micrograph's file, counted from 0."""
    particles: StoredFile | None = None
    """CSV with what only who made the labels can tell of a particle."""
    amodal: StoredFile | None = None
    """Pages with the whole particles."""
    rule: str = MILES_LANTUEJOUL.name
    """Counting rule, for the picture."""
    min_confidence: float = 0.0

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All that the job reads."""
        every = (self.labels, self.image, self.particles, self.amodal)
        return tuple(file for file in every if file)

    @property
    def file_stem(self) -> str:
        """Stem of the result files: unique, and made of what every file system bears."""
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in self.name)
        return f"{self.number:04d}_{plain[:80]}"

    def to_bytes(self) -> bytes:
        """JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "MeasureJob":
        """Read what `to_bytes` wrote."""
        values = json.loads(data)
        for name in ("labels", "image", "particles", "amodal"):
            values[name] = StoredFile(**values[name]) if values[name] else None
        values["pixel_size_nm"] = _pair(values["pixel_size_nm"])
        return cls(**values)


@dataclass(frozen=True)
class MeasuredFile:
    """What the report needs of one measured image."""

    name: str
    width_px: int
    height_px: int
    pixel_size_nm: PixelSizeNm | None
    table: StoredFile
    overlay: StoredFile
    masks: StoredFile


@dataclass(frozen=True)
class ReportJob:
    """The statistics and the report of the whole set."""

    analysis: str
    created: str
    """RFC 3339."""
    images: tuple[MeasuredFile, ...]
    settings: AnalysisSettings
    lineage: tuple[tuple[str, str, str], ...]
    """Role, name and digest of everything the analysis was made from."""
    producer: Mapping[str, Any]
    """``version``, ``git_revision`` and ``packages``."""

    def to_bytes(self) -> bytes:
        """JSON."""
        values = {**asdict(self), "settings": self.settings.to_json()}
        return json.dumps(values).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "ReportJob":
        """Read what `to_bytes` wrote."""
        values = json.loads(data)
        values["images"] = tuple(
            MeasuredFile(
                **{
                    **item,
                    "pixel_size_nm": _pair(item["pixel_size_nm"]),
                    "table": StoredFile(**item["table"]),
                    "overlay": StoredFile(**item["overlay"]),
                    "masks": StoredFile(**item["masks"]),
                }
            )
            for item in values["images"]
        )
        values["settings"] = AnalysisSettings.from_json(values["settings"])
        values["lineage"] = tuple((role, name, digest) for role, name, digest in values["lineage"])
        return cls(**values)


def _pair(values: list[float] | None) -> PixelSizeNm | None:
    return (values[0], values[1]) if values else None
