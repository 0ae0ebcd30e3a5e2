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
from granulo_trainer import datasets, lineage, registry
from granulo_trainer.checkpoints import StoreCheckpoints
from granulo_trainer.domain import budget
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.job import TrainingJob
from granulo_trainer.domain.run import Checkpoint, StepReport
from granulo_trainer.domain.selection import select_epoch
from granulo_trainer.settings import TrainerSettings

_log = structlog.get_logger(__name__)
# Less is no news: the bar has no room for it.
_WAITING_TOLD = 0.05
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
    base = lineage.base_of(store, job.base_version, config)
    _log.info(
        "training", version=str(version), scenes=len(training), held_out=len(held_out),
        steps=config.total_steps,
    )  # fmt: skip
    weights = dict(zip(job.datasets, job.weights, strict=False))
    scenes = datasets.training_scenes(store, training, config, weights)
    network = loop.train(
        config,
        scenes,
        validation,
        checkpoints,
        on_step=checkpoints.report_step,
        first_weights=store.get(base.key, base.digest) if base else b"",
    )
    return _export(store, job, checkpoints.stored, network).to_bytes()


def _export(
    store: ObjectStore, job: TrainingJob, checkpoints: StoreCheckpoints, network: object
) -> Receipt:
    """Put the selected epoch's SavedModel into the store."""
    from granulo_trainer.unet import train as loop
    from granulo_trainer.unet.export import export_saved_model

    history = checkpoints.history()
    epoch = select_epoch(job.config.preset, history)
    weights = checkpoints.weights(epoch)
    loop.load_weights(network, weights)
    with tempfile.TemporaryDirectory(prefix="granulo-export-") as folder:
        arrays = network.get_weights()  # type: ignore[attr-defined]
        export_saved_model(arrays, job.config, Path(folder))
        exported = _put_folder(store, Path(folder), f"{job.version}/saved_model")
    end = budget.end_of(job.config, history)
    assert end is not None  # the loop has ended
    ended = budget.explain(job.config, history, end)
    _log.info("trained", version=job.version, ended=ended, exported_epoch=epoch)
    return Receipt(
        objects=(*exported, *checkpoints.kept_objects()),
        facts={
            "epoch": epoch,
            "ended": f"{ended}; epoch {epoch} was exported",
            "figures": {**history[epoch - 1], **budget.run_figures(job.config, history, end)},
            "weights_digest": digest_of(weights),
            "parameter_count": int(sum(array.size for array in arrays)),
        },
    )


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
            message=", ".join([f"epoch {step.epoch} of {_epochs(self._config)}", *parts]),
            figures=figures,
        )


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


def _epochs(config: TrainingConfig) -> int:
    return -(-config.total_steps // config.steps_per_epoch)
