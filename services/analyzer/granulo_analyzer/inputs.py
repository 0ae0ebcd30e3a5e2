# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads label images and their micrographs from the object store, and refuses what does not fit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain.jobs import MeasureJob, PixelSizeNm, StoredFile
from granulo_analyzer.domain.morphology import check_amodal
from granulo_analyzer.domain.tables import read_given
from granulo_core.errors import FieldViolation, GranuloError, Reason, invalid_fields
from granulo_core.imaging.labels import LabelKind, decode_label_pages, decode_labels
from granulo_core.imaging.read import MIN_SIDE_PX, Micrograph, read_micrograph
from granulo_core.imaging.reading.isolated import Read, read_here
from granulo_core.store.port import ObjectStore


@dataclass(frozen=True)
class LabelledImage:
    """Labels with what is known of their micrograph, without a data bar."""

    labels: NDArray[np.uint32]
    """(H, W)"""
    grey: NDArray[Any] | None
    """(H, W), the micrograph where there is one."""
    pixel_size_nm: PixelSizeNm | None
    confidence: Mapping[int, float] | None
    """By label, where who made the labels tells it."""
    visible_fraction: Mapping[int, float] | None
    amodal: NDArray[np.uint32] | None
    """(P, H, W), the whole particles where they are known."""
    full_height_px: int
    """With the data bar."""


def load(store: ObjectStore, job: MeasureJob, read: Read = read_here) -> LabelledImage:
    """Read what a job names.

    The pixel size is the job's own, else the micrograph's, else the label file's. A data bar is cut
    off where the job or the micrograph tells of one; what is found in the micrograph gives way to
    labels that lie below it.

    Parameters
    ----------
    store : ObjectStore
    job : MeasureJob
    read : Read, optional
        How images are read; in this process by default, which then is one that may be lost.

    Returns
    -------
    LabelledImage

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE, IMAGE_TOO_LARGE, IMAGE_TOO_SMALL or FIELD_INVALID, each with the field of
        the request; DIGEST_MISMATCH for damaged objects.
    """
    labels = read_labels(store, job.labels, f"{job.field}.labels", read, max_px=job.max_px)
    _check_size(job, labels)
    micrograph = None
    if job.image is not None:
        field = f"{job.field}.image"
        micrograph = read_image(store, job.image, field, read, max_px=job.max_px, page=job.page)
        _check_shapes(job, labels, micrograph)
    pixel_size_nm = job.pixel_size_nm
    if pixel_size_nm is None and micrograph is not None:
        pixel_size_nm = micrograph.pixel_size_nm
    if pixel_size_nm is None:
        field = f"{job.field}.labels"
        pixel_size_nm = read_image(store, job.labels, field, read, max_px=job.max_px).pixel_size_nm
    height = job.content_height_px or len(labels)
    if not job.content_height_px and micrograph is not None:
        bar = labels[micrograph.content_height_px :]
        height = len(labels) if bar.any() else micrograph.content_height_px
    grey = micrograph.pixels[:height] if micrograph is not None else None
    given = _read_particles(store, job)
    amodal = _read_amodal(store, job, labels, read)
    return LabelledImage(
        labels=labels[:height],
        grey=grey,
        pixel_size_nm=pixel_size_nm,
        confidence=given.get("confidence"),
        visible_fraction=given.get("visible_fraction"),
        amodal=amodal[:, :height] if amodal is not None else None,
        full_height_px=len(labels),
    )


def read_labels(
    store: ObjectStore,
    file: StoredFile,
    field: str,
    read: Read,
    *,
    max_px: int,
    kind: LabelKind = "auto",
) -> NDArray[np.uint32]:
    """Read a label image; errors name ``field``.

    Returns
    -------
    (H, W) uint32
    """
    data = store.get(file.key, file.digest or None)
    try:
        return read(decode_labels, data, name=file.name, kind=kind, max_px=max_px)
    except GranuloError as error:
        raise with_field(error, field) from error


def check_exists(store: ObjectStore, file: StoredFile, field: str) -> None:
    """Raise FIELD_INVALID where the store has no such object."""
    if not store.exists(file.key):
        text = f"{file.key} is not in the store; upload the file first and give its uri"
        raise invalid_fields([FieldViolation(f"{field}.uri", text)])


def located(store: ObjectStore, file: StoredFile, field: str) -> StoredFile:
    """Find an upload: its digest is the stored one.

    Raises
    ------
    GranuloError
        FIELD_INVALID where it is not there, DIGEST_MISMATCH where it is another than was named.
    """
    check_exists(store, file, field)
    stored = store.stat(file.key)
    if file.digest and file.digest != stored.digest:
        raise GranuloError(
            Reason.DIGEST_MISMATCH,
            f"{field}: {file.key} has {stored.digest}, not {file.digest}; upload the file again.",
        )
    return replace(file, digest=stored.digest)


def read_image(
    store: ObjectStore, file: StoredFile, field: str, read: Read, *, max_px: int, page: int = 0
) -> Micrograph:
    """Read a micrograph; errors name ``field``."""
    data = store.get(file.key, file.digest or None)
    try:
        return read(read_micrograph, data, name=file.name, max_px=max_px, page=page)
    except GranuloError as error:
        raise with_field(error, field) from error


def with_field(error: GranuloError, field: str) -> GranuloError:
    """The same error, said of a field of the request."""
    return GranuloError(
        error.reason,
        error.message,
        metadata=error.metadata,
        violations=(FieldViolation(field, error.message),),
    )


def _read_particles(store: ObjectStore, job: MeasureJob) -> Mapping[str, Mapping[int, float]]:
    if job.particles is None:
        return {}
    data = store.get(job.particles.key, job.particles.digest or None)
    try:
        return read_given(data)
    except ValueError as error:
        text = f"{job.particles.name} {error}"
        raise invalid_fields([FieldViolation(f"{job.field}.particles", text)]) from error


def _read_amodal(
    store: ObjectStore, job: MeasureJob, labels: NDArray[np.uint32], read: Read
) -> NDArray[np.uint32] | None:
    if job.amodal is None:
        return None
    data = store.get(job.amodal.key, job.amodal.digest or None)
    field = f"{job.field}.amodal"
    try:
        pages = read(decode_label_pages, data, name=job.amodal.name, max_px=job.max_px)
    except GranuloError as error:
        raise with_field(error, field) from error
    try:
        check_amodal(labels, pages)
    except ValueError as error:
        raise invalid_fields([FieldViolation(field, f"{job.amodal.name}: {error}")]) from error
    return pages


def _check_size(job: MeasureJob, labels: NDArray[np.uint32]) -> None:
    height, width = labels.shape
    if min(height, width) < MIN_SIDE_PX:
        text = (
            f"{job.labels.name} has {width} × {height} pixels; at least {MIN_SIDE_PX} × "
            f"{MIN_SIDE_PX} are needed to measure a particle"
        )
        raise GranuloError(
            Reason.IMAGE_TOO_SMALL, text, violations=(FieldViolation(f"{job.field}.labels", text),)
        )


def _check_shapes(job: MeasureJob, labels: NDArray[np.uint32], micrograph: Micrograph) -> None:
    if labels.shape == micrograph.pixels.shape:
        return
    (height, width), (grey_height, grey_width) = labels.shape, micrograph.pixels.shape
    text = (
        f"{job.image.name if job.image else 'the micrograph'} has {grey_width} × {grey_height} "
        f"pixels, but its labels {job.labels.name} have {width} × {height}; give the micrograph "
        "that was segmented, uncropped, or leave the micrograph out"
    )
    raise invalid_fields([FieldViolation(f"{job.field}.image", text)])
