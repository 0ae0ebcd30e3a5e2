# SPDX-License-Identifier: GPL-3.0-or-later
"""The version whose weights a training begins with."""

from granulo_core.errors import FieldViolation, GranuloError, Reason, invalid_fields
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore, StoredObject
from granulo_trainer import registry
from granulo_trainer.domain.config import TrainingConfig

_FIELD = "model_version.config.base_version"


def base_of(store: ObjectStore, name: str, config: TrainingConfig) -> StoredObject | None:
    """Weights of the version that a training continues from.

    Parameters
    ----------
    store : ObjectStore
    name : str
        ``models/<model>/versions/<n>``; empty for none.
    config : TrainingConfig
        Of the new training.

    Returns
    -------
    StoredObject or None
        npz of the weights; None where no version is named.

    Raises
    ------
    GranuloError
        FIELD_INVALID: no such version, one that is not ACTIVE, or one of another network.
    """
    if not name:
        return None
    problem, manifest = _find(store, name)
    if manifest is None:
        raise invalid_fields([FieldViolation(_FIELD, problem)])
    known = manifest.facts["config"]
    differences = [
        f"its {what} {theirs} and this training's {ours}"
        for what, theirs, ours in (
            ("preset is", known["preset"], config.preset),
            ("feature maps are", known["filters"], list(config.filters)),
        )
        if theirs != ours
    ]
    if differences:
        text = f"{name} is another network: {', '.join(differences)}; ask for the same"
        raise invalid_fields([FieldViolation(_FIELD, text)])
    return registry.weights_object(manifest)


def _find(store: ObjectStore, name: str) -> tuple[str, manifests.Manifest | None]:
    """The version's manifest, or what is wrong with the name."""
    try:
        state = registry.state_of(store, registry.VersionName.parse(name))
    except GranuloError as error:
        if error.reason is not Reason.RESOURCE_NOT_FOUND:
            raise
        hint = "; use models/<model>/versions/<number> of a version in the registry"
        if name.startswith("models/default"):
            hint += " (the model that comes with Granulo is none: it cannot be trained further)"
        return f"{name!r} does not exist{hint}", None
    if state is not registry.VersionState.ACTIVE:
        return f"{name} is {state.value}; a training can begin with an ACTIVE version only", None
    return "", manifests.load(store, name)
