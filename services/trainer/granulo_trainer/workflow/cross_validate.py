# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans, runs and commits a cross-validation on annotated images (M19)."""

from typing import Any

from google.protobuf.json_format import MessageToDict

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo_core.engine.port import Resources, Task
from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.runner import OperationContext, Workflow
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore
from granulo_trainer import annotated, convert, datasets, memory
from granulo_trainer import convert_cross_validation as messages
from granulo_trainer.dataset_checks import check_trainable
from granulo_trainer.domain.annotation import AnnotatedImage
from granulo_trainer.domain.cross_validation import (
    FoldJob,
    assign_folds,
    means_and_deviations,
)
from granulo_trainer.fold_checkpoints import drop_states
from granulo_trainer.settings import TrainerSettings

KIND = "CrossValidate"
_ENTRY_POINT = "granulo_trainer.tasks.cross_validate:run_fold"
# A worker that dies in training (out of memory, a lost node) goes on from the last checkpoint.
_ATTEMPTS = 5


def cross_validate(settings: TrainerSettings) -> Workflow:
    """The durable operation that trains and scores all folds."""

    def run(context: OperationContext) -> pb.CrossValidation:
        request = context.request
        assert isinstance(request, pb.CrossValidateRequest)  # the runner checks the type
        if not context.store.exists(f"{context.target}/manifest.json"):
            _make(context, request, settings)
        return get_cross_validation(context.store, context.target)

    return Workflow(
        kind=KIND,
        request_type=pb.CrossValidateRequest,
        metadata_type=pb.CrossValidateMetadata,
        run=run,
    )


def check_request(
    store: ObjectStore, request: pb.CrossValidateRequest, settings: TrainerSettings
) -> str:
    """Refuse what cannot be cross-validated, before any work.

    Returns
    -------
    str
        Name of the cross-validation that this request makes; equal requests make the same one.

    Raises
    ------
    GranuloError
        FIELD_INVALID with everything that is wrong, RESOURCE_NOT_FOUND for missing datasets.
    """
    message = request.cross_validation
    config = messages.training_config(message, settings.max_epochs)
    images = annotated.images_of(manifests.load(store, message.dataset))
    if len(images) < 2:
        text = f"{message.dataset} has {len(images)} image; two are needed to leave one out"
        raise invalid_fields([FieldViolation("cross_validation.dataset", text)])
    if message.folds > len(images):
        text = f"is {message.folds}, more than the {len(images)} images; give at most that many"
        raise invalid_fields([FieldViolation("cross_validation.folds", text)])
    names = messages.dataset_names(message)
    scenes = datasets.list_scenes(store, names, f"{messages.CONFIG}.datasets")
    check_trainable(store, scenes, config, messages.CONFIG)
    memory.check_fits(config, settings.training_memory_mib, messages.CONFIG)
    digests = [manifests.manifest_artifact(store, name).digest for name in names]
    return f"cross-validations/{manifests.content_id('cv', messages.identity(request), *digests)}"


def get_cross_validation(store: ObjectStore, name: str) -> pb.CrossValidation:
    """A finished cross-validation; RESOURCE_NOT_FOUND for any other."""
    name = messages.cross_validation_name(name)
    manifest = manifests.load(store, name)
    return messages.cross_validation(manifest, manifests.manifest_artifact(store, name))


def _make(
    context: OperationContext, request: pb.CrossValidateRequest, settings: TrainerSettings
) -> None:
    store, message = context.store, request.cross_validation
    images = annotated.images_of(manifests.load(store, message.dataset))
    jobs = _jobs(context.target, message, images, settings)
    tasks = [
        Task(
            id=f"fold-{job.fold:03d}",
            entry_point=_ENTRY_POINT,
            payload=job.to_bytes(),
            resources=Resources(cpu=settings.training_cpus, pool="train"),
            max_attempts=_ATTEMPTS,
        )
        for job in jobs
    ]
    steps = jobs[0].config.total_steps
    done = context.run_tasks(tasks, unit="step", units_of=lambda _: steps)
    receipts = [Receipt.from_bytes(done[task.id]) for task in tasks]
    context.check_cancelled()
    names = messages.dataset_names(message)
    manifests.commit(
        store,
        context.target,
        manifests.Manifest(
            resource=context.target,
            kind="CrossValidation",
            objects=tuple(item for receipt in receipts for item in receipt.objects),
            inputs=tuple(
                manifests.ManifestInput(name, manifests.manifest_artifact(store, name).digest)
                for name in names
            ),
            producer=manifests.producer("trainer", jobs[0].config.seed),
            request=MessageToDict(request, preserving_proto_field_name=True),
            facts=_facts(message, jobs[0], receipts),
        ),
    )
    drop_states(store, context.target)


def _jobs(
    target: str,
    message: pb.CrossValidation,
    images: list[AnnotatedImage],
    settings: TrainerSettings,
) -> list[FoldJob]:
    config = messages.training_config(message, settings.max_epochs)
    names = messages.dataset_names(message)
    folds = assign_folds(len(images), message.folds, config.seed)
    return [
        FoldJob(
            name=target,
            fold=number,
            folds=len(folds),
            dataset=message.dataset,
            left_out=tuple(images[i].stem for i in fold),
            config=config,
            datasets=tuple(message.config.datasets),
            weights=convert.training_weights(message.config, names, messages.CONFIG),
        )
        for number, fold in enumerate(folds)
    ]


def _facts(message: pb.CrossValidation, job: FoldJob, receipts: list[Receipt]) -> dict[str, Any]:
    folds = [dict(receipt.facts) for receipt in receipts]
    scores = [image["metrics"] for fold in folds for image in fold["images"]]
    return {
        "dataset": job.dataset,
        "datasets": list(job.datasets),
        "weights": dict(zip(messages.dataset_names(message), job.weights, strict=False)),
        "config": job.config.to_json(),
        "requested_folds": message.folds,
        "folds": folds,
        "metrics": means_and_deviations(scores),
    }
