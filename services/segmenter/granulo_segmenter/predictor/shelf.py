# SPDX-License-Identifier: GPL-3.0-or-later
"""Which versions of which models are served: a folder of TensorFlow Serving's layout, kept up with.

``<base>/<model>/<version>/saved_model.pb``: a version is loaded when its folder appears (it is
renamed into place) and dropped when its folder goes. A new version is loaded and warmed up beside
the old one, which answers until then, and stays when the new one cannot be loaded; a request that
is being computed keeps its version until it has its answer. Imports TensorFlow.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import structlog

from granulo_segmenter.predictor.loaded import LoadedModel, first_line, load_model

_log = structlog.get_logger(__name__)

Key = tuple[str, int]
"""Name and version."""
Policy = Callable[[set[int]], set[int]]
"""Takes the versions that there are, returns those to serve."""


class State(IntEnum):
    """Life of a version; the numbers are those of ``ModelVersionStatus.State``."""

    LOADING = 20
    AVAILABLE = 30
    END = 50


@dataclass(frozen=True)
class VersionStatus:
    """What is told of one version."""

    version: int
    state: State
    message: str = ""
    """Why it could not be loaded."""


@dataclass(frozen=True)
class ModelConfig:
    """One model of a configuration."""

    path: Path
    policy: Policy
    labels: Mapping[str, int]


@dataclass(frozen=True)
class _Broken:
    message: str
    identity: tuple[int, int]
    """Not tried again until its folder is replaced."""


def serve_all(versions: set[int]) -> set[int]:
    """The policy without a configuration: whoever puts folders there decides."""
    return versions


def serve_latest(count: int) -> Policy:
    """Serve the highest ``count`` version numbers."""
    return lambda versions: set(sorted(versions)[-count:])


def serve_specific(wanted: set[int]) -> Policy:
    """Serve these where they are there."""
    return lambda versions: versions & wanted


class ModelShelf:
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
        self._loaded: dict[Key, LoadedModel] = {}
        self._broken: dict[Key, _Broken] = {}
        self._loading: set[Key] = set()
        self._configs: dict[str, ModelConfig] | None = None

    def scan(self) -> None:
        """Load versions that appeared, then drop those that went.

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
                self._broken = {
                    key: broken
                    for key, broken in self._broken.items()
                    if key in found and broken.identity == _identity(found[key])
                }
                wanted = {key for key in found if key not in self._loaded} - set(self._broken)
                self._loading = wanted.copy()
            for key in sorted(wanted):
                self._load(key, found[key])
            self._drop_all_but(set(found))

    def status(self, name: str) -> list[VersionStatus]:
        """Versions of a model, the newest first."""
        with self._lock:
            known = (
                [VersionStatus(v, State.AVAILABLE) for n, v in self._loaded if n == name]
                + [VersionStatus(v, State.LOADING) for n, v in self._loading if n == name]
                + [
                    VersionStatus(v, State.END, broken.message)
                    for (n, v), broken in self._broken.items()
                    if n == name
                ]
            )
        return sorted(known, key=lambda status: -status.version)

    def get(self, name: str, version: int | None) -> LoadedModel | None:
        """A loaded version, or the newest one."""
        with self._lock:
            if version is None:
                version = max((v for n, v in self._loaded if n == name), default=-1)
            return self._loaded.get((name, version))

    def labelled(self, name: str, label: str) -> int | None:
        """The version that a label stands for."""
        with self._lock:
            config = (self._configs or {}).get(name)
        return config.labels.get(label) if config else None

    def configure(self, configs: Mapping[str, ModelConfig]) -> list[str]:
        """Serve exactly these models from now on.

        Returns
        -------
        list of str
            Those of them of which no version could be made available.
        """
        with self._lock:
            self._configs = dict(configs)
        self.scan()
        return [name for name in configs if self.get(name, None) is None]

    def _find(self) -> dict[Key, Path]:
        """Folders of the versions to serve."""
        with self._lock:
            configs = self._configs
        if configs is None:
            configs = {
                folder.name: ModelConfig(folder, serve_all, {})
                for folder in self.base.iterdir()
                if folder.is_dir() and not folder.name.startswith(".")
            }
        found = {}
        for name, config in configs.items():
            folders = config.path.iterdir() if config.path.is_dir() else ()
            versions = {
                int(folder.name): folder
                for folder in folders
                if folder.name.isdecimal() and (folder / "saved_model.pb").is_file()
            }
            for version in config.policy(set(versions)):
                found[name, version] = versions[version]
        return found

    def _load(self, key: Key, folder: Path) -> None:
        identity = _identity(folder)
        try:
            model = load_model(*key, folder)
        except Exception as error:
            # Whatever is wrong with one folder, the other models go on being served.
            message = first_line(error)[:300]
            _log.warning("model not loadable", model=key[0], version=key[1], error=message)
            with self._lock:
                self._loading.discard(key)
                self._broken[key] = _Broken(message, identity)
            return
        with self._lock:
            self._loading.discard(key)
            self._loaded[key] = model

    def _drop_all_but(self, found: set[Key]) -> None:
        with self._lock:
            for name, version in set(self._loaded) - found:
                wanted = {key for key in found if key[0] == name}
                if wanted and not wanted & set(self._loaded):
                    # What should replace it cannot be loaded: better the old one than none.
                    continue
                del self._loaded[name, version]
                _log.info("model unloaded", model=name, version=version)


def _identity(folder: Path) -> tuple[int, int]:
    """Changes when a folder is replaced by another of the same name."""
    try:
        status = (folder / "saved_model.pb").stat()
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)
