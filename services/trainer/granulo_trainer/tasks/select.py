# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry point that the engine runs: one checkpoint that somebody chose becomes a version."""

import json
from dataclasses import asdict, dataclass

from granulo_core.engine.port import TaskContext
from granulo_core.operations.receipts import Receipt
from granulo_core.store import manifest as manifests
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore
from granulo_trainer import registry
from granulo_trainer.checkpoints import CheckpointName, copy_checkpoint, find_checkpoint
from granulo_trainer.kept_jobs import keep_job, kept_job
from granulo_trainer.tasks.exporting import ChosenCheckpoint, export_version
from granulo_trainer.unet.arrays import mean_arrays


@dataclass(frozen=True)
class SelectionJob:
    """Which checkpoint becomes which version."""

    checkpoint: str
    """``models/<model>/versions/<n>/checkpoints/<epoch>``"""
    target: str
    """``models/<model>/versions/<m>``"""
    chosen: str
    """One sentence: who chose it, and why."""
    averaged_epochs: int = 0
    """Epochs up to the checkpoint's that the weights are the mean of; 0: its own weights."""

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal jobs give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "SelectionJob":
        """Inverse of :meth:`to_bytes`."""
        return cls(**json.loads(data))


def select(context: TaskContext, payload: bytes) -> bytes:
    """Export a checkpoint as a new version.

    Parameters
    ----------
    context : TaskContext
    payload : bytes
        A :class:`SelectionJob`.

    Returns
    -------
    bytes
        Receipt with the new version's objects and figures.
    """
    chosen = SelectionJob.from_bytes(payload)
    store = open_store(context.store_url)
    source = CheckpointName.parse(chosen.checkpoint)
    target = registry.VersionName.parse(chosen.target)
    record = find_checkpoint(store, source)
    job = kept_job(store, source.version)
    weights = mean_arrays(_weights(store, one) for one in source.up_to_it(chosen.averaged_epochs))
    checkpoint = ChosenCheckpoint(
        epoch=source.epoch,
        weights=weights,
        figures=record.figures,
        chosen=chosen.chosen,
    )
    exported = export_version(store, job, checkpoint, str(target))
    kept = copy_checkpoint(store, source, target, weights)
    return Receipt(
        objects=(*exported.objects, *kept, keep_job(store, target, job)),
        facts=exported.facts,
    ).to_bytes()


def _weights(store: ObjectStore, source: CheckpointName) -> bytes:
    """Weights of a checkpoint, checked where the version has a manifest."""
    key = f"{source.folder}/weights.npz"
    if registry.state_of(store, source.version) is not registry.VersionState.ACTIVE:
        return store.get(key)
    return store.get(key, manifests.load(store, str(source.version)).object(key).digest)
