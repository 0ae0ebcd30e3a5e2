# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry point that the engine runs: one training run from data to exported version."""

import structlog

from granulo_core.engine.port import TaskContext
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.reporting import report
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore
from granulo_trainer import base_version, datasets, registry
from granulo_trainer.checkpoints import StoreCheckpoints
from granulo_trainer.domain import budget
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.job import TrainingJob
from granulo_trainer.domain.run import Checkpoint, StepReport, base_figures
from granulo_trainer.domain.selection import Selection, choose
from granulo_trainer.settings import TrainerSettings
from granulo_trainer.tasks.exporting import ChosenCheckpoint, export_version

_log = structlog.get_logger(__name__)
# Less is no news: the bar has no room for it.
_WAITING_TOLD = 0.05


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
    base = base_version.find(store, job.base_version)
    _log.info(
        "training", version=str(version), scenes=len(training), held_out=len(held_out),
        steps=config.total_steps,
    )  # fmt: skip
    weights = dict(zip(job.datasets, job.weights, strict=False))
    loop.train(
        config,
        datasets.training_scenes(store, training, config, weights),
        validation,
        checkpoints,
        on_step=checkpoints.report_step,
        first_weights=base_version.first_weights(store, base, config) if base else b"",
    )
    report(context, units_done=float(config.total_steps), message="thresholds, export, model card")
    return _export(store, job, checkpoints.stored).to_bytes()


def _export(store: ObjectStore, job: TrainingJob, checkpoints: StoreCheckpoints) -> Receipt:
    """Export the epoch that the figures speak for."""
    epochs = checkpoints.history()
    end = budget.end_of(job.config, epochs)
    assert end is not None  # the loop has ended
    ended = budget.explain(job.config, epochs, end)
    history = dict(enumerate(epochs, start=1))
    criterion, best = choose(job.config.preset, history)
    chosen = ChosenCheckpoint(
        epoch=best.epoch,
        weights=checkpoints.weights(best.epoch),
        figures={
            **base_figures(epochs[0]),
            **history[best.epoch],
            **budget.run_figures(job.config, epochs, end),
        },
        chosen=f"Epoch {best.epoch} of {len(epochs)}: {best.explanation}",
    )
    exported = export_version(store, job, chosen, job.version)
    selection = Selection(
        criterion,
        f"{job.version}/checkpoints/{best.epoch}",
        selected_by="",
        reason=best.explanation,
    )
    _log.info("trained", version=job.version, ended=ended, exported_epoch=best.epoch)
    return Receipt(
        objects=(*exported.objects, *checkpoints.kept_objects()),
        facts={
            **exported.facts,
            "ended": f"{ended}; epoch {best.epoch} was exported",
            "selection": selection.to_json(),
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
        self._step: StepReport | None = None

    def report_step(self, step: StepReport) -> None:
        """Tell how far the epoch is."""
        self._step = step
        parts = [f"loss {step.loss:.3f}", f"{step.images_per_second:.1f} images/s"]
        if step.waiting_share > _WAITING_TOLD:
            parts.append(f"{step.waiting_share:.0%} waiting for data")
        self._report(step, parts, _figures(step))

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint and tell its figures."""
        self.stored.save(checkpoint)
        figures = dict(checkpoint.figures)
        parts = [f"loss {figures['loss']:.3f}"]
        parts += [
            f"{name.split('_')[0]} AP50 {figures[name]:.2f}"
            for name in ("validation_ap50", "heldout_ap50")
            if name in figures
        ]
        if self._step is not None:
            self._report(self._step, parts, figures)

    def _report(self, step: StepReport, parts: list[str], figures: dict[str, float]) -> None:
        report(
            self._context,
            units_done=float(step.step),
            units_total=float(step.expected_steps),
            message=", ".join([f"epoch {step.epoch} of {self._epochs(step)}", *parts]),
            figures=figures,
        )

    def _epochs(self, step: StepReport) -> int:
        """Epochs of the whole run, at its pace so far where its minutes are counted."""
        return -(-step.expected_steps // self._config.steps_per_epoch)


def _figures(step: StepReport) -> dict[str, float]:
    return {
        "loss": step.loss,
        **{f"loss_{name}": value for name, value in step.parts.items() if len(step.parts) > 1},
        "learning_rate": step.learning_rate,
        "steps_per_second": step.steps_per_second,
        "images_per_second": step.images_per_second,
        "waiting_share": step.waiting_share,
        "time_left_s": step.time_left_s,
    }
