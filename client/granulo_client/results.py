# SPDX-License-Identifier: Apache-2.0
"""Which files results become, and results as plain values."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from granulo.analyzer.v1.analyzer_service_pb2 import Analysis, EvaluateSegmentationResponse
from granulo.segmenter.v1.segmenter_service_pb2 import SegmentedImage
from granulo.type.v1.artifact_pb2 import Artifact, PixelSize
from granulo_client.client import Client

LABELS_ENDING = "_labels.tif"
_OVERLAY_ENDING = "_overlay.png"

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


def segmentation_files(
    client: Client,
    manifest: Artifact,
    results: Sequence[SegmentedImage],
    stems: Sequence[str],
    folder: Path,
) -> Files:
    """Label images, and overlays where there are some, as ``<stem>_labels.tif`` and so on."""
    stored = {str(item["key"]) for item in client.manifest(manifest)["objects"]}
    files: Files = []
    for result, stem in zip(results, stems, strict=True):
        if not result.labels.uri:
            continue  # this image failed
        files.append((result.labels, folder / f"{stem}{LABELS_ENDING}"))
        overlay = result.labels.uri.removesuffix(LABELS_ENDING) + _OVERLAY_ENDING
        if overlay in stored:
            files.append((overlay, folder / f"{stem}{_OVERLAY_ENDING}"))
    return files


def segmented_document(
    result: SegmentedImage, image: str, stem: str, folder: Path
) -> dict[str, Any]:
    """One segmented image as plain values."""
    labels = folder / f"{stem}{LABELS_ENDING}"
    return {
        "image": image,
        "labels": str(labels) if result.labels.uri else None,
        "particle_count": result.particle_count,
        "pixel_size_nm": pixel_size(result.pixel_size) if result.HasField("pixel_size") else None,
        "content_height_px": result.content_height_px or None,
    }


def analysis_files(client: Client, analysis: Analysis, folder: Path) -> Files:
    """Table, summary, report and pictures of an analysis."""
    files: Files = [
        (analysis.table, folder / "particles.csv"),
        (analysis.summary, folder / "summary.json"),
        (analysis.report, folder / "report.html"),
    ]
    prefix = f"{analysis.name}/"
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
        "summaries": [
            {
                "quantity": item.quantity,
                "unit": item.unit,
                "count": item.count,
                "mean": item.mean,
                "stddev": item.stddev,
                "median": item.median,
                "p10": item.p10,
                "p90": item.p90,
            }
            for item in analysis.summaries
        ],
        "table": str(folder / "particles.csv"),
        "summary": str(folder / "summary.json"),
        "report": str(folder / "report.html"),
    }


def analysis_lines(analysis: Analysis, folder: Path) -> list[str]:
    """An analysis for people."""
    lines = [f"{analysis.particle_count} particles"]
    for item in analysis.summaries:
        if item.quantity in ("sqrt_area", "ecd"):
            unit = item.unit.strip("[]")
            lines.append(
                f"{item.quantity}: median {item.median:.4g} {unit}, "
                f"10 % below {item.p10:.4g}, 90 % below {item.p90:.4g} (Np = {item.count})"
            )
    return [*lines, f"report: {folder / 'report.html'}"]


def evaluation_document(answer: EvaluateSegmentationResponse) -> dict[str, Any]:
    """An evaluation as plain values."""
    return {
        "metrics": dict(sorted(answer.metrics.items())),
        "images": [
            {"image": item.image, "metrics": dict(sorted(item.metrics.items()))}
            for item in answer.images
        ],
    }


def pixel_size(size: PixelSize) -> list[float]:
    """Width and height of a pixel in nm."""
    return [size.x_nm, size.y_nm]
