# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that leave the system: a canonical code, a reason from one table, a sentence to act on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

DOMAIN = "granulo"


class Code(Enum):
    """Canonical codes (google.rpc.Code), named without grpc so that domains can raise them."""

    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Reason(StrEnum):
    """``ErrorInfo.reason``; each has its code and its meaning in `REASONS`."""

    FIELD_INVALID = "FIELD_INVALID"
    IMAGE_UNREADABLE = "IMAGE_UNREADABLE"
    IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE"
    IMAGE_TOO_SMALL = "IMAGE_TOO_SMALL"
    RESOURCE_NOT_FOUND = "RESOURCE_NOT_FOUND"
    RESOURCE_EXISTS = "RESOURCE_EXISTS"
    RESOURCE_NOT_READY = "RESOURCE_NOT_READY"
    RESOURCE_REFERENCED = "RESOURCE_REFERENCED"
    NO_EARLIER_VERSION = "NO_EARLIER_VERSION"
    EXTRA_NOT_INSTALLED = "EXTRA_NOT_INSTALLED"
    OPERATIONS_ELSEWHERE = "OPERATIONS_ELSEWHERE"
    OPERATION_CANCELLED = "OPERATION_CANCELLED"
    OPERATION_NOT_DONE = "OPERATION_NOT_DONE"
    TASK_FAILED = "TASK_FAILED"
    TASK_TIMED_OUT = "TASK_TIMED_OUT"
    WORKER_DIED = "WORKER_DIED"
    TRAINING_DIVERGED = "TRAINING_DIVERGED"
    TRAINING_OUT_OF_MEMORY = "TRAINING_OUT_OF_MEMORY"
    MODEL_SERVER_UNAVAILABLE = "MODEL_SERVER_UNAVAILABLE"
    SEGMENTER_UNAVAILABLE = "SEGMENTER_UNAVAILABLE"
    MODEL_SIGNATURE_MISMATCH = "MODEL_SIGNATURE_MISMATCH"
    STORE_NOT_WRITABLE = "STORE_NOT_WRITABLE"
    STORE_FULL = "STORE_FULL"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    TOO_MANY_STREAMS = "TOO_MANY_STREAMS"
    SERVER_BUSY = "SERVER_BUSY"
    DEADLINE_PASSED = "DEADLINE_PASSED"
    TOKEN_MISSING = "TOKEN_MISSING"
    TOKEN_INVALID = "TOKEN_INVALID"
    ROLE_MISSING = "ROLE_MISSING"
    IDENTITY_PROVIDER_UNAVAILABLE = "IDENTITY_PROVIDER_UNAVAILABLE"
    PRESIGNING_UNAVAILABLE = "PRESIGNING_UNAVAILABLE"
    INTERNAL_ERROR = "INTERNAL_ERROR"


