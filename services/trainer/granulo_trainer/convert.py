# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the trainer's messages and its domain."""

import math
import re
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo.type.v1 import artifact_pb2
from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.rpc import artifacts
from granulo_core.store.manifest import Manifest
from granulo_core.store.port import StoredObject
from granulo_trainer import registry
from granulo_trainer.card import NAME as CARD_NAME
from granulo_trainer.domain.config import PRESETS, TrainingConfig, preset_config
from granulo_trainer.domain.job import StoredImage, ValidationPair

_MODEL = re.compile(r"^models/([a-z0-9][a-z0-9_-]{0,62})$")
_DATASET = re.compile(r"^(datasets|annotated)/[a-z0-9][a-z0-9._-]{0,62}$")
_CONFIG = "model_version.config"
_ARTIFACTS = ("uploads/", "datasets/", "segmentations/")
_STATES = {
    registry.VersionState.CREATING: pb.ModelVersion.STATE_CREATING,
    registry.VersionState.ACTIVE: pb.ModelVersion.STATE_ACTIVE,
    registry.VersionState.FAILED: pb.ModelVersion.STATE_FAILED,
}


def model_id(name: str, field: str) -> str:
    """Model id of ``models/<id>``; INVALID_ARGUMENT names ``field``."""
    match = _MODEL.match(name)
    if not match:
        raise invalid_fields(
            [
                FieldViolation(
                    field,
                    f"{name!r} is no model name; use models/<id> with an id of lower-case letters, "
                    "digits, '-' and '_', at most 63 characters",
                )
            ]
        )
    return match.group(1)


def training_config(config: pb.TrainingConfig, max_epochs: int) -> TrainingConfig:
    """The preset with the request's values; INVALID_ARGUMENT names every unusable one."""
    violations = _name_violations(config)
    preset = config.preset or "small"
    if preset not in PRESETS:
        violations.append(
            FieldViolation(f"{_CONFIG}.preset", f"{preset!r} is none of {', '.join(PRESETS)}")
        )
    limits = {
        "epochs": max_epochs,
        "steps_per_epoch": 100_000,
        "batch_size": 256,
        "patch_px": 2048,
        "learning_rate": 1,
        "seed": 2**31 - 1,
        "max_steps": 100_000_000,
        "max_minutes": 60 * 24 * 60,
        "early_stopping_epochs": max_epochs,
        "width": 4,
    }
    overrides: dict[str, Any] = {}
    for name, most in limits.items():
        value = getattr(config, name)
        if not math.isfinite(value) or not 0 <= value <= most:
            violations.append(
                FieldViolation(
                    f"{_CONFIG}.{name}",
                    f"{value} is not between 0 and {most} (0 takes the preset's value)",
                )
            )
        elif value:
            overrides[name] = value
    if config.precision:
        overrides["precision"] = config.precision
    overrides["deterministic"] = config.deterministic
    if violations:
        raise invalid_fields(violations)
    try:
        return preset_config(preset, **overrides)
    except ValueError as error:
        field = str(error).split(" ", 1)[0]
        raise invalid_fields([FieldViolation(f"{_CONFIG}.{field}", str(error))]) from error


def _name_violations(config: pb.TrainingConfig) -> list[FieldViolation]:
    found = [
        FieldViolation(
            f"{_CONFIG}.datasets[{i}]", f"{name!r} is no name like datasets/<id> or annotated/<id>"
        )
        for i, name in enumerate(config.datasets)
        if not _DATASET.match(name)
    ]
    if not config.datasets:
        text = "is empty; name at least one rendered dataset"
        found.append(FieldViolation(f"{_CONFIG}.datasets", text))
    for i, item in enumerate(config.validation):
        for part in ("image", "labels"):
            uri = getattr(item, part).uri
            if item.HasField(part) and not uri.startswith(_ARTIFACTS):
                text = f"{uri!r} is no uploaded or published artifact; upload the file first"
                found.append(FieldViolation(f"{_CONFIG}.validation[{i}].{part}.uri", text))
    return found


