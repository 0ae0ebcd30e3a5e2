# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints of a training run in the object store.

``checkpoints/<epoch>/weights.npz`` is kept for every epoch, because any may be selected (M18). The
optimizer's state is needed to go on from the last epoch only, and the older ones are removed: for
the paper's network it is 250 MB. An epoch's ``figures.json`` is written last; without it the
checkpoint does not exist. ``validation/<number>.png`` are the user's validation images as the
network sees them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from granulo_core.errors import not_found
from granulo_core.store.manifest import now_rfc3339
from granulo_core.store.port import ObjectStore, StoredObject
from granulo_trainer import registry
from granulo_trainer.domain.pictures import encode_grey_png
from granulo_trainer.domain.run import Checkpoint, ValidationImage

_CHECKPOINT = re.compile(r"^(models/.+)/checkpoints/([1-9][0-9]{0,5})$")
_NPZ = "application/x-npz"
_JSON = "application/json"


@dataclass(frozen=True)
class CheckpointName:
    """Resource name of a checkpoint."""

    version: registry.VersionName
    epoch: int

    @classmethod
    def parse(cls, name: str) -> "CheckpointName":
        """Read ``models/<m>/versions/<n>/checkpoints/<epoch>``; else RESOURCE_NOT_FOUND."""
        match = _CHECKPOINT.match(name)
        if not match:
            raise not_found(
                name or "(empty name)",
                "A checkpoint is called models/<model>/versions/<number>/checkpoints/<epoch>.",
            )
        return cls(registry.VersionName.parse(match.group(1)), int(match.group(2)))

    @property
    def folder(self) -> str:
        """Prefix of its objects."""
        return f"{self.version}/checkpoints/{self.epoch:06d}"

    def up_to_it(self, count: int) -> "list[CheckpointName]":
        """The last ``count`` checkpoints that end with this one; itself for 0."""
        first = self.epoch - max(1, count) + 1
        return [CheckpointName(self.version, epoch) for epoch in range(first, self.epoch + 1)]

    def __str__(self) -> str:
        return f"{self.version}/checkpoints/{self.epoch}"


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
                    predictions=(),
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
            for number, (_, png) in enumerate(checkpoint.predictions)
        ]
        if checkpoint.events:
            # TensorBoard reads the files of a folder in the order of their names.
            key = f"{self._version}/tensorboard/events.out.tfevents.{checkpoint.epoch:06d}"
            self._store.put(key, checkpoint.events, "application/octet-stream")
        content = {
            "epoch": checkpoint.epoch,
            "figures": dict(checkpoint.figures),
            "predictions": [asdict(item) for item in predictions],
            "names": [name for name, _ in checkpoint.predictions],
            "create_time": now_rfc3339(),
        }
        data = json.dumps(content, sort_keys=True).encode()
        self._store.put(f"{folder}/figures.json", data, _JSON)
        if checkpoint.epoch > 1:
            self._store.delete(f"{self._folder(checkpoint.epoch - 1)}/optimizer.npz")

    def keep_validation_images(self, images: Sequence[ValidationImage]) -> None:
        """Keep the user's validation images as the network sees them, once for all epochs."""
        names: list[str] = []
        for image in images:
            if not image.held_out_render:
                png = encode_grey_png(image.pixels)
                self._store.put(_image_key(self._version, len(names)), png, "image/png")
                names.append(image.name)
        content = json.dumps({"names": names}).encode()
        self._store.put(_names_key(self._version), content, _JSON)

    def kept_objects(self) -> list[StoredObject]:
        """What belongs to the finished version: all but optimizer states."""
        names = ("checkpoints", "tensorboard", "validation")
        folders = [f"{self._version}/{name}/" for name in names]
        keys = [key for folder in folders for key in self._store.list(folder)]
        return [self._store.stat(key) for key in keys if not key.endswith("/optimizer.npz")]

    def drop_optimizer_states(self) -> None:
        """Remove what only a resumed run would need."""
        for key in list(self._store.list(f"{self._version}/checkpoints/")):
            if key.endswith("/optimizer.npz"):
                self._store.delete(key)

    def _folder(self, epoch: int) -> str:
        return CheckpointName(self._version, epoch).folder


def find_checkpoint(store: ObjectStore, name: CheckpointName) -> registry.CheckpointRecord:
    """A complete checkpoint; RESOURCE_NOT_FOUND says which epochs there are."""
    records = registry.list_checkpoints(store, name.version)
    for record in records:
        if record.epoch == name.epoch:
            return record
    epochs = ", ".join(str(record.epoch) for record in records)
    known = f"There are checkpoints of the epochs {epochs}." if epochs else "It has none yet."
    raise not_found(str(name), f"{known} List the checkpoints of {name.version}.")


def validation_images(
    store: ObjectStore, version: registry.VersionName
) -> list[tuple[str, StoredObject]]:
    """Name and PNG of the version's validation images; of versions without any an empty list."""
    if not store.exists(_names_key(version)):
        return []
    names = json.loads(store.get(_names_key(version)))["names"]
    return [(name, store.stat(_image_key(version, place))) for place, name in enumerate(names)]


def copy_checkpoint(
    store: ObjectStore, source: CheckpointName, target: registry.VersionName, weights: bytes
) -> list[StoredObject]:
    """Give another version a checkpoint, its predictions and the images that they are of.

    Parameters
    ----------
    store : ObjectStore
    source : CheckpointName
    target : VersionName
    weights : bytes
        What the other version is made of: the checkpoint's, or a mean that ends with them.

    Returns
    -------
    list of StoredObject
        What was written; ``figures.json``, which makes the checkpoint exist, was last.
    """
    copy = CheckpointName(target, source.epoch)
    keys = list(store.list(f"{source.version}/validation/"))
    keys += [
        key
        for key in store.list(f"{source.folder}/")
        if not key.endswith(("/optimizer.npz", "/figures.json", "/weights.npz"))
    ]
    written = [store.put(f"{copy.folder}/weights.npz", weights, _NPZ)]
    for key in keys:
        stored = store.stat(key)
        place = f"{target}/{key.removeprefix(f'{source.version}/')}"
        written.append(store.put(place, store.get(key), stored.media_type))
    content = json.loads(store.get(f"{source.folder}/figures.json"))
    for item in content["predictions"]:
        item["key"] = f"{copy.folder}/{item['key'].rsplit('/', 1)[-1]}"
    data = json.dumps(content, sort_keys=True).encode()
    return [*written, store.put(f"{copy.folder}/figures.json", data, _JSON)]


def _names_key(version: registry.VersionName) -> str:
    return f"{version}/validation/images.json"


def _image_key(version: registry.VersionName, place: int) -> str:
    return f"{version}/validation/{place:02d}.png"