# The one table from which docs/errors.md is made.
REASONS: Mapping[Reason, tuple[Code, str]] = {
    Reason.FIELD_INVALID: (Code.INVALID_ARGUMENT, "A request field has an unusable value."),
    Reason.IMAGE_UNREADABLE: (
        Code.INVALID_ARGUMENT,
        "The file is no image Granulo reads, or is damaged.",
    ),
    Reason.IMAGE_TOO_LARGE: (Code.INVALID_ARGUMENT, "The image exceeds the size limit."),
    Reason.IMAGE_TOO_SMALL: (Code.INVALID_ARGUMENT, "The image is too small to hold a particle."),
    Reason.RESOURCE_NOT_FOUND: (Code.NOT_FOUND, "No resource of this name exists."),
    Reason.RESOURCE_EXISTS: (Code.ALREADY_EXISTS, "A different resource has this name."),
    Reason.RESOURCE_NOT_READY: (
        Code.FAILED_PRECONDITION,
        "The resource is still being made or its making failed.",
    ),
    Reason.RESOURCE_REFERENCED: (
        Code.FAILED_PRECONDITION,
        "Another resource was made from this one; delete that first.",
    ),
    Reason.NO_EARLIER_VERSION: (
        Code.FAILED_PRECONDITION,
        "The model was not served in another version before.",
    ),
    Reason.EXTRA_NOT_INSTALLED: (
        Code.FAILED_PRECONDITION,
        "The server is installed without an optional part that the request needs.",
    ),
    Reason.OPERATIONS_ELSEWHERE: (
        Code.FAILED_PRECONDITION,
        "This server answers calls only; another server of the installation runs the operations.",
    ),
    Reason.OPERATION_CANCELLED: (Code.CANCELLED, "The operation was cancelled on request."),
    Reason.OPERATION_NOT_DONE: (Code.FAILED_PRECONDITION, "The operation is still running."),
    Reason.TASK_FAILED: (Code.INTERNAL, "A task of the operation failed."),
    Reason.TASK_TIMED_OUT: (Code.DEADLINE_EXCEEDED, "A task ran longer than its time limit."),
    Reason.WORKER_DIED: (Code.INTERNAL, "A worker process died repeatedly on the same task."),
    Reason.TRAINING_DIVERGED: (
        Code.ABORTED,
        "The loss or a weight became NaN or infinite; the last good checkpoint is kept.",
    ),
    Reason.TRAINING_OUT_OF_MEMORY: (
        Code.RESOURCE_EXHAUSTED,
        "The memory does not suffice for batch_size and patch_px; the message says what to try.",
    ),
    Reason.MODEL_SERVER_UNAVAILABLE: (Code.UNAVAILABLE, "The model server does not answer."),
    Reason.SEGMENTER_UNAVAILABLE: (
        Code.UNAVAILABLE,
        "The segmenter, which the analyzer screens micrographs with, does not answer.",
    ),
    Reason.MODEL_SIGNATURE_MISMATCH: (
        Code.FAILED_PRECONDITION,
        "The served model has not the signature that the segmenter needs.",
    ),
    Reason.STORE_NOT_WRITABLE: (Code.PERMISSION_DENIED, "The data folder cannot be written."),
    Reason.STORE_FULL: (Code.RESOURCE_EXHAUSTED, "No space is left in the object store."),
    Reason.STORE_UNAVAILABLE: (Code.UNAVAILABLE, "The object store does not answer."),
    Reason.DIGEST_MISMATCH: (Code.DATA_LOSS, "Stored or received bytes differ from their digest."),
    Reason.TOO_MANY_STREAMS: (Code.RESOURCE_EXHAUSTED, "All streams of this server are taken."),
    Reason.SERVER_BUSY: (Code.RESOURCE_EXHAUSTED, "The server's queue is full; try again later."),
    Reason.DEADLINE_PASSED: (
        Code.DEADLINE_EXCEEDED,
        "The call's deadline passed before its work was done.",
    ),
    Reason.TOKEN_MISSING: (Code.UNAUTHENTICATED, "The server asks for a token and got none."),
    Reason.TOKEN_INVALID: (Code.UNAUTHENTICATED, "The token is unknown, expired or not for here."),
    Reason.ROLE_MISSING: (Code.PERMISSION_DENIED, "The caller's roles do not allow the method."),
    Reason.IDENTITY_PROVIDER_UNAVAILABLE: (
        Code.UNAVAILABLE,
        "The keys with which tokens are checked cannot be had from the identity provider.",
    ),
    Reason.PRESIGNING_UNAVAILABLE: (
        Code.FAILED_PRECONDITION,
        "This server gives no presigned URLs; send the bytes through ArtifactService.",
    ),
    Reason.INTERNAL_ERROR: (Code.INTERNAL, "A defect of Granulo; the server log has the trace."),
}


@dataclass(frozen=True)
class FieldViolation:
    """One unusable request field."""

    field: str
    """Path of the field in the request, e.g. ``dataset.image_count``."""
    description: str
    """What is wrong with it and what would be right."""


class GranuloError(Exception):
    """Root of all errors that a user may see.

    Parameters
    ----------
    reason : Reason
        Fixes the canonical code through `REASONS`.
    message : str
        What was wrong, where, and what to do.
    metadata : mapping of str to str, optional
        Machine-readable particulars for ``ErrorInfo.metadata``.
    violations : sequence of FieldViolation, optional
        For INVALID_ARGUMENT: every offending field at once.
    retry_after_s : float, optional
        For RESOURCE_EXHAUSTED and UNAVAILABLE: when to try again.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s

    @property
    def code(self) -> Code:
        """Canonical code of the reason."""
        return REASONS[self.reason][0]

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders by pickle, which would drop keyword arguments.
        return (
            _rebuild,
            (self.reason, self.message, self.metadata, self.violations, self.retry_after_s),
        )


def _rebuild(
    reason: Reason,
    message: str,
    metadata: dict[str, str],
    violations: tuple[FieldViolation, ...],
    retry_after_s: float | None,
) -> GranuloError:
    return GranuloError(
        reason, message, metadata=metadata, violations=violations, retry_after_s=retry_after_s
    )


def invalid_fields(violations: Sequence[FieldViolation]) -> GranuloError:
    """Make the INVALID_ARGUMENT error that names every offending field."""
    text = "; ".join(f"{v.field}: {v.description}" for v in violations)
    return GranuloError(Reason.FIELD_INVALID, text, violations=violations)


def not_found(name: str, remedy: str) -> GranuloError:
    """Make the NOT_FOUND error for a resource name."""
    return GranuloError(
        Reason.RESOURCE_NOT_FOUND, f"{name} does not exist. {remedy}", metadata={"name": name}
    )
