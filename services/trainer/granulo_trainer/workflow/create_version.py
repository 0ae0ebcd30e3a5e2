# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans, runs and commits the making of a model version."""

from dataclasses import replace

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo_core.engine.port import Resources, Task
from granulo_core.errors import GranuloError
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.runner import OperationContext, Workflow
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore
from granulo_trainer import convert, datasets, registry
from granulo_trainer.domain.job import StoredImage, TrainingJob
from granulo_trainer.kept_jobs import keep_job
from granulo_trainer.settings import TrainerSettings

KIND = "CreateModelVersion"
_ENTRY_POINT = "granulo_trainer.tasks.train:train"
# A worker that dies in training (out of memory, a lost node) goes on from the last checkpoint.
_ATTEMPTS = 5


def create_model_version(settings: TrainerSettings) -> Workflow:
    """The durable operation that trains, evaluates and exports one version."""

    def run(context: OperationContext) -> pb.ModelVersion:
        request = context.request
        assert isinstance(request, pb.CreateModelVersionRequest)  # the runner checks the type
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
        request_type=pb.CreateModelVersionRequest,
        metadata_type=pb.CreateModelVersionMetadata,
        run=run,
    )


def check_request(
    store: ObjectStore, request: pb.CreateModelVersionRequest, settings: TrainerSettings
) -> str:
    """Refuse what cannot be trained, before any work.

    Returns
    -------
    str
        Model id.

    Raises
    ------
    GranuloError
        FIELD_INVALID, RESOURCE_NOT_FOUND, or what is wrong with a validation image.
    """
    model = convert.model_id(request.parent, "parent")
    config = convert.training_config(request.model_version.config, settings.max_epochs)
    datasets.list_scenes(store, list(request.model_version.config.datasets))
    for pair in convert.validation_pairs(request.model_version.config):
        datasets.validation_image(store, pair, config, settings.max_image_px)
    return model


def target_of(store: ObjectStore, model: str, request: pb.CreateModelVersionRequest) -> str:
    """Name of the version that this request makes; a new number for a new request."""
    return str(registry.claim(store, model, _digest(request)))


def get_version(store: ObjectStore, version: registry.VersionName) -> pb.ModelVersion:
    """A version in any state."""
    state = registry.state_of(store, version)
    if state is not registry.VersionState.ACTIVE:
        created = registry.claim_time(store, version)
        return convert.unfinished_version(version, state, created)
    return convert.active_version(
        version,
        manifests.load(store, str(version)),
        manifests.manifest_artifact(store, str(version)),
    )


def _make(
    context: OperationContext,
    request: pb.CreateModelVersionRequest,
    version: registry.VersionName,
    settings: TrainerSettings,
) -> None:
    store = context.store
    message = request.model_version.config
    config = convert.training_config(message, settings.max_epochs)
    job = TrainingJob(
        version=str(version),
        datasets=tuple(message.datasets),
        config=config,
        validation=convert.validation_pairs(message),
    )
    kept = keep_job(store, version, job)
    context.update_metadata(pb.CreateModelVersionMetadata(model_version=str(version)))
    task = Task(
        id="train",
        entry_point=_ENTRY_POINT,
        payload=job.to_bytes(),
        resources=Resources(cpu=settings.training_cpus, pool="train"),
        max_attempts=_ATTEMPTS,
    )
    receipts = context.run_tasks([task], unit="step", units_of=lambda _: config.total_steps)
    receipt = Receipt.from_bytes(receipts[task.id])
    context.check_cancelled()
    context.update_metadata(
        pb.CreateModelVersionMetadata(
            model_version=str(version),
            epoch=int(receipt.facts["epoch"]),
            metrics=receipt.facts["figures"],
        )
    )
    manifests.commit(
        store,
        str(version),
        manifests.Manifest(
            resource=str(version),
            kind="ModelVersion",
            objects=(*receipt.objects, kept),
            inputs=inputs_of(store, job),
            producer=manifests.producer("trainer", config.seed),
            request=convert.request_json(request),
            facts={
                **receipt.facts,
                "config": config.to_json(),
                "datasets": list(job.datasets),
            },
        ),
    )


def inputs_of(store: ObjectStore, job: TrainingJob) -> tuple[manifests.ManifestInput, ...]:
    """Lineage: the datasets by manifest digest, the validation images by their own."""
    found = [
        manifests.ManifestInput(name, manifests.manifest_artifact(store, name).digest)
        for name in job.datasets
    ]
    for pair in job.validation:
        for image in (pair.image, pair.labels):
            if image is not None:
                known = _with_digest(store, image)
                found.append(manifests.ManifestInput(known.key, known.digest))
    return tuple(found)


def _with_digest(store: ObjectStore, image: StoredImage) -> StoredImage:
    return image if image.digest else replace(image, digest=store.stat(image.key).digest)


def _digest(request: pb.CreateModelVersionRequest) -> str:
    return registry.request_digest([convert.identity(request)])