def validation_pairs(config: pb.TrainingConfig) -> tuple[ValidationPair, ...]:
    """The request's validation images."""
    return tuple(
        ValidationPair(
            image=_stored_image(item.image, f"validation image {number + 1}"),
            labels=_stored_image(item.labels, f"validation labels {number + 1}")
            if item.HasField("labels")
            else None,
        )
        for number, item in enumerate(config.validation)
    )


def identity(request: pb.CreateModelVersionRequest) -> bytes:
    """Canonical bytes of what determines a version: its model and configuration."""
    kept = pb.CreateModelVersionRequest(
        parent=request.parent,
        model_version=pb.ModelVersion(config=request.model_version.config),
    )
    return kept.SerializeToString(deterministic=True)


def request_json(request: pb.CreateModelVersionRequest) -> dict[str, Any]:
    """The whole request as plain values for the manifest."""
    values: dict[str, Any] = MessageToDict(request, preserving_proto_field_name=True)
    return values


def model(model_id: str, serving: registry.VersionName | None) -> pb.Model:
    """Message of a model."""
    return pb.Model(name=f"models/{model_id}", serving_version=str(serving) if serving else "")


def active_version(
    version: registry.VersionName, manifest: Manifest, stored: StoredObject
) -> pb.ModelVersion:
    """Message of a finished version."""
    config = pb.TrainingConfig()
    _fill(config, dict(manifest.facts["config"]), list(manifest.facts["datasets"]))
    return pb.ModelVersion(
        name=str(version),
        state=pb.ModelVersion.STATE_ACTIVE,
        config=config,
        metrics={name: float(value) for name, value in manifest.facts["figures"].items()},
        manifest=artifacts.to_proto(stored),
        create_time=_timestamp(manifest.create_time),
        weights_digest=str(manifest.facts["weights_digest"]),
        parameter_count=int(manifest.facts["parameter_count"]),
        model_card=_model_card(manifest),
    )


def _model_card(manifest: Manifest) -> artifact_pb2.Artifact | None:
    """The card; versions of before there were cards have none."""
    key = f"{manifest.resource}/{CARD_NAME}"
    cards = [artifacts.to_proto(item, CARD_NAME) for item in manifest.objects if item.key == key]
    return cards[0] if cards else None


def unfinished_version(
    version: registry.VersionName, state: registry.VersionState, create_time: str
) -> pb.ModelVersion:
    """Message of a version that is being made or whose making failed."""
    return pb.ModelVersion(
        name=str(version), state=_STATES[state], create_time=_timestamp(create_time)
    )


def checkpoint(version: registry.VersionName, record: registry.CheckpointRecord) -> pb.Checkpoint:
    """Message of a checkpoint."""
    return pb.Checkpoint(
        name=f"{version}/checkpoints/{record.epoch}",
        epoch=record.epoch,
        metrics=dict(record.figures),
        predictions=[artifacts.to_proto(item) for item in record.predictions],
        create_time=_timestamp(record.create_time),
    )


def _fill(message: pb.TrainingConfig, config: dict[str, Any], datasets: list[str]) -> None:
    message.datasets.extend(datasets)
    for name in (
        "preset",
        "epochs",
        "steps_per_epoch",
        "batch_size",
        "patch_px",
        "learning_rate",
        "seed",
        "max_steps",
        "max_minutes",
        "early_stopping_epochs",
        "precision",
        "deterministic",
    ):
        # Versions of before these settings do not name them.
        if name in config:
            setattr(message, name, config[name])


def _stored_image(message: artifact_pb2.Artifact, fallback: str) -> StoredImage:
    return StoredImage(
        key=message.uri, digest=message.digest, name=message.display_name or fallback
    )


def _timestamp(text: str) -> Timestamp:
    stamp = Timestamp()
    stamp.FromJsonString(text)
    return stamp
