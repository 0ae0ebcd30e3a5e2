# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads label images and their micrographs from the object store, and refuses what does not fit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain.jobs import MeasureJob, PixelSizeNm, StoredFile
from granulo_core.errors import FieldViolation, GranuloError, Reason, invalid_fields
from granulo_core.imaging.labels import LabelKind, decode_labels
from granulo_core.imaging.read import MIN_SIDE_PX, Micrograph, read_micrograph
from granulo_core.store.port import ObjectStore


@dataclass(frozen=True)
class LabelledImage:
    """Labels with what is known of their micrograph, without a data bar."""

    labels: NDArray[np.uint32]
    """(H, W)"""
    grey: NDArray[Any] | None
    """(H, W), the micrograph where there is one."""
    pixel_size_nm: PixelSizeNm | None


def load(store: ObjectStore, job: MeasureJob) -> LabelledImage:
    """Read what a job names.

    The pixel size is the job's own, else the micrograph's, else the label file's. A data bar is cut
    off where the job or the micrograph tells of one; what is found in the micrograph gives way to
    labels that lie below it.

    Parameters
    ----------
    store : ObjectStore
    job : MeasureJob

    Returns
    -------
    LabelledImage

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE, IMAGE_TOO_LARGE, IMAGE_TOO_SMALL or FIELD_INVALID, each with the field of
        the request; DIGEST_MISMATCH for damaged objects.
    """
    labels = read_labels(store, job.labels, f"{job.field}.labels", max_px=job.max_px)
    _check_size(job, labels)
    micrograph = None
    if job.image is not None:
        micrograph = _read(store, job.image, f"{job.field}.image", job.max_px, job.page)
        _check_shapes(job, labels, micrograph)
    pixel_size_nm = job.pixel_size_nm
    if pixel_size_nm is None and micrograph is not None:
        pixel_size_nm = micrograph.pixel_size_nm
    if pixel_size_nm is None:
        pixel_size_nm = _read(store, job.labels, f"{job.field}.labels", job.max_px).pixel_size_nm
    height = job.content_height_px or len(labels)
    if not job.content_height_px and micrograph is not None:
        bar = labels[micrograph.content_height_px :]
        height = len(labels) if bar.any() else micrograph.content_height_px
    grey = micrograph.pixels[:height] if micrograph is not None else None
    return LabelledImage(labels[:height], grey, pixel_size_nm)


def read_labels(
    store: ObjectStore, file: StoredFile, field: str, *, max_px: int, kind: LabelKind = "auto"
) -> NDArray[np.uint32]:
    """Read a label image; errors name ``field``.

    Returns
    -------
    (H, W) uint32
    """
    data = store.get(file.key, file.digest or None)
    try:
        return decode_labels(data, kind, max_px=max_px, name=file.name)
    except GranuloError as error:
        raise _with_field(error, field) from error


def check_exists(store: ObjectStore, file: StoredFile, field: str) -> None:
    """Raise FIELD_INVALID where the store has no such object."""
    if not store.exists(file.key):
        text = f"{file.key} is not in the store; upload the file first and give its uri"
        raise invalid_fields([FieldViolation(f"{field}.uri", text)])


def _read(
    store: ObjectStore, file: StoredFile, field: str, max_px: int, page: int = 0
) -> Micrograph:
    data = store.get(file.key, file.digest or None)
    try:
        return read_micrograph(data, max_px=max_px, name=file.name, page=page)
    except GranuloError as error:
        raise _with_field(error, field) from error


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


def _with_field(error: GranuloError, field: str) -> GranuloError:
    return GranuloError(
        error.reason,
        error.message,
        metadata=error.metadata,
        violations=(FieldViolation(field, error.message),),
    )
