# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the messages of ranking and selecting and the domain."""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.rpc import artifacts
from granulo_core.store.port import StoredObject
from granulo_trainer import convert, registry
from granulo_trainer.domain.selection import Criterion, Ranked

_MOST_CHARACTERS = {"selected_by": 200, "reason": 2000}


def wanted_criterion(request: pb.RankCheckpointsRequest) -> Criterion | None:
    """The request's criterion, None where it leaves the choice; INVALID_ARGUMENT for VISUAL."""
    try:
        name = pb.Criterion.Name(request.criterion).removeprefix("CRITERION_")
    except ValueError:
        name = ""
    if name == "UNSPECIFIED":
        return None
    rankable = [item.value for item in Criterion if item is not Criterion.VISUAL]
    if name not in rankable:
        raise invalid_fields(
            [
                FieldViolation(
                    "criterion",
                    f"{name or request.criterion} is nothing to rank by; use one of "
                    f"{', '.join(rankable)}, or page=true to look at the predictions",
                )
            ]
        )
    return Criterion(name)


def ranking(
    version: registry.VersionName,
    criterion: Criterion,
    ranked: Sequence[Ranked],
    records: Mapping[int, registry.CheckpointRecord],
    page: StoredObject | None,
) -> pb.RankCheckpointsResponse:
    """Message of a ranking."""
    return pb.RankCheckpointsResponse(
        ranking=[
            pb.RankedCheckpoint(
                checkpoint=convert.checkpoint(version, records[item.epoch]),
                score=item.score or 0.0,
                parts=dict(item.parts),
                explanation=item.explanation,
            )
            for item in ranked
        ],
        criterion=pb.Criterion.Value(f"CRITERION_{criterion}"),
        page=None if page is None else artifacts.to_proto(page, "checkpoints.html"),
    )


def check_person(request: pb.SelectCheckpointRequest) -> None:
    """Refuse a choice without a person or a reason; INVALID_ARGUMENT names both fields."""
    violations = []
    for name, most in _MOST_CHARACTERS.items():
        text = getattr(request, name).strip()
        if not text:
            what = "who chose" if name == "selected_by" else "why this checkpoint was chosen"
            violations.append(FieldViolation(name, f"is empty; say {what}"))
        elif len(text) > most:
            violations.append(
                FieldViolation(name, f"has {len(text)} characters; at most {most} are kept")
            )
    if violations:
        raise invalid_fields(violations)


def averaged_epochs(request: pb.SelectCheckpointRequest, chosen_epoch: int) -> int:
    """Epochs whose weights are averaged, 0 where none are; INVALID_ARGUMENT names the field."""
    wanted = request.averaged_epochs
    if not 0 <= wanted <= chosen_epoch:
        raise invalid_fields(
            [
                FieldViolation(
                    "averaged_epochs",
                    f"must lie between 0 and the chosen epoch, {chosen_epoch}, got {wanted}",
                )
            ]
        )
    return int(wanted) if wanted > 1 else 0


def identity(request: pb.SelectCheckpointRequest) -> bytes:
    """Canonical bytes of what determines the selected version."""
    kept = pb.SelectCheckpointRequest(
        name=request.name,
        selected_by=request.selected_by.strip(),
        reason=request.reason.strip(),
        averaged_epochs=request.averaged_epochs if request.averaged_epochs > 1 else 0,
    )
    return kept.SerializeToString(deterministic=True)


def request_json(request: pb.SelectCheckpointRequest) -> dict[str, Any]:
    """The whole request as plain values for the manifest."""
    values: dict[str, Any] = MessageToDict(request, preserving_proto_field_name=True)
    return values
