# SPDX-License-Identifier: GPL-3.0-or-later
"""Which version of a model answers calls while another one is being promoted."""

import threading
from collections.abc import Callable

import structlog

from granulo_core.errors import GranuloError
from granulo_segmenter.domain.model import ResolvedModel
from granulo_segmenter.predictor.client import Predictor
from granulo_segmenter.predictor.versions import DEFAULT, PACKAGED

_log = structlog.get_logger(__name__)


class ServedVersions:
    """Answers calls with the promoted version from the moment the model server has it.

    Until then, and when the server cannot load it, the version that answered before goes on
    answering. A version that a request names by its number is never replaced by another.

    Parameters
    ----------
    resolve : callable
        From a request's model name to the version that it means; raises what is wrong with it.
    """

    def __init__(self, resolve: Callable[[str], ResolvedModel]) -> None:
        self._resolve = resolve
        self._lock = threading.Lock()
        self._last: dict[str, ResolvedModel] = {}

    def choose(self, name: str, predictor: Predictor) -> ResolvedModel:
        """The version to segment with now.

        Parameters
        ----------
        name : str
            As in the request; empty means the default.
        predictor : Predictor

        Raises
        ------
        GranuloError
            What is wrong with the name. A server that has no version at all is no error here: the
            prediction waits for it.
        """
        promoted = self._resolve(name)
        if "/versions/" in name:
            return promoted
        with self._lock:
            last = self._last.get(name)
        if promoted == last:
            return promoted
        if predictor.is_available(promoted.served):
            with self._lock:
                self._last[name] = promoted
            _log.info("calls switch", model=name, version=str(promoted.served))
            return promoted
        if last is not None and predictor.is_available(last.served):
            return last
        if predictor.load_error(promoted.served):
            return self._another(promoted, predictor) or promoted
        return promoted

    def _another(self, broken: ResolvedModel, predictor: Predictor) -> ResolvedModel | None:
        """What the server has instead of a version that it cannot load."""
        name = broken.served.name
        loaded = predictor.loaded_versions(broken.served.server_name)
        candidates = [f"models/{name}/versions/{version}" for version in loaded]
        if name == DEFAULT:
            candidates.append(f"models/{PACKAGED}")
        for candidate in candidates:
            try:
                found = self._resolve(candidate)
            except GranuloError:
                continue
            if predictor.is_available(found.served):
                _log.warning("promoted version not loadable", version=str(broken.served),
                             answers=str(found.served))  # fmt: skip
                return found
        return None
