# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans, runs and commits the making of a version from a checkpoint that somebody chose (M18)."""

from dataclasses import replace

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo_core.engine.port import Resources, Task
from granulo_core.errors import GranuloError, Reason
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.runner import OperationContext, Workflow
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore
from granulo_trainer import registry, selections
from granulo_trainer.checkpoints import CheckpointName, find_checkpoint
from granulo_trainer.domain.job import TrainingJob
from granulo_trainer.domain.selection import Criterion, Selection
from granulo_trainer.kept_jobs import kept_job
from granulo_trainer.settings import TrainerSettings
from granulo_trainer.tasks.select import SelectionJob
from granulo_trainer.workflow.create_version import get_version, inputs_of

KIND = "SelectCheckpoint"
_ENTRY_POINT = "granulo_trainer.tasks.select:select"


def select_checkpoint(settings: TrainerSettings) -> Workflow:
    """The durable operation that makes a version of a checkpoint."""

    def run(context: OperationContext) -> pb.ModelVersion:
        request = context.request
        assert isinstance(request, pb.SelectCheckpointRequest)  # the runner checks the type
        version = registry.VersionName.parse(context.target)
        if registry.state_of(context.store, version) is not registry.VersionState.ACTIVE:
            registry.clear_failure(context.store, version)
            try:
                _make(context, request, version, settings)
            except GranuloError as error:
                registry.mark_failed(context.store, version, error.message)
                raise
        return get_version(context.store, version)

    return Workflow(
        kind=KIND,
        request_type=pb.SelectCheckpointRequest,
        metadata_type=pb.SelectCheckpointMetadata,
        run=run,
    )


def check_request(store: ObjectStore, request: pb.SelectCheckpointRequest) -> CheckpointName:
    """Refuse what cannot be selected, before any work.

    Raises
    ------
    GranuloError
        FIELD_INVALID, RESOURCE_NOT_FOUND for an unknown version or checkpoint,
        RESOURCE_NOT_READY (FAILED_PRECONDITION) while the version still trains.
    """
    selections.check_person(request)
    checkpoint = CheckpointName.parse(request.name)
    state = registry.state_of(store, checkpoint.version)
    if state is registry.VersionState.CREATING:
        raise GranuloError(
            Reason.RESOURCE_NOT_READY,
            f"{checkpoint.version} is still being made; select a checkpoint when its operation "
            "has ended or was cancelled.",
            metadata={"name": str(checkpoint.version), "state": state.value},
        )
    count = selections.averaged_epochs(request, checkpoint.epoch)
    for one in checkpoint.up_to_it(count):
        find_checkpoint(store, one)
    return checkpoint


def target_of(
    store: ObjectStore, checkpoint: CheckpointName, request: pb.SelectCheckpointRequest
) -> str:
    """Name of the version that this request makes; a new number for a new choice."""
    digest = registry.request_digest([KIND.encode(), selections.identity(request)])
    return str(registry.claim(store, checkpoint.version.model, digest))


def _make(
    context: OperationContext,
    request: pb.SelectCheckpointRequest,
    version: registry.VersionName,
    settings: TrainerSettings,
) -> None:
    store = context.store
    checkpoint = CheckpointName.parse(request.name)
    context.update_metadata(pb.SelectCheckpointMetadata(model_version=str(version)))
    task = Task(
        id="select",
        entry_point=_ENTRY_POINT,
        payload=SelectionJob(
            str(checkpoint),
            str(version),
            _sentence(request),
            averaged_epochs=selections.averaged_epochs(request, checkpoint.epoch),
        ).to_bytes(),
        # What a training asks for: so its idle worker is used, which has TensorFlow loaded.
        resources=Resources(cpu=settings.training_cpus, pool="train"),
    )
    receipts = context.run_tasks([task], unit="checkpoint")
    receipt = Receipt.from_bytes(receipts[task.id])
    context.check_cancelled()
    job = kept_job(store, checkpoint.version)
    selection = Selection(
        criterion=Criterion.VISUAL,
        checkpoint=str(checkpoint),
        selected_by=request.selected_by.strip(),
        reason=request.reason.strip(),
        averaged_epochs=selections.averaged_epochs(request, checkpoint.epoch),
    )
    manifests.commit(
        store,
        str(version),
        manifests.Manifest(
            resource=str(version),
            kind="ModelVersion",
            objects=receipt.objects,
            inputs=_inputs(store, checkpoint, job),
            producer=manifests.producer("trainer", job.config.seed),
            request=selections.request_json(request),
            facts={
                **receipt.facts,
                "selection": selection.to_json(),
                "config": job.config.to_json(),
                "datasets": list(job.datasets),
            },
        ),
    )


def _sentence(request: pb.SelectCheckpointRequest) -> str:
    """For the model card."""
    person, reason = request.selected_by.strip(), request.reason.strip()
    chosen = f"{person} chose `{request.name}`: {reason}"
    if request.averaged_epochs <= 1:
        return chosen
    return (
        f"{chosen}. The weights are the mean of its last {request.averaged_epochs} epochs "
        "(Izmailov et al. 2018); the figures are those of the chosen epoch alone."
    )


def _inputs(
    store: ObjectStore, checkpoint: CheckpointName, job: TrainingJob
) -> tuple[manifests.ManifestInput, ...]:
    """Lineage: the version of the checkpoint, and what that one was made from."""
    name = str(checkpoint.version)
    if registry.state_of(store, checkpoint.version) is registry.VersionState.ACTIVE:
        digest = manifests.manifest_artifact(store, name).digest
        source = manifests.ManifestInput(name, digest)
        return (source, *manifests.load(store, name, digest).inputs)
    # A failed version has no manifest, only the claim of its request, and protects no dataset
    # from being deleted.
    claim = store.stat(f"{name}/claim.json")
    left = tuple(name for name in job.datasets if store.exists(f"{name}/manifest.json"))
    inputs = inputs_of(store, replace(job, datasets=left, validation=()))
    return (manifests.ManifestInput(claim.key, claim.digest), *inputs)
