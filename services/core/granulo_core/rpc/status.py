# SPDX-License-Identifier: GPL-3.0-or-later
"""`GranuloError` as `google.rpc.Status` with the details of AIP-193, and back."""

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

# gRPC drops errors whose metadata is larger than 8 KiB: of many violations the first are sent.
_MAX_TEXT = 1000
_MAX_VIOLATIONS = 16
_MAX_DESCRIPTION = 200


def to_status(error: GranuloError) -> status_pb2.Status:
    """Canonical code, sentence and details of an error, cut to what gRPC delivers."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason.value, domain=DOMAIN, metadata=error.metadata
        )
    ]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=_cut(violation.field, _MAX_DESCRIPTION),
                        description=_cut(violation.description, _MAX_DESCRIPTION),
                    )
                    for violation in error.violations[:_MAX_VIOLATIONS]
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
                        subject=error.metadata.get("name", ""),
                        description=_cut(error.message, _MAX_DESCRIPTION),
                    )
                ]
            )
        )
    return status_pb2.Status(
        code=error.code.value,
        message=_cut(error.message, _MAX_TEXT),
        details=[_pack(d) for d in details],
    )


def from_status(status: status_pb2.Status) -> GranuloError:
    """The error that `to_status` packed; an unknown reason becomes INTERNAL_ERROR."""
    reason, metadata = Reason.INTERNAL_ERROR, {}
    violations: list[FieldViolation] = []
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(info):
            metadata = dict(info.metadata)
            if info.reason in Reason.__members__:
                reason = Reason[info.reason]
        elif detail.Unpack(bad):
            violations = [FieldViolation(v.field, v.description) for v in bad.field_violations]
    return GranuloError(reason, status.message, metadata=metadata, violations=violations)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
