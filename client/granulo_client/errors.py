# SPDX-License-Identifier: Apache-2.0
"""What calls raise: one class per canonical code, with reason and fields as attributes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

# Reasons that mean: this place cannot be worked in, whatever is asked.
_UNUSABLE_PLACE = frozenset({"STORE_NOT_WRITABLE", "STORE_FULL"})


@dataclass(frozen=True)
class FieldViolation:
    """One unusable request field."""

    field: str
    """Path of the field in the request, e.g. ``dataset.image_count``."""
    description: str
    """What is wrong with it and what would be right."""


class GranuloClientError(Exception):
    """Root of everything this package raises on purpose.

    Attributes
    ----------
    message : str
        What was wrong, where, and what to do.
    code : str
        Canonical code, e.g. ``INVALID_ARGUMENT``.
    reason : str
        ``ErrorInfo.reason`` (docs/errors.md lists them); empty where the server gave none.
    metadata : mapping of str to str
        Particulars for machines.
    violations : tuple of FieldViolation
        Offending request fields, for INVALID_ARGUMENT.
    retry_after_s : float or None
        When to try again, where the server said so.
    in_document : bool
        Whether the command's document tells of it already: `--json` prints one document.
    """

    default_code = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s
        self.in_document = False

    @property
    def is_usage(self) -> bool:
        """Whether the caller asked for something unusable, as opposed to work that failed."""
        return (
            self.code in ("INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE")
            or self.reason in _UNUSABLE_PLACE
        )

    def to_dict(self) -> dict[str, object]:
        """Everything above as plain values."""
        return {
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
            "violations": [vars(violation) for violation in self.violations],
            "metadata": self.metadata,
        }


class UsageError(GranuloClientError):
    """Found wrong before any server was asked: a file that is not there, an unknown key."""

    default_code = "INVALID_ARGUMENT"


class InvalidArgumentError(GranuloClientError):
    """The request cannot be carried out as it is; ``violations`` names the fields."""

    default_code = "INVALID_ARGUMENT"


class NotFoundError(GranuloClientError):
    """Nothing has this name."""

    default_code = "NOT_FOUND"


class AlreadyExistsError(GranuloClientError):
    """Something different has this name."""

    default_code = "ALREADY_EXISTS"


class FailedPreconditionError(GranuloClientError):
    """The request is fine, but not in the present state."""

    default_code = "FAILED_PRECONDITION"


class ResourceExhaustedError(GranuloClientError):
    """The server is busy or full; see ``retry_after_s``."""

    default_code = "RESOURCE_EXHAUSTED"


class PermissionDeniedError(GranuloClientError):
    """Not allowed, or a folder that cannot be written."""

    default_code = "PERMISSION_DENIED"


class UnauthenticatedError(GranuloClientError):
    """The server asks for a token, and got none that it knows."""

    default_code = "UNAUTHENTICATED"


class UnavailableError(GranuloClientError):
    """The server does not answer."""

    default_code = "UNAVAILABLE"


class DeadlineExceededError(GranuloClientError):
    """It took too long."""

    default_code = "DEADLINE_EXCEEDED"


class CancelledError(GranuloClientError):
    """The operation was cancelled on request."""

    default_code = "CANCELLED"


class DataLossError(GranuloClientError):
    """Bytes differ from their digest."""

    default_code = "DATA_LOSS"


_CLASSES: Mapping[str, type[GranuloClientError]] = {
    kind.default_code: kind
    for kind in (
        InvalidArgumentError,
        NotFoundError,
        AlreadyExistsError,
        FailedPreconditionError,
        ResourceExhaustedError,
        PermissionDeniedError,
        UnauthenticatedError,
        UnavailableError,
        DeadlineExceededError,
        CancelledError,
        DataLossError,
    )
}


def from_status(status: status_pb2.Status) -> GranuloClientError:
    """Make the exception for a ``google.rpc.Status`` with its details."""
    code = code_pb2.Code.Name(status.code)
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    reason = ""
    metadata: dict[str, str] = {}
    violations: list[FieldViolation] = []
    retry_after_s: float | None = None
    for detail in status.details:
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            violations = [FieldViolation(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMicroseconds() / 1e6
    return _CLASSES.get(code, GranuloClientError)(
        status.message or code,
        code=code,
        reason=reason,
        metadata=metadata,
        violations=violations,
        retry_after_s=retry_after_s,
    )


def from_code(number: int, message: str, reason: str) -> GranuloClientError:
    """Make the exception for what a stream says of one of its messages."""
    code = code_pb2.Code.Name(cast("code_pb2.Code", number))
    return _CLASSES.get(code, GranuloClientError)(message, code=code, reason=reason)


def from_rpc_error(error: grpc.RpcError, server: str = "") -> GranuloClientError:
    """Make the exception for a failed call.

    Parameters
    ----------
    error : grpc.RpcError
        As raised by a stub.
    server : str
        Address of the server, for the sentence about one that does not answer.
    """
    call = cast("grpc.Call", error)  # stubs raise errors that are calls too
    status = rpc_status.from_call(call)
    if status is not None:
        return from_status(status)
    code = call.code().name
    text = call.details() or code
    if code == "UNAVAILABLE":
        place = f" at {server}" if server else ""
        text = f"No Granulo server answers{place} ({text}). Check the address and that it runs."
    return _CLASSES.get(code, GranuloClientError)(text, code=code)
