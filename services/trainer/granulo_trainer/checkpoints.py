# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints of a training run in the object store.

``checkpoints/<epoch>/weights.npz`` is kept for every epoch, because any may be selected (M18). The
optimizer's state is needed to go on from the last epoch only, and the older ones are removed: for
the paper's network it is 250 MB. An epoch's ``figures.json`` is written last; without it the
checkpoint does not exist.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from granulo_core.store.manifest import now_rfc3339
from granulo_core.store.port import ObjectStore, StoredObject
from granulo_trainer import registry
from granulo_trainer.domain.run import Checkpoint

_NPZ = "application/x-npz"


class StoreCheckpoints:
    """Implements the training loop's ``Checkpoints`` for one version.

    Parameters
    ----------
    store : ObjectStore
    version : registry.VersionName
    """

    def __init__(self, store: ObjectStore, version: registry.VersionName) -> None:
        self._store = store
        self._version = version

    def latest(self) -> Checkpoint | None:
        """The last complete checkpoint, with the optimizer's state; None before the first."""
        records = registry.list_checkpoints(self._store, self._version)
        for record in reversed(records):
            folder = self._folder(record.epoch)
            if self._store.exists(f"{folder}/optimizer.npz"):
                return Checkpoint(
                    epoch=record.epoch,
                    weights=self._store.get(f"{folder}/weights.npz"),
                    optimizer=self._store.get(f"{folder}/optimizer.npz"),
                    figures=record.figures,
                    predictions={},
                )
        return None

    def history(self) -> Sequence[Mapping[str, float]]:
        """Figures of all complete epochs in order."""
        return [record.figures for record in registry.list_checkpoints(self._store, self._version)]

    def weights(self, epoch: int) -> bytes:
        """Weights after an epoch."""
        return self._store.get(f"{self._folder(epoch)}/weights.npz")

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint; its ``figures.json`` makes it exist."""
        folder = self._folder(checkpoint.epoch)
        self._store.put(f"{folder}/weights.npz", checkpoint.weights, _NPZ)
        self._store.put(f"{folder}/optimizer.npz", checkpoint.optimizer, _NPZ)
        predictions = [
            self._store.put(f"{folder}/prediction_{number:02d}.png", png, "image/png")
            for number, png in enumerate(checkpoint.predictions.values())
        ]
        if checkpoint.events:
            # TensorBoard reads the files of a folder in the order of their names.
            key = f"{self._version}/tensorboard/events.out.tfevents.{checkpoint.epoch:06d}"
            self._store.put(key, checkpoint.events, "application/octet-stream")
        content = {
            "epoch": checkpoint.epoch,
            "figures": dict(checkpoint.figures),
            "predictions": [asdict(item) for item in predictions],
            "names": list(checkpoint.predictions),
            "create_time": now_rfc3339(),
        }
        data = json.dumps(content, sort_keys=True).encode()
        self._store.put(f"{folder}/figures.json", data, "application/json")
        if checkpoint.epoch > 1:
            self._store.delete(f"{self._folder(checkpoint.epoch - 1)}/optimizer.npz")

    def kept_objects(self) -> list[StoredObject]:
        """What of the training belongs to the finished version: all but optimizer states."""
        folders = (f"{self._version}/checkpoints/", f"{self._version}/tensorboard/")
        keys = [key for folder in folders for key in self._store.list(folder)]
        return [self._store.stat(key) for key in keys if not key.endswith("/optimizer.npz")]

    def drop_optimizer_states(self) -> None:
        """Remove what only a resumed run would need."""
        for key in list(self._store.list(f"{self._version}/checkpoints/")):
            if key.endswith("/optimizer.npz"):
                self._store.delete(key)

    def _folder(self, epoch: int) -> str:
        return f"{self._version}/checkpoints/{epoch:06d}"
