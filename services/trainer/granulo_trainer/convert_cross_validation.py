# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the messages of cross-validations and the domain."""

import re
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo_core.errors import FieldViolation, GranuloError, Reason, invalid_fields, not_found
from granulo_core.rpc import artifacts
from granulo_core.store.manifest import Manifest
from granulo_core.store.port import StoredObject
from granulo_trainer import convert
from granulo_trainer.domain.config import TrainingConfig

CONFIG = "cross_validation.config"
_ANNOTATED = re.compile(r"^annotated/[a-z0-9][a-z0-9._-]{0,62}$")
_NAME = re.compile(r"^cross-validations/[a-z0-9][a-z0-9._-]{0,62}$")


def training_config(message: pb.CrossValidation, max_epochs: int) -> TrainingConfig:
    """Configuration of every fold; INVALID_ARGUMENT names every unusable field of the request."""
    found = []
    if not _ANNOTATED.match(message.dataset):
        text = f"{message.dataset!r} is no annotated dataset; import one and give annotated/<id>"
        found.append(FieldViolation("cross_validation.dataset", text))
    if message.folds < 0 or message.folds == 1:
        text = f"is {message.folds}; give 2 or more, or 0 for one fold an image"
        found.append(FieldViolation("cross_validation.folds", text))
    for i, name in enumerate(message.config.datasets):
        if name == message.dataset:
            text = f"{name} is the dataset that is cross-validated; leave it out here"
            found.append(FieldViolation(f"{CONFIG}.datasets[{i}]", text))
    if message.config.validation:
        text = "must be empty: the images that are left out are the validation"
        found.append(FieldViolation(f"{CONFIG}.validation", text))
    if message.config.base_version:
        text = "must be empty: every fold begins with fresh weights"
        found.append(FieldViolation(f"{CONFIG}.base_version", text))
    try:
        config = convert.training_config(message.config, max_epochs, CONFIG)
        convert.training_weights(message.config, dataset_names(message), CONFIG)
    except GranuloError as error:
        if error.reason is not Reason.FIELD_INVALID:
            raise
        found += error.violations
    if found:
        raise invalid_fields(found)
    return config


def dataset_names(message: pb.CrossValidation) -> tuple[str, ...]:
    """The dataset that is cross-validated, and what is trained on besides."""
    return (message.dataset, *message.config.datasets)


def cross_validation_name(name: str) -> str:
    """Return ``cross-validations/<id>``; what has another form does not exist."""
    if not _NAME.match(name):
        raise not_found(
            name or "(empty name)", "A cross-validation is called cross-validations/<id>."
        )
    return name


def identity(request: pb.CrossValidateRequest) -> bytes:
    """Canonical bytes of what determines a cross-validation."""
    message = pb.CrossValidation(
        dataset=request.cross_validation.dataset,
        config=request.cross_validation.config,
        folds=request.cross_validation.folds,
    )
    return message.SerializeToString(deterministic=True)


def cross_validation(manifest: Manifest, stored: StoredObject) -> pb.CrossValidation:
    """Message of a finished cross-validation."""
    facts = manifest.facts
    message = pb.CrossValidation(
        name=manifest.resource,
        dataset=facts["dataset"],
        config=_config(facts["config"]),
        folds=facts["requested_folds"],
        metrics=facts["metrics"],
        manifest=artifacts.to_proto(stored),
    )
    message.config.datasets.extend(facts["datasets"])
    message.config.weights.update(facts["weights"])
    for fold in facts["folds"]:
        message.results.add(
            images=[image["name"] for image in fold["images"]],
            epoch=fold["epoch"],
            metrics=fold["metrics"],
        )
    stamp = Timestamp()
    stamp.FromJsonString(manifest.create_time)
    message.create_time.CopyFrom(stamp)
    return message


def _config(values: dict[str, Any]) -> pb.TrainingConfig:
    """The resolved settings that a request can name; filters and the convention it cannot."""
    known = pb.TrainingConfig.DESCRIPTOR.fields_by_name
    return pb.TrainingConfig(**{name: value for name, value in values.items() if name in known})
