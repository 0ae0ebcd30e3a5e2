# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints of one fold of a cross-validation: what resuming and scoring need, and no more.

A version keeps the weights of every epoch, because any may be selected. A fold is scored at one
epoch and then thrown away, so that only the last state and the best weights are kept; hundreds of
epochs of the paper's network would be 40 GB a fold otherwise.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields

from granulo_core.store.port import ObjectStore
from granulo_trainer.domain.cross_validation import best_epoch
from granulo_trainer.domain.run import Checkpoint

_STATE = "state"


class FoldCheckpoints:
    """Implements the training loop's ``Checkpoints`` for one fold.

    Parameters
    ----------
    store : ObjectStore
    folder : str
        Prefix of the fold's objects.
    """

    def __init__(self, store: ObjectStore, folder: str) -> None:
        self._store = store
        self._folder = f"{folder}/{_STATE}"

    def latest(self) -> Checkpoint | None:
        """The last complete checkpoint; None before the first."""
        history = self.history()
        if not history:
            return None
        folder = self._epoch(len(history))
        parts = {
            key.rpartition("/")[2]: self._store.get(key) for key in self._store.list(f"{folder}/")
        }
        return Checkpoint(epoch=len(history), figures=history[-1], predictions=(), **parts)

    def history(self) -> Sequence[Mapping[str, float]]:
        """Figures of all complete epochs in order."""
        key = f"{self._folder}/history.json"
        if not self._store.exists(key):
            return []
        history: list[dict[str, float]] = json.loads(self._store.get(key))
        return history

    def weights(self, epoch: int) -> bytes:
        """Weights after the last or the best epoch."""
        return self._store.get(f"{self._epoch(epoch)}/weights")

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint; the history, written after it, makes it exist."""
        folder = self._epoch(checkpoint.epoch)
        for item in fields(checkpoint):
            value = getattr(checkpoint, item.name)
            if isinstance(value, bytes):
                self._store.put(f"{folder}/{item.name}", value)
        history = [*self.history()[: checkpoint.epoch - 1], dict(checkpoint.figures)]
        self._store.put(f"{self._folder}/history.json", json.dumps(history).encode())
        self._drop_older(history)

    def _drop_older(self, history: Sequence[Mapping[str, float]]) -> None:
        kept = {f"{self._epoch(best_epoch(history))}/weights"}
        last = f"{self._epoch(len(history))}/"
        for key in list(self._store.list(f"{self._folder}/epochs/")):
            if key not in kept and not key.startswith(last):
                self._store.delete(key)

    def _epoch(self, epoch: int) -> str:
        return f"{self._folder}/epochs/{epoch:06d}"


def drop_states(store: ObjectStore, name: str) -> None:
    """Remove what only interrupted folds of a cross-validation would need."""
    for key in list(store.list(f"{name}/folds/")):
        if f"/{_STATE}/" in key:
            store.delete(key)
