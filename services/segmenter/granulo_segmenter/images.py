# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that a request names: found in the object store and read, or refused with their field."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from granulo.type.v1 import artifact_pb2
from granulo_core.errors import FieldViolation, GranuloError, Reason, invalid_fields
from granulo_core.imaging.reading.isolated import Read
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore
from granulo_segmenter.domain.jobs import SourceImage, file_name
from granulo_segmenter.files import check_pages
from granulo_segmenter.settings import SegmenterSettings

_READABLE = ("uploads/", "datasets/", "segmentations/", "analyses/", "models/")
_OF_THE_CALL = (Reason.DIGEST_MISMATCH, Reason.DEADLINE_PASSED, Reason.OPERATION_CANCELLED)
"""What ends the check at once: no image's own problem."""


def locate(store: ObjectStore, artifact: artifact_pb2.Artifact, field: str) -> SourceImage:
    """Find an artifact.

    Raises
    ------
    GranuloError
        FIELD_INVALID where there is no such object, DIGEST_MISMATCH where it is another than the
        request says.
    """
    name = file_name(artifact.display_name, artifact.uri)
    try:
        if not artifact.uri.startswith(_READABLE):
            raise GranuloError(Reason.RESOURCE_NOT_FOUND, artifact.uri)
        stored = store.stat(artifact.uri)
    except GranuloError as error:
        if error.reason not in (Reason.RESOURCE_NOT_FOUND, Reason.FIELD_INVALID):
            raise
        text = f"{artifact.uri or 'an empty uri'} is not in the object store; upload {name} first"
        raise invalid_fields([FieldViolation(field, text)]) from error
    if artifact.digest and artifact.digest != stored.digest:
        raise GranuloError(
            Reason.DIGEST_MISMATCH,
            f"{field}: {artifact.uri} has {stored.digest}, not {artifact.digest}; upload {name} "
            "again.",
            metadata={"field": field},
        )
    return SourceImage(artifact.uri, stored.digest, name)


def of_dataset(store: ObjectStore, dataset: str) -> list[SourceImage]:
    """The images of a dataset in their order; RESOURCE_NOT_FOUND where it does not exist."""
    prefix = f"{dataset}/images/"
    objects = manifests.load(store, dataset).objects
    found = [item for item in objects if item.key.startswith(prefix)]
    return [
        SourceImage(item.key, item.digest, item.key.removeprefix(prefix))
        for item in sorted(found, key=lambda item: item.key)
    ]


def check_all(
    store: ObjectStore,
    images: Sequence[SourceImage],
    settings: SegmenterSettings,
    field: str,
    read: Read,
) -> list[SourceImage]:
    """Read every image once, so that a bad one is refused before any work.

    Of images that are too large for memory only the headers are read.

    Parameters
    ----------
    store : ObjectStore
    images : sequence of SourceImage
    settings : SegmenterSettings
    field : str
        Of the request, which the images stand in.
    read : Read
        How files are read.

    Returns
    -------
    list of SourceImage
        One a page of each file.

    Raises
    ------
    GranuloError
        The first image's problem as the reason, and every unusable image as a field violation.
    """
    problems: list[tuple[FieldViolation, GranuloError]] = []
    found: list[SourceImage] = []
    for index, image in enumerate(images):
        try:
            found += _pages(store, image, settings, read)
        except GranuloError as error:
            if error.reason in _OF_THE_CALL:
                raise
            problems.append((FieldViolation(f"{field}[{index}]", error.message), error))
    if problems:
        shown = " ".join(error.message for _, error in problems[:3])
        more = f" And {len(problems) - 3} more." if len(problems) > 3 else ""
        first = problems[0][1]
        raise GranuloError(
            first.reason,
            shown + more,
            metadata=first.metadata,
            violations=[violation for violation, _ in problems],
        )
    return found


def _pages(
    store: ObjectStore, image: SourceImage, settings: SegmenterSettings, read: Read
) -> list[SourceImage]:
    """The images of a file, each of which was read."""
    with tempfile.TemporaryDirectory(prefix="granulo-check-") as folder:
        file = Path(folder) / "image"
        store.get_file(image.key, file, image.digest)
        pages = read(
            check_pages,
            file,
            name=image.name,
            max_px=settings.max_image_px,
            memory_px=settings.memory_px,
        )
    return [replace(image, page=page, pages=pages) for page in range(pages)]
