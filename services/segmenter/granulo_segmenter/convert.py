# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the segmenter's messages and its domain."""

import math
import re
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from granulo.segmenter.v1 import segmenter_service_pb2 as pb
from granulo.type.v1 import artifact_pb2
from granulo_core.errors import FieldViolation, GranuloError, invalid_fields
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.read import Micrograph
from granulo_core.rpc.artifacts import to_proto
from granulo_core.store.manifest import Manifest
from granulo_core.store.port import StoredObject
from granulo_segmenter.domain.jobs import Outputs, SourceImage
from granulo_segmenter.domain.model import ModelFacts
from granulo_segmenter.domain.options import Invert, Method, Options, check_options

_DATASET = re.compile(r"datasets/[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SEGMENTATION = re.compile(r"segmentations/[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_METHODS = {
    pb.SegmentationOptions.METHOD_UNSPECIFIED: Method.MODEL,
    pb.SegmentationOptions.METHOD_DEFAULT: Method.DISTANCE,
    pb.SegmentationOptions.METHOD_PAPER: Method.PAPER,
}
_POLARITIES = {
    pb.SegmentationOptions.POLARITY_UNSPECIFIED: Invert.AUTO,
    pb.SegmentationOptions.POLARITY_BRIGHT: Invert.NO,
    pb.SegmentationOptions.POLARITY_DARK: Invert.YES,
}


def dataset_name(name: str) -> str:
    """Return ``name`` where it is one of a dataset, or raise FIELD_INVALID."""
    if not _DATASET.fullmatch(name):
        text = f"{name!r} is no name of a dataset; it has the form datasets/<id>"
        raise invalid_fields([FieldViolation("segmentation.dataset", text)])
    return name


def segmentation_name(name: str) -> str:
    """Return ``name`` where it is one of a segmentation, or raise FIELD_INVALID."""
    if not _SEGMENTATION.fullmatch(name):
        text = f"{name!r} is no name of a segmentation; it has the form segmentations/<id>"
        raise invalid_fields([FieldViolation("name", text)])
    return name


def options(message: pb.SegmentationOptions, facts: ModelFacts, field: str) -> Options:
    """A user's choices, checked against the model; zero takes the model's own value.

    Raises
    ------
    GranuloError
        FIELD_INVALID that names every unusable choice.
    """
    if message.method not in _METHODS:
        text = f"{message.method} is no method; use METHOD_DEFAULT or METHOD_PAPER"
        raise invalid_fields([FieldViolation(f"{field}.method", text)])
    if message.polarity not in _POLARITIES:
        text = f"{message.polarity} is no polarity; use POLARITY_BRIGHT or POLARITY_DARK"
        raise invalid_fields([FieldViolation(f"{field}.polarity", text)])
    chosen = Options(
        method=_METHODS[message.method],
        tile_px=message.tile_px or None,
        overlap_px=message.overlap_px or None,
        foreground_threshold=message.foreground_threshold or None,
        min_area_px=message.min_area_px or None,
        dynamics=message.dynamics or None,
        flips=message.test_time_flips,
        invert=_POLARITIES[message.polarity],
    )
    problems = check_options(chosen, facts)
    if problems:
        raise invalid_fields([FieldViolation(f"{field}.{name}", text) for name, text in problems])
    return chosen


def outputs(message: pb.SegmentationOutputs) -> Outputs:
    """What is written beside labels and particle table."""
    return Outputs(
        overlay=not message.no_overlay,
        rois=message.rois,
        coco=message.coco,
        probabilities=message.probabilities,
    )


def pixel_size(message: artifact_pb2.PixelSize, field: str) -> PixelSize:
    """A pixel size of a request; FIELD_INVALID for what is no length."""
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
    return PixelSize(message.x_nm, message.y_nm)


def segmented_image(
    image: StoredObject,
    name: str,
    labels: StoredObject,
    labels_name: str,
    *,
    particle_count: int,
    size: PixelSize | None,
    content_height_px: int,
    inverted: bool = False,
    page: int = 0,
) -> pb.SegmentedImage:
    """Message of one result; ``page`` counts from 1, and is 0 where a file has only one."""
    message = pb.SegmentedImage(
        image=to_proto(image, name),
        labels=to_proto(labels, labels_name),
        particle_count=particle_count,
        content_height_px=content_height_px,
        inverted=inverted,
        page=page,
    )
    if size is not None:
        message.pixel_size.CopyFrom(artifact_pb2.PixelSize(x_nm=size.x_nm, y_nm=size.y_nm))
    return message


def add_file(message: pb.SegmentedImage, kind: str, stored: StoredObject, name: str) -> None:
    """Add one of the files beside the labels; ``kind`` is its field."""
    getattr(message, kind).CopyFrom(to_proto(stored, name))


def cut_height(micrograph: Micrograph) -> int:
    """Rows of micrograph above a data bar, 0 when nothing was cut."""
    height = micrograph.content_height_px
    return height if height < micrograph.pixels.shape[0] else 0


def stored_image(image: SourceImage, size_bytes: int, media_type: str) -> StoredObject:
    """A source image as a stored object."""
    return StoredObject(image.key, image.digest, size_bytes, media_type)


def to_json(message: Message) -> dict[str, Any]:
    """A message as plain values for the manifest."""
    values: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return values


def segmentation(
    manifest: Manifest, stored: StoredObject, *, results: bool = True
) -> pb.Segmentation:
    """Message of a finished segmentation."""
    request = ParseDict(dict(manifest.request), pb.CreateSegmentationRequest())
    created = Timestamp()
    created.FromJsonString(manifest.create_time)
    message = pb.Segmentation(
        name=manifest.resource,
        state=pb.Segmentation.STATE_ACTIVE,
        model=request.segmentation.model,
        resolved_model_version=manifest.facts["resolved_model_version"],
        manifest=to_proto(stored, "manifest.json"),
        create_time=created,
    )
    if request.segmentation.HasField("options"):
        message.options.CopyFrom(request.segmentation.options)
    if request.segmentation.HasField("outputs"):
        message.outputs.CopyFrom(request.segmentation.outputs)
    source = request.segmentation.WhichOneof("source")
    if source == "dataset":
        message.dataset = request.segmentation.dataset
    elif results:
        message.images.CopyFrom(request.segmentation.images)
    if results:
        message.results.extend(
            ParseDict(item, pb.SegmentedImage()) for item in manifest.facts["results"]
        )
    return message


def stream_error(error: GranuloError) -> pb.SegmentImagesError:
    """What a stream says of one image that failed."""
    return pb.SegmentImagesError(
        code=error.code.value, message=error.message, reason=error.reason.value
    )
