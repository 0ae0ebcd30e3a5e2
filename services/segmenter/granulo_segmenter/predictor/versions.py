# SPDX-License-Identifier: GPL-3.0-or-later
"""Which model versions there are to predict with, and what they need."""

import json
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from granulo_core.errors import FieldViolation, GranuloError, Reason, invalid_fields, not_found
from granulo_core.store.port import ObjectStore, digest_of
from granulo_core.store.tenants import tenant_of
from granulo_segmenter.domain.model import ModelFacts, ResolvedModel, ServedModel

DEFAULT = "default"
"""The model that is meant when none is named."""
PACKAGED = "packaged-default"
"""Name of the network that comes with Granulo; stands in while no ``default`` is promoted."""
METADATA = "assets.extra/granulo.json"

_NAME = re.compile(r"^models/([a-z0-9][a-z0-9_-]{0,62})(?:/versions/([1-9][0-9]{0,8}))?$")
_SAFE_RELATIVE = re.compile(r"^[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*$")


@dataclass(frozen=True)
class Promoted:
    """A reference ``refs/models/<model>.json``."""

    served: ServedModel
    objects: tuple[tuple[str, str], ...]
    """(key, digest) of every file of the SavedModel."""


def packaged_folder() -> Path:
    """Where the distribution carries its default network."""
    return Path(__file__).resolve().parent.parent / "models" / "default" / "1"


def packaged_version(folder: Path) -> int:
    """Version of a packaged network; it follows from the content.

    A data folder outlives an upgrade, and the model server in it may still hold an older network.

    Raises
    ------
    GranuloError
        RESOURCE_NOT_FOUND where the folder holds none.
    """
    return _packaged(folder).served.version


def promoted(store: ObjectStore) -> tuple[list[Promoted], list[str]]:
    """All promoted versions, by model name, and what is wrong with damaged references."""
    found: list[Promoted] = []
    damaged: list[str] = []
    for key in store.list("refs/models/"):
        if key.endswith(".json"):
            try:
                found.append(_reference(store, key.removeprefix("refs/models/")[:-5]))
            except GranuloError as error:
                if error.reason is not Reason.DIGEST_MISMATCH:
                    raise
                damaged.append(error.message)
    return found, damaged


def resolve(store: ObjectStore, name: str, packaged: Path | None = None) -> ResolvedModel:
    """Find the version that a request means.

    Parameters
    ----------
    store : ObjectStore
    name : str
        ``models/<model>`` (its promoted version), ``models/<model>/versions/<version>``, or empty
        for ``models/default``.
    packaged : Path, optional
        The network that stands in for an unpromoted ``models/default``; the distribution's own.

    Raises
    ------
    GranuloError
        FIELD_INVALID for a name of another form, RESOURCE_NOT_FOUND for a model that does not
        exist, RESOURCE_NOT_READY for one that was never promoted.
    """
    packaged = packaged or packaged_folder()
    match = _NAME.match(name or f"models/{DEFAULT}")
    if not match:
        raise invalid_fields(
            [
                FieldViolation(
                    "model",
                    f"{name!r} is no model name; write models/<model> or "
                    "models/<model>/versions/<version>, or leave it out for models/default.",
                )
            ]
        )
    model, number = match.group(1), match.group(2)
    if store.exists(f"refs/models/{model}.json"):
        reference = _reference(store, model)
        if number is None or int(number) == reference.served.version:
            return _from_store(store, reference)
        return _from_store(store, _unreferenced(store, reference, int(number)))
    if model == DEFAULT and number is None:
        return _packaged(packaged)
    if model == PACKAGED and number in (None, str(packaged_version(packaged))):
        return _packaged(packaged)
    if next(iter(store.list(f"models/{model}/")), None) is not None:
        raise GranuloError(
            Reason.RESOURCE_NOT_READY,
            f"models/{model} has no promoted version. Promote one (`granulo models promote "
            f"models/{model}/versions/<version>`), or leave the model out.",
            metadata={"name": f"models/{model}"},
        )
    raise not_found(
        f"models/{model}", "List the models to see what exists, or leave it out for the default."
    )


