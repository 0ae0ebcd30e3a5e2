# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans, runs and commits the making of a model version."""

from dataclasses import replace

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo_core.engine.port import Resources, Task
from granulo_core.errors import GranuloError, Reason
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.runner import OperationContext, Workflow
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore
from granulo_trainer import base_version, convert, datasets, memory, packaged, registry
from granulo_trainer.checkpoints import StoreCheckpoints
from granulo_trainer.dataset_checks import check_trainable, check_validation
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.job import StoredImage, TrainingJob
from granulo_trainer.domain.memory import smaller
from granulo_trainer.kept_jobs import keep_job
from granulo_trainer.settings import TrainerSettings

KIND = "CreateModelVersion"
_CONFIG = "model_version.config"
_ENTRY_POINT = "granulo_trainer.tasks.train:train"
# A worker that dies in training (out of memory, a lost node) goes on from the last checkpoint.
_ATTEMPTS = 5
_KILLED = "-9"


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
        # Not before the version is committed: until then an interruption needs them.
        StoreCheckpoints(context.store, version).drop_optimizer_states()
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
    message = request.model_version.config
    config = _config(store, message, settings)
    convert.training_weights(message, message.datasets)
    memory.check_fits(config, settings.training_memory_mib, _CONFIG)
    scenes = datasets.list_scenes(store, message.datasets)
    check_trainable(store, scenes, config, _CONFIG)
    pairs = convert.validation_pairs(message)
    check_validation(store, pairs, message.datasets, _CONFIG)
    for pair in pairs:
        datasets.validation_image(store, pair, config, settings.max_image_px)
    return model


def with_base_version(
    store: ObjectStore,
    request: pb.CreateModelVersionRequest,
    packaged_name: registry.VersionName | None,
) -> pb.CreateModelVersionRequest:
    """The request with the version that its base's name means at present.

    A model's name means another version after a promotion, and another version is another request.
    """
    named = request.model_version.config.base_version
    if not named:
        return request
    found = pb.CreateModelVersionRequest()
    found.CopyFrom(request)
    found.model_version.config.base_version = packaged.meant(store, named, packaged_name)
    return found


def target_of(store: ObjectStore, model: str, request: pb.CreateModelVersionRequest) -> str:
    """Name of the version that this request makes; a new number for a new request."""
    return str(registry.claim(store, model, _digest(request)))


def get_version(store: ObjectStore, version: registry.VersionName) -> pb.ModelVersion:
    """A version in any state."""
    state = registry.state_of(store, version)
    if state is not registry.VersionState.ACTIVE:
        created = registry.claim_time(store, version)
        failure = registry.failure_of(store, version)
        return convert.unfinished_version(version, state, created, failure)
    return convert.active_version(
        version,
        manifests.load(store, str(version)),
        manifests.manifest_artifact(store, str(version)),
    )


def _config(
    store: ObjectStore, message: pb.TrainingConfig, settings: TrainerSettings
) -> TrainingConfig:
    """What is trained; FIELD_INVALID for what cannot be, the base version included."""
    base = base_version.find(store, message.base_version)
    config = convert.training_config(
        message, settings.max_epochs, base=base.network if base else None
    )
    if base is not None:
        base_version.check_same(base, config)
    return config


def _make(
    context: OperationContext,
    request: pb.CreateModelVersionRequest,
    version: registry.VersionName,
    settings: TrainerSettings,
) -> None:
    store = context.store
    message = request.model_version.config
    config = _config(store, message, settings)
    job = TrainingJob(
        version=str(version),
        datasets=tuple(message.datasets),
        config=config,
        validation=convert.validation_pairs(message),
        weights=convert.training_weights(message, message.datasets),
        base_version=message.base_version,
    )
    kept = keep_job(store, version, job)
    context.update_metadata(pb.CreateModelVersionMetadata(model_version=str(version)))
    task = Task(
        id="train",
        entry_point=_ENTRY_POINT,
        payload=job.to_bytes(),
        # What makes TensorFlow deterministic holds for a whole process, and for good.
        resources=Resources(
            cpu=settings.training_cpus,
            pool="train-deterministic" if config.deterministic else "train",
        ),
        max_attempts=_ATTEMPTS,
    )
    try:
        receipts = context.run_tasks([task], unit="step", units_of=lambda _: config.total_steps)
    except GranuloError as error:
        raise _with_remedy(error, config) from error
    receipt = Receipt.from_bytes(receipts[task.id])
    context.check_cancelled()
    steps = int(receipt.facts["figures"]["steps_trained"])
    context.progress(units_done=steps, units_total=steps, message=receipt.facts["ended"])
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
                "weights": dict(zip(job.datasets, job.weights, strict=False)),
            },
        ),
    )


def _with_remedy(error: GranuloError, config: TrainingConfig) -> GranuloError:
    """Say what helps where the kernel killed the worker: most often for its memory."""
    if error.reason is not Reason.WORKER_DIED or error.metadata.get("exit_code") != _KILLED:
        return error
    return GranuloError(
        error.reason,
        f"{error.message} Where it was the memory, {smaller(config)}: it was {config.batch_size} "
        f"patches of {config.patch_px} px.",
        metadata=error.metadata,
    )


def inputs_of(store: ObjectStore, job: TrainingJob) -> tuple[manifests.ManifestInput, ...]:
    """Lineage: datasets and base version by manifest digest, validation images by their own."""
    resources = [*job.datasets, *([job.base_version] if job.base_version else [])]
    found = [
        manifests.ManifestInput(name, manifests.manifest_artifact(store, name).digest)
        for name in resources
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
