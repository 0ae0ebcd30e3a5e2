# SPDX-License-Identifier: GPL-3.0-or-later
"""A checkpoint becomes a version: what training and selecting have in common."""

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from granulo_core.store.port import ObjectStore, StoredObject, digest_of
from granulo_trainer.domain.job import TrainingJob

_MEDIA_TYPES = {".json": "application/json", ".pb": "application/x-protobuf"}


@dataclass(frozen=True)
class ExportedVersion:
    """What the export of a checkpoint put into the store."""

    objects: tuple[StoredObject, ...]
    weights_digest: str
    parameter_count: int


def export_version(
    store: ObjectStore, job: TrainingJob, weights: bytes, target: str
) -> ExportedVersion:
    """Put the SavedModel of a checkpoint into the store.

    Parameters
    ----------
    store : ObjectStore
    job : TrainingJob
        The run that made the checkpoint.
    weights : bytes
        Of the checkpoint, as ``unet.train.weights_bytes`` gives them.
    target : str
        ``models/<model>/versions/<n>`` that is being made; not always the job's own version.

    Returns
    -------
    ExportedVersion
    """
    from granulo_trainer.unet import network as networks
    from granulo_trainer.unet import train as loop
    from granulo_trainer.unet.export import export_saved_model

    network = networks.build_network(job.config)
    loop.load_weights(network, weights)
    arrays = network.get_weights()
    with tempfile.TemporaryDirectory(prefix="granulo-export-") as folder:
        export_saved_model(arrays, job.config, Path(folder))
        objects = _put_folder(store, Path(folder), f"{target}/saved_model")
    return ExportedVersion(
        objects=tuple(objects),
        weights_digest=digest_of(weights),
        parameter_count=int(sum(array.size for array in arrays)),
    )


def _put_folder(store: ObjectStore, folder: Path, prefix: str) -> list[StoredObject]:
    put = partial(_put_file, store, folder, prefix)
    return [put(path) for path in sorted(folder.rglob("*")) if path.is_file()]


def _put_file(store: ObjectStore, folder: Path, prefix: str, path: Path) -> StoredObject:
    media_type = _MEDIA_TYPES.get(path.suffix, "application/octet-stream")
    key = f"{prefix}/{path.relative_to(folder).as_posix()}"
    return store.put_file(key, path, media_type)
