# SPDX-License-Identifier: Apache-2.0
"""Which true label image belongs to which predicted one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from granulo.analyzer.v1.analyzer_service_pb2 import EvaluationPair
from granulo_client.errors import UsageError
from granulo_client.results import LABELS_ENDING

_INSTANCES = EvaluationPair.TRUTH_KIND_INSTANCES
_BINARY = EvaluationPair.TRUTH_KIND_BINARY_4_CONNECTED
_IMAGE_ENDINGS = (".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg")
MICROGRAPH_ENDINGS = (*_IMAGE_ENDINGS, ".dm3", ".dm4", ".ser", ".emd", ".mrc", ".zip")
"""Of the files that Granulo reads; the content decides, so any other name will do for one file."""


@dataclass(frozen=True)
class TruthPair:
    """A predicted label image and its truth."""

    predicted: Path
    truth: Path
    kind: "EvaluationPair.TruthKind.ValueType"


def find_pairs(predicted: Path, truth: Path) -> list[TruthPair]:
    """Pair every ``X_labels.tif`` of a folder with its truth.

    Raises
    ------
    UsageError
        A folder is missing or has no labels, or a prediction has no truth.
    """
    for folder in (predicted, truth):
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder. Check the path.")
    files = sorted(predicted.glob(f"*{LABELS_ENDING}"))
    if not files:
        raise UsageError(f"{predicted} has no *{LABELS_ENDING}; `granulo segment` writes them.")
    return [find_truth(file, truth) for file in files]


def find_truth(predicted: Path, folder: Path) -> TruthPair:
    """Truth of ``X_labels.tif``: the first of the candidates that exists.

    Raises
    ------
    UsageError
        None exists; names them all.
    """
    stem = predicted.name.removesuffix(LABELS_ENDING)
    tried = list(_candidates(stem))
    for name, kind in tried:
        path = folder / name
        if path.is_file() and path.resolve() != predicted.resolve():
            return TruthPair(predicted, path, kind)
    raise UsageError(
        f"{folder} has no true labels for {predicted.name}; looked for "
        f"{', '.join(name for name, _ in tried)}. Rename the file, or move the prediction away."
    )


def find_labels(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Pair every micrograph of a folder with its labels, by the names that `find_truth` knows.

    Files whose names end like labels are no micrographs, so both may lie in one folder.

    Raises
    ------
    UsageError
        A folder is missing or has no micrograph, two micrographs share a stem, or some have no
        labels; names all of these.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder. Check the path.")
    files = [path for path in sorted(images.iterdir()) if is_micrograph(path)]
    if not files:
        raise UsageError(f"{images} has no micrograph; known are {', '.join(_IMAGE_ENDINGS)}.")
    stems = [path.stem for path in files]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise UsageError(
            f"{images} has several images called {', '.join(twice)}, which differ only in their "
            "endings; move all but one away."
        )
    found = {path: _labels_of(path, labels) for path in files}
    lonely = [path for path, truth in found.items() if truth is None]
    if lonely:
        tried = ", ".join(name for name, _ in _candidates(lonely[0].stem))
        raise UsageError(
            f"{labels} has no labels for {', '.join(path.name for path in lonely)}; for the first "
            f"it was looked for {tried}. Add them, or move the images away."
        )
    return [(path, truth) for path, truth in found.items() if truth is not None]


def find_micrographs(folder: Path) -> list[Path]:
    """Micrographs of a folder in order; what ends like labels or no known format is none.

    Nor is what `granulo render --export` writes beside ``X_image.tif``.

    Raises
    ------
    UsageError
        It is no folder, or has no micrograph.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder. Check the path.")
    files = [path for path in sorted(folder.iterdir()) if is_micrograph(path, MICROGRAPH_ENDINGS)]
    found = [path for path in files if not _is_layer(path)]
    if not found:
        raise UsageError(f"{folder} has no micrograph; known are {', '.join(MICROGRAPH_ENDINGS)}.")
    return found


def is_micrograph(path: Path, endings: tuple[str, ...] = _IMAGE_ENDINGS) -> bool:
    """Whether a file ends like a micrograph, and not like labels."""
    is_labels = path.name.endswith((LABELS_ENDING, "_labels.png", "_m.tif"))
    return path.is_file() and path.suffix.lower() in endings and not is_labels


def _is_layer(path: Path) -> bool:
    """Whether a file is a mask, a depth or whole particles that belong to a rendered image."""
    stem, _, layer = path.stem.rpartition("_")
    return layer in ("mask", "amodal", "depth") and path.with_name(f"{stem}_image.tif").is_file()


def _labels_of(image: Path, folder: Path) -> Path | None:
    paths = (folder / name for name, _ in _candidates(image.stem))
    return next((p for p in paths if p.is_file() and p.resolve() != image.resolve()), None)


def _candidates(stem: str) -> Iterator[tuple[str, "EvaluationPair.TruthKind.ValueType"]]:
    yield f"{stem}_labels.tif", _INSTANCES
    yield f"{stem}_labels.png", _INSTANCES
    yield f"{stem}_m.tif", _BINARY
    # What `granulo render --export` calls 000000_image.tif has its truth in 000000_labels.tif;
    # 000000_image.tif itself, which the next candidates would find, is the micrograph.
    if stem.endswith("_image"):
        yield f"{stem.removesuffix('_image')}_labels.tif", _INSTANCES
    yield f"{stem}.png", _INSTANCES
    yield f"{stem}.tif", _INSTANCES
