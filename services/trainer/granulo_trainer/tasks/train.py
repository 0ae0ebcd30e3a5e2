# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry point that the engine runs: one training run from data to exported version."""

import structlog

from granulo_core.engine.port import TaskContext
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.reporting import report
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore
from granulo_trainer import datasets, registry
from granulo_trainer.checkpoints import StoreCheckpoints
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.job import TrainingJob
from granulo_trainer.domain.run import Checkpoint, StepReport
from granulo_trainer.domain.selection import Selection, choose
from granulo_trainer.settings import TrainerSettings
from granulo_trainer.tasks.exporting import export_version

_log = structlog.get_logger(__name__)


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
    checkpoints.stored.keep_validation_images(validation)
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
    loop.train(config, scenes, validation, checkpoints, on_step=on_step)
    return _export(store, job, checkpoints.stored).to_bytes()


def _export(store: ObjectStore, job: TrainingJob, checkpoints: StoreCheckpoints) -> Receipt:
    """Export the epoch that the figures speak for."""
    history = dict(enumerate(checkpoints.history(), start=1))
    criterion, best = choose(job.config.preset, history)
    exported = export_version(store, job, checkpoints.weights(best.epoch), job.version)
    selection = Selection(
        criterion,
        f"{job.version}/checkpoints/{best.epoch}",
        selected_by="",
        reason=best.explanation,
    )
    kept = checkpoints.kept_objects()
    checkpoints.drop_optimizer_states()
    return Receipt(
        objects=(*exported.objects, *kept),
        facts={
            "epoch": best.epoch,
            "figures": dict(history[best.epoch]),
            "selection": selection.to_json(),
            "weights_digest": exported.weights_digest,
            "parameter_count": exported.parameter_count,
        },
    )


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