def relative_key(key: str, prefix: str) -> str:
    """A file's path inside of its version's folder; refuses what would leave it."""
    relative = key.removeprefix(prefix)
    unsafe = not _SAFE_RELATIVE.match(relative) or ".." in relative.split("/")
    if not key.startswith(prefix) or unsafe:
        raise GranuloError(
            Reason.DIGEST_MISMATCH,
            f"the model reference names {key}, which is not below {prefix}; promote it again.",
            metadata={"key": key},
        )
    return relative


def _reference(store: ObjectStore, model: str) -> Promoted:
    key = f"refs/models/{model}.json"
    content = _json(store.get(key), key)
    try:
        return Promoted(
            served=ServedModel(model, int(content["version"]), tenant_of(store.url)),
            objects=tuple((str(item["key"]), str(item["digest"])) for item in content["objects"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(key, f"{type(error).__name__}: {error}") from error


def _unreferenced(store: ObjectStore, now: Promoted, version: int) -> Promoted:
    """An older version that was promoted once and still lies in ``serving/``."""
    model, serving = now.served.name, now.served.version
    prefix = f"serving/{model}/{version}/"
    keys = sorted(store.list(prefix))
    if f"{prefix}{METADATA}" not in keys:
        name = f"models/{model}/versions/{version}"
        if store.exists(f"{name}/manifest.json"):
            raise GranuloError(
                Reason.RESOURCE_NOT_READY,
                f"{name} is not promoted (version {serving} is). Promote it first: "
                f"`granulo models promote {name}`.",
                metadata={"name": name},
            )
        raise not_found(name, f"models/{model} serves version {serving}.")
    older = replace(now.served, version=version)
    return Promoted(older, tuple((key, store.stat(key).digest) for key in keys))


def _from_store(store: ObjectStore, reference: Promoted) -> ResolvedModel:
    served = reference.served
    key = f"serving/{served.name}/{served.version}/{METADATA}"
    digests = dict(reference.objects)
    if key not in digests:
        raise _damaged(key, "the reference does not list it")
    return ResolvedModel(
        served=served,
        facts=_facts(store.get(key, digests[key]), key),
        digest=digest_of(json.dumps(sorted(digests.items())).encode()),
    )


@cache
def _packaged(folder: Path) -> ResolvedModel:
    path = folder / METADATA
    if not path.is_file():
        raise not_found(
            f"models/{DEFAULT}",
            "Train and promote a model of this name, or name another one; this installation "
            "carries no default network.",
        )
    files = sorted(item for item in folder.rglob("*") if item.is_file())
    digests = [(str(item.relative_to(folder)), digest_of(item.read_bytes())) for item in files]
    digest = digest_of(json.dumps(digests).encode())
    return ResolvedModel(
        served=ServedModel(PACKAGED, _version_of(digest)),
        facts=_facts(path.read_bytes(), str(path)),
        digest=digest,
    )


def _version_of(digest: str) -> int:
    """A positive number of at most nine figures, as model servers and names take it."""
    return 1 + int(digest.removeprefix("sha256:")[:7], 16)


def _facts(data: bytes, where: str) -> ModelFacts:
    content = _json(data, where)
    try:
        return ModelFacts.from_json(content)
    except (KeyError, TypeError, ValueError) as error:
        raise GranuloError(
            Reason.MODEL_SIGNATURE_MISMATCH,
            f"{where} does not describe a model that this version of Granulo can use: {error}. "
            "Train it again, or update Granulo.",
            metadata={"key": where},
        ) from error


def _json(data: bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except ValueError as error:
        raise _damaged(where, str(error)) from error
    if not isinstance(content, dict):
        raise _damaged(where, "it holds no JSON object")
    return content


def _damaged(key: str, problem: str) -> GranuloError:
    return GranuloError(
        Reason.DIGEST_MISMATCH,
        f"{key} is damaged ({problem}). Promote the model again.",
        metadata={"key": key},
    )
