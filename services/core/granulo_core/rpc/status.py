# SPDX-License-Identifier: GPL-3.0-or-later
"""`GranuloError` as `google.rpc.Status` with the details of AIP-193, and back."""

from collections.abc import Sequence
from urllib.parse import quote

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from granulo_core.errors import (
    DOMAIN,
    Code,
    FieldViolation,
    GranuloError,
    Reason,
)

# gRPC refuses metadata beyond 8 KiB, and with it the whole error: of long ones the head is sent.
_MAX_WIRE_BYTES = 7000
_MAX_MESSAGE_BYTES = 800
_MAX_TEXT_BYTES = 200
_MAX_METADATA = 8


def to_status(error: GranuloError) -> status_pb2.Status:
    """Canonical code, sentence and details of an error, cut to what gRPC delivers."""
    violations = error.violations[:32]
    while True:
        status = _status(error, violations)
        if not violations or _wire_bytes(status) <= _MAX_WIRE_BYTES:
            return status
        violations = violations[: len(violations) // 2]


def _status(error: GranuloError, violations: Sequence[FieldViolation]) -> status_pb2.Status:
    metadata = list(error.metadata.items())[:_MAX_METADATA]
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason.value,
            domain=DOMAIN,
            metadata={name: _cut(value, _MAX_TEXT_BYTES) for name, value in metadata},
        )
    ]
    if violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=_cut(violation.field, _MAX_TEXT_BYTES),
                        description=_cut(violation.description, _MAX_TEXT_BYTES),
                    )
                    for violation in violations
                ]
            )
        )
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.code is Code.FAILED_PRECONDITION:
        details.append(
            error_details_pb2.PreconditionFailure(
                violations=[
                    error_details_pb2.PreconditionFailure.Violation(
                        type=error.reason.value,
                        subject=_cut(error.metadata.get("name", ""), _MAX_TEXT_BYTES),
                        description=_cut(error.message, _MAX_TEXT_BYTES),
                    )
                ]
            )
        )
    return status_pb2.Status(
        code=error.code.value,
        message=_cut(error.message, _MAX_MESSAGE_BYTES),
        details=[_pack(d) for d in details],
    )


def _wire_bytes(status: status_pb2.Status) -> int:
    """Size in the trailing metadata: Base64, and the message once more, percent-encoded."""
    size: int = status.ByteSize()
    return size * 4 // 3 + len(quote(status.message))


def from_status(status: status_pb2.Status) -> GranuloError:
    """The error that `to_status` packed; an unknown reason becomes INTERNAL_ERROR."""
    reason, metadata = Reason.INTERNAL_ERROR, {}
    violations: list[FieldViolation] = []
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry, retry_after_s = error_details_pb2.RetryInfo(), None
    for detail in status.details:
        if detail.Unpack(info):
            metadata = dict(info.metadata)
            if info.reason in Reason.__members__:
                reason = Reason[info.reason]
        elif detail.Unpack(bad):
            violations = [FieldViolation(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    return GranuloError(
        reason,
        status.message,
        metadata=metadata,
        violations=violations,
        retry_after_s=retry_after_s,
    )


def _cut(text: str, length: int) -> str:
    data = text.encode(errors="replace")
    if len(data) <= length:
        return text
    return data[: length - 3].decode(errors="ignore") + "…"


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
