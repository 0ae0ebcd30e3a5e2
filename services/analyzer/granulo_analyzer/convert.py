# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the analyzer's messages and its domain."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo.segmenter.v1 import segmenter_service_pb2 as segmenter_pb
from granulo.type.v1 import artifact_pb2
from granulo_analyzer import convert_statistics
from granulo_analyzer.domain.jobs import MeasureJob, PixelSizeNm, StoredFile
from granulo_analyzer.domain.settings import AnalysisSettings
from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.rpc.artifacts import to_proto
from granulo_core.store.manifest import Manifest
from granulo_core.store.port import StoredObject

_SEGMENTATION = re.compile(r"segmentations/[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ANALYSIS = re.compile(r"analyses/[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SUFFIXES = re.compile(r"(_labels|_m)$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_FLAGS = {"true": "1", "false": "0"}
_OWN_FIELDS = frozenset({"particle", "image", "label", "touches_border"})


def analysis_name(name: str, field: str) -> str:
    """Return ``name`` where it is one of an analysis, or raise FIELD_INVALID for ``field``."""
    if not _ANALYSIS.fullmatch(name):
        text = f"{name!r} is no name of an analysis; it has the form analyses/<id>"
        raise invalid_fields([FieldViolation(field, text)])
    return name


def segmentation_name(name: str) -> str:
    """Return ``name`` where it is one of a segmentation, or raise FIELD_INVALID."""
    if not _SEGMENTATION.fullmatch(name):
        text = f"{name!r} is no name of a segmentation; it has the form segmentations/<id>"
        raise invalid_fields([FieldViolation("analysis.segmentation", text)])
    return name


def label_set_jobs(label_set: pb.LabelSet, max_images: int, max_px: int) -> list[MeasureJob]:
    """One job for every uploaded label image.

    Raises
    ------
    GranuloError
        FIELD_INVALID for no or too many images and for an unusable pixel size.
    """
    field = "analysis.label_set"
    check_count(len(label_set.items), f"{field}.items", max_images)
    size_nm = None
    if label_set.HasField("pixel_size"):
        size_nm = pixel_size_nm(label_set.pixel_size, f"{field}.pixel_size")
    jobs = []
    for number, item in enumerate(label_set.items, start=1):
        labels = stored_file(item.labels)
        image = _given(item.image)
        jobs.append(
            MeasureJob(
                analysis="",
                number=number,
                name=image_name(image or labels),
                field=f"{field}.items[{number - 1}]",
                labels=labels,
                image=image,
                pixel_size_nm=size_nm,
                content_height_px=0,
                max_px=max_px,
                particles=_given(item.particles),
                amodal=_given(item.amodal),
            )
        )
    return _with_own_names(jobs)


def segmentation_jobs(
    results: Sequence[segmenter_pb.SegmentedImage], max_images: int, max_px: int
) -> list[MeasureJob]:
    """One job for every image of a segmentation; FIELD_INVALID for none or too many."""
    field = "analysis.segmentation"
    check_count(len(results), field, max_images)
    jobs = [
        MeasureJob(
            analysis="",
            number=number,
            name=image_name(stored_file(result.image))
            + (f"_p{result.page}" if result.page else ""),
            field=field,
            labels=stored_file(result.labels),
            image=stored_file(result.image),
            pixel_size_nm=(result.pixel_size.x_nm, result.pixel_size.y_nm)
            if result.HasField("pixel_size")
            else None,
            content_height_px=result.content_height_px,
            max_px=max_px,
            page=max(0, result.page - 1),
            particles=_given(result.particles),
        )
        for number, result in enumerate(results, start=1)
    ]
    return _with_own_names(jobs)


def segmented_images(manifest: Manifest) -> list[segmenter_pb.SegmentedImage]:
    """The results of a segmentation, from the facts of its manifest."""
    return [
        ParseDict(item, segmenter_pb.SegmentedImage(), ignore_unknown_fields=True)
        for item in manifest.facts["results"]
    ]


def check_count(count: int, field: str, max_images: int) -> None:
    """Raise FIELD_INVALID unless there is an image, and at most so many."""
    if not 1 <= count <= max_images:
        text = f"has {count} images; give at least one and at most {max_images}"
        raise invalid_fields([FieldViolation(field, text)])


def stored_file(artifact: artifact_pb2.Artifact) -> StoredFile:
    """Where an artifact lies, and what its user calls it."""
    name = PurePath(artifact.display_name or artifact.uri).name
    return StoredFile(artifact.uri, artifact.digest, _CONTROL.sub(" ", name))


def _given(artifact: artifact_pb2.Artifact) -> StoredFile | None:
    """A file that may be left out: where it is, its address is empty."""
    return stored_file(artifact) if artifact.uri else None


def image_name(file: StoredFile) -> str:
    """Name of an image in tables: the stem, without what marks a label file."""
    stem = PurePath(file.name).stem
    return _SUFFIXES.sub("", stem) or stem


def settings(request: pb.CreateAnalysisRequest) -> AnalysisSettings:
    """How a request wants its particles counted; FIELD_INVALID names what is unusable."""
    return convert_statistics.settings(request.analysis.settings, "analysis.settings")


def identity(jobs: Iterable[MeasureJob], found: AnalysisSettings) -> list[str]:
    """What the numbers of an analysis depend on, in a fixed order."""
    parts = [repr(sorted(found.to_json().items()))]
    for job in jobs:
        parts += [job.name, job.labels.name, job.labels.digest]
        parts += [job.image.digest if job.image else ""]
        parts += [repr(job.pixel_size_nm), str(job.content_height_px)]
        parts += [f"page {job.page}"] if job.page else []
        parts += [f"particles {job.particles.digest}"] if job.particles else []
        parts += [f"amodal {job.amodal.digest}"] if job.amodal else []
    return parts


def request_json(request: pb.CreateAnalysisRequest) -> dict[str, Any]:
    """The whole request as plain values for the manifest."""
    values: dict[str, Any] = MessageToDict(request, preserving_proto_field_name=True)
    return values


def analysis(manifest: Manifest, stored: StoredObject) -> pb.Analysis:
    """Message of a finished analysis."""
    request = ParseDict(dict(manifest.request), pb.CreateAnalysisRequest())
    created = Timestamp()
    created.FromJsonString(manifest.create_time)
    message = pb.Analysis(
        name=manifest.resource,
        state=pb.Analysis.STATE_ACTIVE,
        summaries=[convert_statistics.summary(item) for item in manifest.facts["summaries"]],
        table=_file(manifest, "particles.csv"),
        summary=_file(manifest, "summary.json"),
        report=_file(manifest, "report.html"),
        manifest=to_proto(stored, "manifest.json"),
        create_time=created,
        particle_count=manifest.facts["particle_count"],
        settings=convert_statistics.settings_message(settings(request)),
    )
    # Analyses of earlier versions have neither these files nor findings.
    files = {item.key.removeprefix(f"{manifest.resource}/"): item for item in manifest.objects}
    if "particles.parquet" in files:
        message.parquet.CopyFrom(to_proto(files["particles.parquet"], "particles.parquet"))
        message.coco.CopyFrom(to_proto(files["coco.json"], "coco.json"))
    message.rois.extend(
        to_proto(item, PurePath(name).name)
        for name, item in sorted(files.items())
        if name.startswith("rois/")
    )
    findings = manifest.facts.get("findings", {})
    if findings.get("nanomaterial"):
        message.nanomaterial.CopyFrom(convert_statistics.nanomaterial(findings["nanomaterial"]))
    if findings.get("uncertainty"):
        message.uncertainty.CopyFrom(convert_statistics.uncertainty(findings["uncertainty"]))
    if findings.get("advice"):
        message.advice.CopyFrom(convert_statistics.advice(findings["advice"]))
    if request.analysis.WhichOneof("source") == "segmentation":
        message.segmentation = request.analysis.segmentation
    else:
        message.label_set.CopyFrom(request.analysis.label_set)
    return message


def particle(analysis: str, row: Mapping[str, str]) -> pb.Particle:
    """Message of one row of the table; blank cells are left out."""
    values = {
        name: float(_FLAGS.get(cell, cell))
        for name, cell in row.items()
        if cell and name not in _OWN_FIELDS
    }
    return pb.Particle(
        name=f"{analysis}/particles/{row['particle']}",
        image=row["image"],
        label=int(row["label"]),
        values=values,
        touches_border=row["touches_border"] == "true",
    )


def _file(manifest: Manifest, name: str) -> artifact_pb2.Artifact:
    return to_proto(manifest.object(name), name)


def pixel_size_nm(message: artifact_pb2.PixelSize, field: str) -> PixelSizeNm:
    """Width and height of a pixel; FIELD_INVALID where they are no positive numbers."""
    violations = [
        FieldViolation(
            f"{field}.{axis}",
            f"must be a positive number of nanometres, got {value}; leave pixel_size out where it "
            "is unknown",
        )
        for axis, value in (("x_nm", message.x_nm), ("y_nm", message.y_nm))
        if not (math.isfinite(value) and value > 0)
    ]
    if violations:
        raise invalid_fields(violations)
    return message.x_nm, message.y_nm


def _with_own_names(jobs: list[MeasureJob]) -> list[MeasureJob]:
    """Number images of the same name, which come from different folders."""
    total = Counter(job.name for job in jobs)
    seen: Counter[str] = Counter()
    named = []
    for job in jobs:
        seen[job.name] += 1
        own = job.name if total[job.name] == 1 else f"{job.name} ({seen[job.name]})"
        named.append(replace(job, name=own))
    return named
