# SPDX-License-Identifier: GPL-3.0-or-later
"""The network that comes with Granulo, as a version of the registry like any other.

Where it lies and what it is called is the segmenter's affair: the standalone tells the trainer by
its settings. So it can be listed, shown with its card, exported, and trained further.
"""

import json
from pathlib import Path

import structlog

from granulo_core.errors import GranuloError
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore, StoredObject, digest_of
from granulo_trainer import promotion, registry
from granulo_trainer.card import NAME as CARD_NAME
from granulo_trainer.domain.config import METADATA_NAME
from granulo_trainer.settings import TrainerSettings

_log = structlog.get_logger(__name__)
DEFAULT = "default"
"""The model that is meant where none is named; the packaged one until another is promoted."""


def packaged_version(settings: TrainerSettings) -> registry.VersionName | None:
    """Name of the packaged network's version; None where this installation has none."""
    if not settings.packaged_model or not settings.packaged_name:
        return None
    return registry.VersionName.parse(settings.packaged_name)


def enter(store: ObjectStore, settings: TrainerSettings) -> None:
    """Make the packaged network a version of the registry, unless it is one.

    A store that cannot take it is no reason not to start: what needs it will say so.
    """
    version = packaged_version(settings)
    if version is None:
        return
    try:
        if not store.exists(f"{version}/manifest.json"):
            _enter(store, version, Path(settings.packaged_model))
    except (GranuloError, OSError) as error:
        _log.warning("packaged network not entered", version=str(version), trouble=str(error))


def served(
    store: ObjectStore, model: str, packaged: registry.VersionName | None
) -> registry.VersionName | None:
    """The version that a model's name stands for: the promoted one, or the packaged network."""
    promoted = promotion.serving_version(store, model)
    if promoted is None and packaged is not None and model in (DEFAULT, packaged.model):
        return packaged
    return promoted


def meant(store: ObjectStore, name: str, packaged: registry.VersionName | None) -> str:
    """Resource name of the version that a model's or a version's name stands for.

    Parameters
    ----------
    store : ObjectStore
    name : str
        ``models/<model>`` is what that model serves, and ``models/default`` the packaged network
        while no other is; so is its version 1 while the registry holds none.
    packaged : VersionName, optional

    Returns
    -------
    str
        The name itself where it stands for nothing else.
    """
    if name == f"models/{DEFAULT}/versions/1" and not registry.version_numbers(store, DEFAULT):
        return str(packaged or name)
    model = name.removeprefix("models/")
    if "/" in model or model not in model_names(store, packaged):
        return name
    return str(served(store, model, packaged) or name)


def model_names(store: ObjectStore, packaged: registry.VersionName | None) -> list[str]:
    """Ids of all models; the default one is there also while only the packaged network is."""
    names = set(registry.model_names(store))
    return sorted(names | ({DEFAULT} if packaged is not None else set()))


def versions(
    store: ObjectStore, model: str, packaged: registry.VersionName | None
) -> list[registry.VersionName]:
    """Versions of a model; of a default model without any, the packaged network."""
    found = [registry.VersionName(model, n) for n in registry.version_numbers(store, model)]
    if not found and model == DEFAULT and packaged is not None:
        return [packaged]
    return found


def _enter(store: ObjectStore, version: registry.VersionName, folder: Path) -> None:
    metadata = json.loads((folder / METADATA_NAME).read_text(encoding="utf-8"))
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    objects: list[StoredObject] = [
        store.put_file(f"{version}/saved_model/{path.relative_to(folder).as_posix()}", path)
        for path in paths
    ]
    weights = next(path for path in paths if path.name.startswith("variables.data-"))
    card = folder.parent / CARD_NAME
    if card.is_file():
        objects.append(store.put_file(f"{version}/{CARD_NAME}", card, "text/markdown"))
    claim = {"request_digest": str(version), "create_time": manifests.now_rfc3339()}
    store.put(f"{version}/claim.json", registry.to_json(claim), "application/json")
    manifests.commit(
        store,
        str(version),
        manifests.Manifest(
            resource=str(version),
            kind="ModelVersion",
            objects=tuple(objects),
            inputs=(),
            producer=manifests.producer("trainer", 0),
            request={},
            facts={
                # Networks of before there was `filters` do not say how many they have.
                "config": {
                    name: metadata[name] for name in ("preset", "filters") if name in metadata
                },
                "datasets": [],
                "figures": {},
                "instances": metadata["instances"],
                "tuning": None,
                "weights_digest": digest_of(weights.read_bytes()),
                "parameter_count": int(metadata.get("parameter_count", 0)),
            },
        ),
    )
