# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the trainer's messages and its domain."""

import math
import re
from collections.abc import Sequence
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
from granulo_trainer.domain.config import (
    PRESETS,
    ConfigError,
    Network,
    TrainingConfig,
    preset_config,
)
from granulo_trainer.domain.job import StoredImage, ValidationPair

_MODEL = re.compile(r"^models/([a-z0-9][a-z0-9_-]{0,62})$")
_DATASET = re.compile(r"^(datasets|annotated)/[a-z0-9][a-z0-9._-]{0,62}$")
_CONFIG = "model_version.config"
_ARTIFACTS = ("uploads/", "datasets/", "annotated/", "segmentations/")
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


def training_config(
    config: pb.TrainingConfig,
    max_epochs: int,
    path: str = _CONFIG,
    base: Network | None = None,
) -> TrainingConfig:
    """The preset with the request's values; INVALID_ARGUMENT names every unusable one.

    Parameters
    ----------
    config : granulo.trainer.v1.TrainingConfig
    max_epochs : int
    path : str
        Field of the request that holds the configuration.
    base : Network, optional
        Whose weights are the first ones: the network where the request does not say which.
    """
    violations = _name_violations(config, path)
    preset = config.preset or (base.preset if base else "small")
    if preset not in PRESETS:
        violations.append(
            FieldViolation(f"{path}.preset", f"{preset!r} is none of {', '.join(PRESETS)}")
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
                    f"{path}.{name}",
                    f"{value} is not between 0 and {most} (0 takes the preset's value)",
                )
            )
        elif value:
            overrides[name] = value
    if config.precision:
        overrides["precision"] = config.precision
    overrides["deterministic"] = config.deterministic
    if base and base.filters and base.preset == preset and not config.width:
        overrides["filters"] = base.filters
    known = preset if preset in PRESETS else "small"
    try:
        result = preset_config(known, **overrides)
    except ConfigError as error:
        violations += [FieldViolation(f"{path}.{name}", text) for name, text in error.problems]
    if violations:
        raise invalid_fields(violations)
    return result


def _name_violations(config: pb.TrainingConfig, path: str) -> list[FieldViolation]:
    found = [
        FieldViolation(
            f"{path}.datasets[{i}]", f"{name!r} is no name like datasets/<id> or annotated/<id>"
        )
        for i, name in enumerate(config.datasets)
        if not _DATASET.match(name)
    ]
    found += [
        FieldViolation(f"{path}.datasets[{i}]", f"{name} is named twice; use weights instead")
        for i, name in enumerate(config.datasets)
        if name in config.datasets[:i]
    ]
    if not config.datasets and path == _CONFIG:
        text = "is empty; name at least one rendered or annotated dataset"
        found.append(FieldViolation(f"{path}.datasets", text))
    for i, item in enumerate(config.validation):
        for part in ("image", "labels"):
            uri = getattr(item, part).uri
            if item.HasField(part) and not uri.startswith(_ARTIFACTS):
                text = f"{uri!r} is no uploaded or published artifact; upload the file first"
                found.append(FieldViolation(f"{path}.validation[{i}].{part}.uri", text))
    return found


def training_weights(
    config: pb.TrainingConfig, datasets: Sequence[str], path: str = _CONFIG
) -> tuple[float, ...]:
    """Share of the patches of each of the datasets; empty where the request says nothing.

    Raises
    ------
    GranuloError
        FIELD_INVALID for weights of other datasets, for what is no weight, and where all are 0.
    """
    found = []
    for name, weight in sorted(config.weights.items()):
        if name not in datasets:
            text = f"{name!r} is none of the datasets ({', '.join(datasets)}); correct the name"
            found.append(FieldViolation(f"{path}.weights[{name}]", text))
        if not math.isfinite(weight) or weight < 0:
            text = f"{weight} is no weight; give a finite number of 0 or more"
            found.append(FieldViolation(f"{path}.weights[{name}]", text))
    weights = tuple(config.weights.get(name, 1.0) for name in datasets)
    if config.weights and not found and not any(weights):
        text = "are all 0, so that no patch could be drawn; give one dataset a positive weight"
        found.append(FieldViolation(f"{path}.weights", text))
    if found:
        raise invalid_fields(found)
    return weights if config.weights else ()


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
    asked = manifest.request.get("model_version", {}).get("config", {})
    kept = {name: asked[name] for name in ("base_version", "width") if name in asked}
    _fill(config, {**manifest.facts["config"], **kept}, list(manifest.facts["datasets"]))
    config.weights.update(manifest.facts.get("weights", {}))
    return pb.ModelVersion(
        name=str(version),
        state=pb.ModelVersion.STATE_ACTIVE,
        config=config,
        metrics={name: float(value) for name, value in manifest.facts["figures"].items()},
        manifest=artifacts.to_proto(stored),
        create_time=_timestamp(manifest.create_time),
        weights_digest=str(manifest.facts["weights_digest"]),
        parameter_count=int(manifest.facts["parameter_count"]),
        selection=_selection(manifest),
        model_card=_model_card(manifest),
    )


def _model_card(manifest: Manifest) -> artifact_pb2.Artifact | None:
    """The card; versions of before there were cards have none."""
    key = f"{manifest.resource}/{CARD_NAME}"
    cards = [artifacts.to_proto(item, CARD_NAME) for item in manifest.objects if item.key == key]
    return cards[0] if cards else None


def unfinished_version(
    version: registry.VersionName,
    state: registry.VersionState,
    create_time: str,
    failure: str = "",
) -> pb.ModelVersion:
    """Message of a version that is being made or whose making failed."""
    return pb.ModelVersion(
        name=str(version),
        state=_STATES[state],
        create_time=_timestamp(create_time),
        failure=failure,
    )


def checkpoint(version: registry.VersionName, record: registry.CheckpointRecord) -> pb.Checkpoint:
    """Message of a checkpoint."""
    return pb.Checkpoint(
        name=f"{version}/checkpoints/{record.epoch}",
        epoch=record.epoch,
        metrics=dict(record.figures),
        predictions=[
            artifacts.to_proto(item, name)
            for item, name in zip(record.predictions, record.names, strict=True)
        ],
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
        "base_version",
        "width",
    ):
        # Versions of before these settings do not name them.
        if name in config:
            setattr(message, name, config[name])


def _selection(manifest: Manifest) -> pb.Selection | None:
    # Versions of before selections were recorded have none.
    known = manifest.facts.get("selection")
    if known is None:
        return None
    criterion = pb.Criterion.Value(f"CRITERION_{known['criterion']}")
    return pb.Selection(**{**known, "criterion": criterion})


def _stored_image(message: artifact_pb2.Artifact, fallback: str) -> StoredImage:
    return StoredImage(
        key=message.uri, digest=message.digest, name=message.display_name or fallback
    )


def _timestamp(text: str) -> Timestamp:
    stamp = Timestamp()
    stamp.FromJsonString(text)
    return stamp
