# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the messages of annotated datasets and the domain."""

import math
import re

from google.protobuf.timestamp_pb2 import Timestamp

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo.type.v1 import artifact_pb2
from granulo_core.errors import FieldViolation, invalid_fields, not_found
from granulo_core.rpc import artifacts
from granulo_core.store.manifest import Manifest
from granulo_core.store.port import StoredObject
from granulo_trainer import annotated
from granulo_trainer.domain.annotation import AnnotatedImage, ImportPlan, SourcePair
from granulo_trainer.domain.job import StoredImage

_ID = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")
_NAME = re.compile(r"^annotated/[a-z0-9][a-z0-9._-]{0,62}$")
_SOURCES = ("uploads/", "datasets/", "annotated/", "segmentations/")
_REMEDY = "List the annotated datasets to see what exists, or import it first."


def import_plan(request: pb.ImportDatasetRequest, max_images: int) -> ImportPlan:
    """What is to be imported; INVALID_ARGUMENT names every unusable field."""
    message = request.dataset
    found = [*_id_violations(request), *_uri_violations(message)]
    if len(message.images) > max_images:
        text = f"are {len(message.images)}, more than {max_images}; make several datasets"
        found.append(FieldViolation("dataset.images", text))
    if message.content_height_px < 0:
        text = f"is {message.content_height_px}; give a number of rows, or 0"
        found.append(FieldViolation("dataset.content_height_px", text))
    if message.HasField("pixel_size"):
        for axis in ("x_nm", "y_nm"):
            value = getattr(message.pixel_size, axis)
            if not (math.isfinite(value) and value > 0):
                text = (
                    f"must be a positive number of nanometres, got {value}; leave pixel_size out "
                    "where it is unknown"
                )
                found.append(FieldViolation(f"dataset.pixel_size.{axis}", text))
    if found:
        raise invalid_fields(found)
    size = message.pixel_size
    return ImportPlan(
        dataset_id=request.dataset_id or message.name.removeprefix("annotated/"),
        pairs=tuple(
            SourcePair(
                image=_stored_image(item.image, f"image {number + 1}"),
                labels=_stored_image(item.labels, f"labels {number + 1}"),
            )
            for number, item in enumerate(message.images)
        ),
        pixel_size_nm=(size.x_nm, size.y_nm) if message.HasField("pixel_size") else None,
        content_height_px=message.content_height_px,
    )


def dataset_name(name: str) -> str:
    """Return ``annotated/<id>``; what has another form does not exist."""
    if not _NAME.match(name):
        raise not_found(name or "(empty name)", _REMEDY)
    return name


def checked_dataset(plan: ImportPlan, images: list[AnnotatedImage]) -> pb.AnnotatedDataset:
    """Message of a dataset that could be imported, with the uploads as its images."""
    message = _settings(annotated.resource_name(plan), plan.pixel_size_nm, plan.content_height_px)
    for pair in plan.pairs:
        message.images.add(image=_artifact(pair.image), labels=_artifact(pair.labels))
    message.particle_count = sum(image.particle_count for image in images)
    return message


def dataset(
    manifest: Manifest, stored: StoredObject, *, with_images: bool = True
) -> pb.AnnotatedDataset:
    """Message of a dataset that exists."""
    facts = manifest.facts
    message = _settings(manifest.resource, facts["pixel_size_nm"], facts["content_height_px"])
    if with_images:
        for image in annotated.images_of(manifest):
            message.images.add(
                image=artifacts.to_proto(manifest.object(f"images/{image.stem}.tif"), image.name),
                labels=artifacts.to_proto(
                    manifest.object(f"labels/{image.stem}.tif"), image.labels_name
                ),
            )
    message.particle_count = int(facts["particle_count"])
    message.manifest.CopyFrom(artifacts.to_proto(stored))
    stamp = Timestamp()
    stamp.FromJsonString(manifest.create_time)
    message.create_time.CopyFrom(stamp)
    return message


def _settings(
    name: str, pixel_size_nm: tuple[float, float] | None, content_height_px: int
) -> pb.AnnotatedDataset:
    message = pb.AnnotatedDataset(name=name, content_height_px=content_height_px)
    if pixel_size_nm is not None:
        message.pixel_size.x_nm, message.pixel_size.y_nm = pixel_size_nm
    return message


def _id_violations(request: pb.ImportDatasetRequest) -> list[FieldViolation]:
    found = []
    if request.dataset_id and not _ID.match(request.dataset_id):
        text = (
            f"{request.dataset_id!r} is no id; use lower-case letters, digits, '.', '-' and '_', "
            "at most 63, beginning with a letter or digit"
        )
        found.append(FieldViolation("dataset_id", text))
    name = request.dataset.name
    if name and not _NAME.match(name):
        text = f"{name!r} is no name like annotated/<id>; leave it empty or correct it"
        found.append(FieldViolation("dataset.name", text))
    elif name and request.dataset_id and name != f"annotated/{request.dataset_id}":
        text = f"{name} differs from dataset_id {request.dataset_id!r}; give one of the two"
        found.append(FieldViolation("dataset.name", text))
    return found


def _uri_violations(message: pb.AnnotatedDataset) -> list[FieldViolation]:
    found = []
    for number, item in enumerate(message.images):
        for part in ("image", "labels"):
            uri = getattr(item, part).uri
            if not uri.startswith(_SOURCES):
                text = f"{uri!r} is no uploaded or published artifact; upload the file first"
                found.append(FieldViolation(f"dataset.images[{number}].{part}.uri", text))
    return found


def _stored_image(message: artifact_pb2.Artifact, fallback: str) -> StoredImage:
    return StoredImage(
        key=message.uri, digest=message.digest, name=message.display_name or fallback
    )


def _artifact(file: StoredImage) -> artifact_pb2.Artifact:
    return artifact_pb2.Artifact(uri=file.key, digest=file.digest, display_name=file.name)
