# SPDX-License-Identifier: GPL-3.0-or-later
"""A checkpoint becomes a version: what training and selecting have in common."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from granulo_core.store.port import ObjectStore, StoredObject, digest_of
from granulo_core.telemetry.stages import Stage, stage
from granulo_trainer import base_version
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.job import TrainingJob
from granulo_trainer.publishing import ExportedNetwork, put_card
from granulo_trainer.settings import TrainerSettings
from granulo_trainer.thresholds import tune_on_renders

_MEDIA_TYPES = {".json": "application/json", ".pb": "application/x-protobuf"}


@dataclass(frozen=True)
class ChosenCheckpoint:
    """The checkpoint of a run that is exported."""

    epoch: int
    weights: bytes
    """As ``unet.train.weights_bytes`` gives them."""
    figures: Mapping[str, float]
    chosen: str
    """One sentence: how or by whom it was chosen."""


@dataclass(frozen=True)
class ExportedVersion:
    """What the export of a checkpoint put into the store."""

    objects: tuple[StoredObject, ...]
    facts: dict[str, Any]
    """For the version's manifest."""


def export_version(
    store: ObjectStore, job: TrainingJob, checkpoint: ChosenCheckpoint, target: str
) -> ExportedVersion:
    """Put the SavedModel of a checkpoint into the store, with its thresholds and its card.

    Parameters
    ----------
    store : ObjectStore
    job : TrainingJob
        The run that made the checkpoint.
    checkpoint : ChosenCheckpoint
    target : str
        ``models/<model>/versions/<n>`` that is being made; not always the job's own version.

    Returns
    -------
    ExportedVersion
    """
    from granulo_trainer.unet import export
    from granulo_trainer.unet import network as networks
    from granulo_trainer.unet import train as loop

    config = job.config
    network = networks.build_network(config)
    loop.load_weights(network, checkpoint.weights)
    arrays = network.get_weights()
    predict = export.exported_predictor(arrays, config)
    # What is trained further keeps the thresholds that it came with, unless others are better.
    base = base_version.find(store, job.base_version)
    default = base.instances if base else export.default_instances(config)
    scale = export.scale_params(config)
    tuning = tune_on_renders(store, job.datasets, config, predict, scale, default)
    instances = tuning.params if tuning else default
    with tempfile.TemporaryDirectory(prefix="granulo-export-") as folder:
        with stage(Stage.EXPORT_SAVED_MODEL):
            export.export_saved_model(arrays, config, Path(folder), instances)
        objects = _put_folder(store, Path(folder), f"{target}/saved_model")
    exported = ExportedNetwork(
        epoch=checkpoint.epoch,
        chosen=checkpoint.chosen,
        figures=checkpoint.figures,
        precision=_precision(config),
        instances=instances,
        tuning=tuning,
        parameter_count=int(sum(array.size for array in arrays)),
        weights_digest=digest_of(checkpoint.weights),
        outputs=networks.outputs_of(config),
    )
    licence = TrainerSettings.load().weights_licence
    card = put_card(store, replace(job, version=target), exported, licence)
    return ExportedVersion(objects=(*objects, *card), facts=exported.to_json())


def _precision(config: TrainingConfig) -> str:
    from granulo_trainer.unet.network import fastest_precision

    return fastest_precision() if config.precision == "auto" else config.precision


def _put_folder(store: ObjectStore, folder: Path, prefix: str) -> list[StoredObject]:
    put = partial(_put_file, store, folder, prefix)
    return [put(path) for path in sorted(folder.rglob("*")) if path.is_file()]


def _put_file(store: ObjectStore, folder: Path, prefix: str, path: Path) -> StoredObject:
    media_type = _MEDIA_TYPES.get(path.suffix, "application/octet-stream")
    key = f"{prefix}/{path.relative_to(folder).as_posix()}"
    return store.put_file(key, path, media_type)
