# SPDX-License-Identifier: GPL-3.0-or-later
"""The version whose weights a training begins with."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from granulo_core.errors import FieldViolation, GranuloError, Reason, invalid_fields
from granulo_core.imaging.instances import InstanceParams
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore, StoredObject
from granulo_trainer import registry
from granulo_trainer.domain.config import Network, TrainingConfig

_FIELD = "model_version.config.base_version"
_VARIABLES = "variables/"


@dataclass(frozen=True)
class BaseVersion:
    """A finished version that another training can begin with."""

    name: str
    """``models/<model>/versions/<n>``"""
    network: Network
    weights: StoredObject | None
    """npz of the weights; None where only the SavedModel is left."""
    variables: tuple[tuple[str, StoredObject], ...]
    """The SavedModel's files of variables by their path in it."""
    instances: InstanceParams
    """Thresholds that it came with."""


def find(store: ObjectStore, name: str) -> BaseVersion | None:
    """The version that a training continues from.

    Parameters
    ----------
    store : ObjectStore
    name : str
        ``models/<model>/versions/<n>``; empty for none.

    Returns
    -------
    BaseVersion or None
        None where no version is named.

    Raises
    ------
    GranuloError
        FIELD_INVALID: no such version, or one that is not ACTIVE.
    """
    if not name:
        return None
    problem, manifest = _manifest(store, name)
    if manifest is None:
        raise invalid_fields([FieldViolation(_FIELD, problem)])
    known = manifest.facts["config"]
    weights = registry.weights_object(manifest)
    variables = tuple(
        (relative, stored)
        for relative, stored in registry.saved_model_objects(manifest)
        if relative.startswith(_VARIABLES)
    )
    return BaseVersion(
        name=name,
        network=Network(known["preset"], tuple(known.get("filters", ()))),
        # The packaged network has its SavedModel only: its weights are a file of that.
        weights=weights if weights.key.endswith(".npz") else None,
        variables=variables,
        instances=InstanceParams.from_json(manifest.facts["instances"]),
    )


def check_same(base: BaseVersion, config: TrainingConfig) -> None:
    """Refuse a training of another network.

    Raises
    ------
    GranuloError
        FIELD_INVALID: the preset or the numbers of feature maps differ.
    """
    theirs = base.network
    differences = []
    if theirs.preset != config.preset:
        differences.append(f"its preset is {theirs.preset} and this training's {config.preset}")
    if theirs.filters and theirs.filters != config.filters:
        differences.append(
            f"its feature maps are {list(theirs.filters)} and this training's "
            f"{list(config.filters)}"
        )
    if differences:
        raise _another_network(base.name, ", ".join(differences))


def first_weights(store: ObjectStore, base: BaseVersion, config: TrainingConfig) -> bytes:
    """Read the weights, in a worker.

    Parameters
    ----------
    store : ObjectStore
    base : BaseVersion
    config : TrainingConfig
        Of the new training.

    Returns
    -------
    bytes
        npz, as ``unet.train.weights_bytes`` gives them.

    Raises
    ------
    GranuloError
        FIELD_INVALID where a SavedModel's weights do not fit, DIGEST_MISMATCH for damaged ones.
    """
    if base.weights is not None:
        return store.get(base.weights.key, base.weights.digest)
    from granulo_trainer.unet.saved_weights import read_saved_weights

    with tempfile.TemporaryDirectory(prefix="granulo-base-") as folder:
        for relative, stored in base.variables:
            target = Path(folder) / relative
            target.parent.mkdir(exist_ok=True)
            store.get_file(stored.key, target, stored.digest)
        try:
            return read_saved_weights(Path(folder), config)
        except ValueError as error:
            raise _another_network(base.name, str(error)) from error


def _another_network(name: str, difference: str) -> GranuloError:
    text = f"{name} is another network: {difference}; ask for the same, or leave out preset and "
    return invalid_fields([FieldViolation(_FIELD, f"{text}width")])


def _manifest(store: ObjectStore, name: str) -> tuple[str, manifests.Manifest | None]:
    """The version's manifest, or what is wrong with the name."""
    try:
        state = registry.state_of(store, registry.VersionName.parse(name))
    except GranuloError as error:
        if error.reason is not Reason.RESOURCE_NOT_FOUND:
            raise
        hint = (
            "use models/<model>/versions/<number> of a version in the registry, or models/<model> "
            "of a promoted model"
        )
        return f"{name!r} does not exist; {hint}", None
    if state is not registry.VersionState.ACTIVE:
        return f"{name} is {state.value}; a training can begin with an ACTIVE version only", None
    return "", manifests.load(store, name)
