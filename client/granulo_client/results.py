# SPDX-License-Identifier: Apache-2.0
"""Which files results become, and results as plain values."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from granulo.analyzer.v1.analyzer_service_pb2 import (
    Analysis,
    EvaluateSegmentationResponse,
    Figure,
)
from granulo.segmenter.v1.segmenter_service_pb2 import SegmentedImage
from granulo.type.v1.artifact_pb2 import Artifact, PixelSize
from granulo_client import statistics
from granulo_client.client import Client

LABELS_ENDING = "_labels.tif"
_ENDINGS = {
    "labels": LABELS_ENDING, "particles": "_particles.csv", "overlay": "_overlay.png",
    "rois": "_rois.zip", "coco": "_coco.json", "probabilities": "_probabilities.tif",
}  # fmt: skip

Files = list[tuple[Artifact | str, Path]]


def unique_stems(names: Sequence[str]) -> list[str]:
    """Stems of file names; repeated ones get ``_2``, ``_3`` and so on."""
    stems: list[str] = []
    taken: set[str] = set()
    for name in names:
        stem = first = PurePosixPath(name).stem
        number = 1
        while stem in taken:
            number += 1
            stem = f"{first}_{number}"
        taken.add(stem)
        stems.append(stem)
    return stems


def by_image(
    results: Sequence[SegmentedImage], images: Sequence[Artifact]
) -> list[list[SegmentedImage]]:
    """Results of each image, in its order: one a page, none where the image failed."""
    waiting = deque(results)
    found: list[list[SegmentedImage]] = []
    for image in images:
        own: list[SegmentedImage] = []
        while waiting and waiting[0].image.uri == image.uri:
            # The same file may have been named twice.
            if own and waiting[0].page <= own[-1].page:
                break
            own.append(waiting.popleft())
        found.append(own)
    return found


def result_stem(stem: str, result: SegmentedImage) -> str:
    """Stem of a result's files: the image's, with the page's number where it has several."""
    return f"{stem}_p{result.page}" if result.page else stem


def segmentation_files(
    results: Sequence[Sequence[SegmentedImage]], stems: Sequence[str], folder: Path
) -> Files:
    """Everything that was written of each image, as ``<stem>_labels.tif`` and so on."""
    files: Files = []
    for pages, stem in zip(results, stems, strict=True):
        for result in pages:
            present = _present(result)
            for kind, ending in _ENDINGS.items():
                if kind in present:
                    path = folder / f"{result_stem(stem, result)}{ending}"
                    files.append((getattr(result, kind), path))
    return files


def segmented_documents(
    results: Sequence[Sequence[SegmentedImage]],
    images: Sequence[str],
    stems: Sequence[str],
    folder: Path,
) -> list[dict[str, Any]]:
    """Segmented images as plain values, in their order; one that failed has no labels."""
    return [
        _segmented_document(result, image, result_stem(stem, result), folder)
        for pages, image, stem in zip(results, images, stems, strict=True)
        for result in pages or [SegmentedImage()]
    ]


def _present(result: SegmentedImage) -> set[str]:
    return {field.name for field, _ in result.ListFields()}


def _segmented_document(
    result: SegmentedImage, image: str, stem: str, folder: Path
) -> dict[str, Any]:
    document: dict[str, Any] = {"image": image, "labels": None}
    present = _present(result)
    for kind, ending in _ENDINGS.items():
        if kind in present:
            document[kind] = str(folder / f"{stem}{ending}")
    return {
        **document,
        "page": result.page or None,
        "particle_count": result.particle_count,
        "inverted": result.inverted,
        "pixel_size_nm": pixel_size(result.pixel_size) if result.HasField("pixel_size") else None,
        "content_height_px": result.content_height_px or None,
    }


def analysis_files(client: Client, analysis: Analysis, folder: Path) -> Files:
    """Table, summary, report, outlines, masks and pictures of an analysis."""
    files: Files = [
        (analysis.table, folder / "particles.csv"),
        (analysis.summary, folder / "summary.json"),
        (analysis.report, folder / "report.html"),
    ]
    # Analyses of earlier versions have none of these.
    for artifact, name in ((analysis.parquet, "particles.parquet"), (analysis.coco, "coco.json")):
        if artifact.uri:
            files.append((artifact, folder / name))
    prefix = f"{analysis.name}/"
    files += [
        (item, folder.joinpath(*PurePosixPath(item.uri.removeprefix(prefix)).parts))
        for item in analysis.rois
    ]
    for item in client.manifest(analysis.manifest)["objects"]:
        key = str(item["key"])
        if key.startswith(prefix) and key.endswith(".png"):
            files.append((key, folder.joinpath(*PurePosixPath(key.removeprefix(prefix)).parts)))
    return files


def analysis_document(analysis: Analysis, folder: Path) -> dict[str, Any]:
    """An analysis as plain values."""
    return {
        "analysis": analysis.name,
        "particle_count": analysis.particle_count,
        **statistics.analysis_statement(analysis),
        "summaries": [statistics.summary_document(item) for item in analysis.summaries],
        "table": str(folder / "particles.csv"),
        "summary": str(folder / "summary.json"),
        "report": str(folder / "report.html"),
    }


def analysis_lines(analysis: Analysis, folder: Path) -> list[str]:
    """An analysis for people."""
    return [
        f"{analysis.particle_count} particles",
        *statistics.analysis_lines(analysis),
        f"report: {folder / 'report.html'}",
    ]


def evaluation_document(answer: EvaluateSegmentationResponse) -> dict[str, Any]:
    """An evaluation as plain values; what is not known is None."""
    return {
        "metrics": dict(sorted(answer.metrics.items())),
        "images": [
            {
                "image": item.image,
                **({"candidate": item.candidate} if item.candidate else {}),
                "metrics": dict(sorted(item.metrics.items())),
            }
            for item in answer.images
        ],
        "candidates": [
            {
                "candidate": item.candidate,
                "metrics": _figures(item.metrics),
                "detection_curve": [
                    {
                        "ecd_px": [_known(part.min_ecd_px), _known(part.max_ecd_px)],
                        "true_particles": part.true_particles,
                        **_figures([part.rate]),
                    }
                    for part in item.detection_curve
                ],
            }
            for item in answer.candidates
        ],
        "differences": [
            {
                "candidate": item.candidate,
                "reference": item.reference,
                "images": item.images,
                "metrics": _figures(item.metrics),
            }
            for item in answer.differences
        ],
    }


def _figures(figures: Iterable[Figure]) -> dict[str, dict[str, float | None]]:
    return {
        item.name: {
            "value": _known(item.value),
            "lower": _known(item.lower),
            "upper": _known(item.upper),
        }
        for item in sorted(figures, key=lambda item: item.name)
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def pixel_size(size: PixelSize) -> list[float]:
    """Width and height of a pixel in nm."""
    return [size.x_nm, size.y_nm]
