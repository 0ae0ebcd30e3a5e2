# SPDX-License-Identifier: GPL-3.0-or-later
"""What one task is told, and how results are named."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from granulo_segmenter.domain.model import ResolvedModel
from granulo_segmenter.domain.options import Options

_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9._=-]+")
_SEPARATORS = re.compile(r"[\\/]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_MAX_STEM = 100


@dataclass(frozen=True)
class SourceImage:
    """An image in the object store."""

    key: str
    digest: str
    name: str
    """What the user calls the file."""
    page: int = 0
    """Which image of the file, counted from 0."""
    pages: int = 1
    """How many there are."""


@dataclass(frozen=True)
class Outputs:
    """What is written beside labels and particle table."""

    overlay: bool = True
    rois: bool = False
    coco: bool = False
    probabilities: bool = False


@dataclass(frozen=True)
class SegmentJob:
    """Segment one image and store its results."""

    image: SourceImage
    stem_key: str
    """Keys of the results are this and an ending, ``_labels.tif`` and so on."""
    outputs: Outputs
    model: ResolvedModel
    options: Options
    pixel_size_nm: tuple[float, float] | None
    """Goes before the file's own."""
    model_server: str
    patience_s: float
    timeout_s: float
    max_px: int
    memory_px: int
    """Larger images are worked through in files."""

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        content = {
            **asdict(self),
            "model": self.model.to_json(),
            "options": self.options.to_json(),
        }
        return json.dumps(content, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "SegmentJob":
        """Read what `to_bytes` wrote."""
        content = json.loads(data)
        size = content["pixel_size_nm"]
        return cls(
            **{
                **content,
                "image": SourceImage(**content["image"]),
                "outputs": Outputs(**content["outputs"]),
                "model": ResolvedModel.from_json(content["model"]),
                "options": Options.from_json(content["options"]),
                "pixel_size_nm": (size[0], size[1]) if size else None,
            }
        )


def file_name(display_name: str, key: str) -> str:
    """Name of a file without its folders, as its user knows it."""
    name = _CONTROL.sub(" ", _SEPARATORS.split(display_name)[-1]).strip()
    return name or key.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class ResultStem:
    """How the results of one image are named."""

    key: str
    """Part of a key in the object store: few characters, unique also where case does not count."""
    shown: str
    """For people: the stem of the image's own name, numbered like the key."""


def page_names(images: Sequence[SourceImage]) -> list[str]:
    """File names; of files with several images with the page's number, ``stack_p2.tif``."""
    names = []
    for image in images:
        stem, dot, ending = image.name.rpartition(".")
        named = (stem, dot + ending) if stem else (image.name, "")
        number = f"_p{image.page + 1}" if image.pages > 1 else ""
        names.append(named[0] + number + named[1])
    return names


def result_stems(names: Sequence[str]) -> list[ResultStem]:
    """Name the results of files: the files' stems, numbered where two are the same.

    Parameters
    ----------
    names : sequence of str
        File names without folders; see `page_names`.

    Returns
    -------
    list of ResultStem
        One a name.
    """
    shown = [name.rsplit(".", 1)[0] if "." in name.strip(".") else name for name in names]
    wanted = [_NOT_IN_KEYS.sub("_", stem).strip(".")[:_MAX_STEM] or "image" for stem in shown]
    count = Counter(stem.lower() for stem in wanted)
    taken: set[str] = set()
    stems = []
    for stem, original in zip(wanted, shown, strict=True):
        own, number = stem, 1
        # Who has a name of his own keeps it: "a_2" stays "a_2" beside two files called "a".
        while own.lower() in taken or (number > 1 and own.lower() in count):
            number += 1
            own = f"{stem}_{number}"
        taken.add(own.lower())
        stems.append(ResultStem(own, original if number == 1 else f"{original}_{number}"))
    return stems
