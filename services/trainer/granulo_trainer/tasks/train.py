# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry point that the engine runs: one training run from data to exported version."""

import tempfile
from functools import partial
from pathlib import Path

import structlog

from granulo_core.engine.port import TaskContext
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.reporting import report
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore, StoredObject, digest_of
from granulo_trainer import datasets, registry
from granulo_trainer.checkpoints import StoreCheckpoints
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.job import TrainingJob
from granulo_trainer.domain.run import Checkpoint, StepReport
from granulo_trainer.domain.selection import describe_choice, select_epoch
from granulo_trainer.publishing import ExportedNetwork, put_card
from granulo_trainer.settings import TrainerSettings
from granulo_trainer.thresholds import tune_on_renders

_log = structlog.get_logger(__name__)
_MEDIA_TYPES = {".json": "application/json", ".pb": "application/x-protobuf"}


def train(context: TaskContext, payload: bytes) -> bytes:
    """Train a version, or go on from its last checkpoint, and export it.

    Parameters
    ----------
    context : TaskContext
    payload : bytes
        A :class:`TrainingJob`.

    Returns
    -------
    bytes
        Receipt with the version's objects and figures.
    """
    # TensorFlow takes seconds to import and belongs to workers, not to servers.
    from granulo_trainer.unet import train as loop
    from granulo_trainer.unet.data import CachedScenes

    job = TrainingJob.from_bytes(payload)
    config = job.config
    store = open_store(context.store_url)
    version = registry.VersionName.parse(job.version)
    training, held_out = datasets.split_held_out(datasets.list_scenes(store, job.datasets))
    max_px = TrainerSettings.load().max_image_px
    validation = [
        datasets.validation_image(store, pair, config, max_px) for pair in job.validation
    ] + datasets.held_out_images(store, held_out, config)
    checkpoints = _Reported(StoreCheckpoints(store, version), context, config)
    _log.info(
        "training", version=str(version), scenes=len(training), held_out=len(held_out),
        steps=config.total_steps,
    )  # fmt: skip

    def on_step(step: StepReport) -> None:
        report(
            context,
            units_done=float(step.step),
            message=f"epoch {(step.step - 1) // config.steps_per_epoch + 1} of {config.epochs}, "
            f"loss {step.loss:.3f}",
            figures={"loss": step.loss, "steps_per_second": step.steps_per_second},
        )

    scenes = CachedScenes(len(training), lambda i: datasets.load_scene(store, training[i], config))
    network = loop.train(config, scenes, validation, checkpoints, on_step=on_step)
    report(context, units_done=float(config.total_steps), message="thresholds, export, model card")
    return _export(store, job, checkpoints.stored, network).to_bytes()


def _export(
    store: ObjectStore, job: TrainingJob, checkpoints: StoreCheckpoints, network: object
) -> Receipt:
    """Put the selected epoch's SavedModel into the store."""
    from granulo_trainer.unet import export
    from granulo_trainer.unet import network as networks
    from granulo_trainer.unet import train as loop

    history = checkpoints.history()
    config = job.config
    epoch = select_epoch(config.preset, history)
    weights = checkpoints.weights(epoch)
    loop.load_weights(network, weights)
    arrays = network.get_weights()  # type: ignore[attr-defined]
    predict = export.exported_predictor(arrays, config)
    tuning = tune_on_renders(store, job.datasets, config, predict, export.scale_params(config))
    instances = tuning.params if tuning else export.default_instances(config)
    with tempfile.TemporaryDirectory(prefix="granulo-export-") as folder:
        export.export_saved_model(arrays, config, Path(folder), instances)
        exported = _put_folder(store, Path(folder), f"{job.version}/saved_model")
    description = ExportedNetwork(
        epoch=epoch,
        chosen=describe_choice(config.preset, history),
        figures=history[epoch - 1],
        precision=networks.precision_of(network),
        instances=instances,
        tuning=tuning,
        parameter_count=int(sum(array.size for array in arrays)),
        weights_digest=digest_of(weights),
        outputs=networks.outputs_of(config),
    )
    card = put_card(store, job, description, TrainerSettings.load().weights_licence)
    kept = checkpoints.kept_objects()
    checkpoints.drop_optimizer_states()
    return Receipt(objects=(*exported, *card, *kept), facts=description.to_json())


def _put_folder(store: ObjectStore, folder: Path, prefix: str) -> list[StoredObject]:
    put = partial(_put_file, store, folder, prefix)
    return [put(path) for path in sorted(folder.rglob("*")) if path.is_file()]


def _put_file(store: ObjectStore, folder: Path, prefix: str, path: Path) -> StoredObject:
    media_type = _MEDIA_TYPES.get(path.suffix, "application/octet-stream")
    key = f"{prefix}/{path.relative_to(folder).as_posix()}"
    return store.put_file(key, path, media_type)


class _Reported:
    """Checkpoints whose figures also go into the operation's progress."""

    def __init__(
        self, stored: StoreCheckpoints, context: TaskContext, config: TrainingConfig
    ) -> None:
        self.stored = stored
        self.latest = stored.latest
        self.history = stored.history
        self._context = context
        self._config = config

    def save(self, checkpoint: Checkpoint) -> None:
        self.stored.save(checkpoint)
        figures = dict(checkpoint.figures)
        parts = [
            f"epoch {checkpoint.epoch} of {self._config.epochs}",
            f"loss {figures['loss']:.3f}",
        ]
        parts += [
            f"{name.split('_')[0]} AP50 {figures[name]:.2f}"
            for name in ("validation_ap50", "heldout_ap50")
            if name in figures
        ]
        report(
            self._context,
            units_done=float(checkpoint.epoch * self._config.steps_per_epoch),
            message=", ".join(parts),
            figures=figures,
        )
