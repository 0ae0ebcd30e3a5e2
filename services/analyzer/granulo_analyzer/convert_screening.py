# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the messages of a screening and the domain."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo.segmenter.v1 import segmenter_service_pb2 as segmenter_pb
from granulo_analyzer import convert, convert_statistics
from granulo_analyzer.domain.jobs import MeasureJob, PixelSizeNm
from granulo_analyzer.domain.sequential import Look
from granulo_analyzer.domain.settings import AnalysisSettings
from granulo_analyzer.domain.statistics import Distribution, without_nan
from granulo_core.errors import FieldViolation, GranuloError, invalid_fields

MAX_INLINE_BYTES = 3 << 20
_MIN_IMAGES = 3


@dataclass(frozen=True)
class Screened:
    """How a stream of micrographs is screened."""

    model: str
    pixel_size_nm: PixelSizeNm | None
    analysis: AnalysisSettings
    min_images: int


def screening(message: pb.ScreeningSettings) -> Screened:
    """Settings with every default written out.

    Raises
    ------
    GranuloError
        FIELD_INVALID for an unusable field.
    """
    analysis = convert_statistics.settings(message.analysis, "settings.analysis")
    violations = []
    if message.min_images < 0:
        text = f"is {message.min_images}; give 1 or more, or leave it out for {_MIN_IMAGES}"
        violations.append(FieldViolation("settings.min_images", text))
    if analysis.uncertainty:
        text = "belongs to an analysis: a screening has no uncertainty budget; leave it out"
        violations.append(FieldViolation("settings.analysis.uncertainty", text))
    if violations:
        raise invalid_fields(violations)
    size = None
    if message.HasField("pixel_size"):
        size = convert.pixel_size_nm(message.pixel_size, "settings.pixel_size")
    return Screened(message.model, size, analysis, message.min_images or _MIN_IMAGES)


def segment_request(
    micrograph: pb.ScreenedMicrograph, settings: Screened
) -> segmenter_pb.SegmentImageRequest:
    """What the segmenter is asked; FIELD_INVALID for a micrograph without an image."""
    request = segmenter_pb.SegmentImageRequest(model=settings.model)
    if settings.pixel_size_nm is not None:
        request.pixel_size.x_nm, request.pixel_size.y_nm = settings.pixel_size_nm
    kind = micrograph.WhichOneof("image")
    if kind == "artifact":
        request.artifact.CopyFrom(micrograph.artifact)
        return request
    if kind != "inline" or not micrograph.inline:
        text = "is required: give inline bytes or an artifact"
        raise invalid_fields([FieldViolation("micrograph.image", text)])
    if len(micrograph.inline) > MAX_INLINE_BYTES:
        text = (
            f"has {len(micrograph.inline)} bytes, more than {MAX_INLINE_BYTES}; upload the image "
            "and give the artifact"
        )
        raise invalid_fields([FieldViolation("micrograph.inline", text)])
    request.inline = micrograph.inline
    return request


def measure_job(
    micrograph: pb.ScreenedMicrograph, result: segmenter_pb.SegmentedImage, max_px: int
) -> MeasureJob:
    """What is measured of a segmented micrograph; grey levels play no part in a screening."""
    labels = convert.stored_file(result.labels)
    return MeasureJob(
        analysis="",
        number=1,
        name=micrograph.artifact.display_name or micrograph.correlation_id,
        field="micrograph",
        labels=labels,
        image=None,
        pixel_size_nm=(result.pixel_size.x_nm, result.pixel_size.y_nm)
        if result.HasField("pixel_size")
        else None,
        content_height_px=result.content_height_px,
        max_px=max_px,
        particles=convert.stored_file(result.particles) if result.HasField("particles") else None,
    )


def answer(
    correlation_id: str, image: Iterable[Distribution], particle_count: int, look: Look
) -> pb.ScreenMicrographsResponse:
    """What a micrograph says, and what all say so far."""
    return pb.ScreenMicrographsResponse(
        correlation_id=correlation_id,
        image=[convert_statistics.summary(item.to_json()) for item in image],
        running=convert_statistics.summary(look.distribution.to_json()),
        images=look.images,
        advice=convert_statistics.advice(without_nan(asdict(look.advice))),
        image_particle_count=particle_count,
    )


def failure(
    correlation_id: str, error: GranuloError, look: Look | None
) -> pb.ScreenMicrographsResponse:
    """What was wrong with a micrograph, beside what the others say."""
    found = pb.ScreenMicrographsResponse(correlation_id=correlation_id)
    if look is not None:
        found.CopyFrom(answer(correlation_id, (), 0, look))
    found.error.code = error.code.value
    found.error.message = error.message
    found.error.reason = error.reason.value
    return found
