# SPDX-License-Identifier: GPL-3.0-or-later
"""SavedModels in a folder of TensorFlow Serving's layout, loaded and kept up to date.

``<base>/<model>/<version>/saved_model.pb``: a version appears when its folder does (it is renamed
into place) and is unloaded when its folder goes. Imports TensorFlow.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf import saved_model_pb2

_INIT_SIGNATURE = "__saved_model_init_op"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """One version that answers."""

    name: str
    version: int
    signatures: Mapping[str, Any]
    """``SignatureDef`` by key."""
    functions: Mapping[str, Any]
    """What computes, by signature key."""

    def run(self, signature: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute a signature; TensorFlow's own errors pass through."""
        definition = self.signatures[signature]
        tensors = {
            alias: tf.constant(array, dtype=tf.as_dtype(definition.inputs[alias].dtype))
            for alias, array in inputs.items()
        }
        outputs = self.functions[signature](**tensors)
        return {alias: np.asarray(tensor) for alias, tensor in outputs.items()}


@dataclass(frozen=True)
class BrokenModel:
    """A version that could not be loaded; not tried again until its folder is replaced."""

    name: str
    version: int
    message: str
    identity: tuple[int, int]


@dataclass
class _Shelf:
    loaded: dict[tuple[str, int], LoadedModel] = field(default_factory=dict)
    broken: dict[tuple[str, int], BrokenModel] = field(default_factory=dict)


class ModelFolder:
    """All models below a base folder.

    Parameters
    ----------
    base : Path
        Made when missing.
    """

    def __init__(self, base: Path) -> None:
        self.base = base.resolve()
        self.base.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._scanning = threading.Lock()
        self._shelf = _Shelf()
        self._paths: dict[str, Path] | None = None
        self._labels: dict[str, dict[str, int]] = {}

    def scan(self) -> None:
        """Load versions that appeared and drop those that went.

        A folder that cannot be listed right now changes nothing.
        """
        with self._scanning:
            try:
                found = self._find()
            except OSError as error:
                # Removed or renamed while we looked, or a disk in trouble: the next look will tell.
                _log.warning("model folder not readable", error=str(error))
                return
            with self._lock:
                shelf = self._shelf
                for key in [key for key in shelf.loaded if key not in found]:
                    del shelf.loaded[key]
                    _log.info("model unloaded", model=key[0], version=key[1])
                shelf.broken = {
                    key: broken
                    for key, broken in shelf.broken.items()
                    if key in found and broken.identity == _identity(found[key])
                }
                wanted = [
                    key for key in found if key not in shelf.loaded and key not in shelf.broken
                ]
            for key in sorted(wanted):
                self._load(key, found[key])

    def versions(self, name: str) -> list[int]:
        """Loaded versions of a model, the newest first."""
        with self._lock:
            return sorted((v for n, v in self._shelf.loaded if n == name), reverse=True)

    def broken(self, name: str) -> list[BrokenModel]:
        """Versions of a model that could not be loaded, the newest first."""
        with self._lock:
            items = [b for (n, _), b in self._shelf.broken.items() if n == name]
        return sorted(items, key=lambda item: -item.version)

    def get(self, name: str, version: int | None) -> LoadedModel | None:
        """A loaded version, or the newest one."""
        if version is None:
            versions = self.versions(name)
            if not versions:
                return None
            version = versions[0]
        with self._lock:
            return self._shelf.loaded.get((name, version))

    def labelled(self, name: str, label: str) -> int | None:
        """The version that a label stands for."""
        with self._lock:
            return self._labels.get(name, {}).get(label)

    def configure(self, paths: Mapping[str, Path], labels: Mapping[str, Mapping[str, int]]) -> None:
        """Serve exactly these models from now on."""
        with self._lock:
            self._paths = dict(paths)
            self._labels = {name: dict(of_model) for name, of_model in labels.items()}
        self.scan()

    def _find(self) -> dict[tuple[str, int], Path]:
        with self._lock:
            paths = self._paths
        if paths is None:
            paths = {
                folder.name: folder
                for folder in self.base.iterdir()
                if folder.is_dir() and not folder.name.startswith(".")
            }
        found = {}
        for name, folder in paths.items():
            versions = folder.iterdir() if folder.is_dir() else ()
            for version in versions:
                if version.name.isdecimal() and (version / "saved_model.pb").is_file():
                    found[name, int(version.name)] = version
        return found

    def _load(self, key: tuple[str, int], folder: Path) -> None:
        identity = _identity(folder)
        try:
            definition = saved_model_pb2.SavedModel.FromString(
                (folder / "saved_model.pb").read_bytes()
            )
            model = tf.saved_model.load(str(folder))
            signatures = {
                name: signature
                for name, signature in definition.meta_graphs[0].signature_def.items()
                if name != _INIT_SIGNATURE
            }
            functions = {name: model.signatures[name] for name in signatures}
        except Exception as error:
            # Whatever is wrong with one folder, the other models go on being served.
            text = str(error).strip().splitlines()
            message = text[0][:300] if text else type(error).__name__
            _log.warning("model not loadable", model=key[0], version=key[1], error=message)
            with self._lock:
                self._shelf.broken[key] = BrokenModel(*key, message, identity)
            return
        with self._lock:
            self._shelf.loaded[key] = LoadedModel(*key, signatures, functions)
        _log.info("model loaded", model=key[0], version=key[1])


def _identity(folder: Path) -> tuple[int, int]:
    """Changes when a folder is replaced by another of the same name."""
    try:
        status = (folder / "saved_model.pb").stat()
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)
