# SPDX-License-Identifier: GPL-3.0-or-later
"""CreateSegmentation: plan the tasks, gather their receipts, commit the manifest last."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from granulo.segmenter.v1 import segmenter_service_pb2 as pb
from granulo_core.engine.port import Resources, Task
from granulo_core.errors import (
    FieldViolation,
    GranuloError,
    Reason,
    invalid_fields,
)
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.reading.isolated import Read
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.runner import OperationContext, Workflow
from granulo_core.store import manifest as manifests
from granulo_core.store.manifest import ManifestInput
from granulo_core.store.port import ObjectStore, StoredObject
from granulo_segmenter import convert, images
from granulo_segmenter.domain.jobs import (
    Outputs,
    ResultStem,
    SegmentJob,
    SourceImage,
    page_names,
    result_stems,
)
from granulo_segmenter.domain.model import ResolvedModel
from granulo_segmenter.domain.options import Options
from granulo_segmenter.predictor import versions
from granulo_segmenter.predictor.client import Predictor
from granulo_segmenter.settings import SegmenterSettings

KIND = "CreateSegmentation"
COLLECTION = "segmentations"
_ENTRY_POINT = "granulo_segmenter.tasks:segment_shard"
_TASK_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Plan:
    """What a segmentation is made of.

    It is stored: a model's name may mean another version when an operation is resumed.
    """

    images: tuple[SourceImage, ...]
    model: ResolvedModel
    options: Options
    outputs: Outputs
    pixel_size_nm: tuple[float, float] | None
    inputs: tuple[ManifestInput, ...]

    @property
    def target(self) -> str:
        """``segmentations/<id>``; the id follows from everything the result depends on."""
        content = self.to_json()
        del content["inputs"]
        identity = json.dumps(content, sort_keys=True)
        return f"{COLLECTION}/{manifests.content_id('seg', identity)}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(self),
            "model": self.model.to_json(),
            "options": self.options.to_json(),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Plan":
        """Read what `to_json` gave."""
        size = content["pixel_size_nm"]
        return cls(
            images=tuple(SourceImage(**item) for item in content["images"]),
            model=ResolvedModel.from_json(content["model"]),
            options=Options.from_json(content["options"]),
            outputs=Outputs(**content["outputs"]),
            pixel_size_nm=(size[0], size[1]) if size else None,
            inputs=tuple(ManifestInput(**item) for item in content["inputs"]),
        )


def resolve_model(store: ObjectStore, name: str, settings: SegmenterSettings) -> ResolvedModel:
    """Find the model version that a request means; see `versions.resolve` for its errors."""
    packaged = Path(settings.packaged_model) if settings.packaged_model else None
    return versions.resolve(store, name, packaged)


def plan(
    store: ObjectStore,
    request: pb.CreateSegmentationRequest,
    settings: SegmenterSettings,
    read: Read,
) -> Plan:
    """Resolve a request and refuse what cannot be segmented, before any work.

    Parameters
    ----------
    store : ObjectStore
    request : CreateSegmentationRequest
    settings : SegmenterSettings
    read : Read
        How the images are read.

    Raises
    ------
    GranuloError
        FIELD_INVALID, RESOURCE_NOT_FOUND, RESOURCE_NOT_READY, or what is wrong with an image.
    """
    message = request.segmentation
    source = message.WhichOneof("source")
    model = resolve_model(store, message.model, settings)
    options = convert.options(message.options, model.facts, "segmentation.options")
    size = None
    inputs = [_model_input(store, model)]
    if source == "dataset":
        found = images.of_dataset(store, convert.dataset_name(message.dataset))
        digest = manifests.manifest_artifact(store, message.dataset).digest
        inputs.append(ManifestInput(message.dataset, digest))
        _check_count(len(found), "segmentation.dataset", settings.max_images)
    elif source == "images":
        field = "segmentation.images.images"
        _check_count(len(message.images.images), field, settings.max_images)
        if message.images.HasField("pixel_size"):
            size = convert.pixel_size(message.images.pixel_size, "segmentation.images.pixel_size")
        found = [
            images.locate(store, artifact, f"{field}[{index}]")
            for index, artifact in enumerate(message.images.images)
        ]
        inputs += [ManifestInput(image.key, image.digest) for image in found]
        found = images.check_all(store, found, settings, field, read)
        _check_count(len(found), field, settings.max_images)
    else:
        text = "is required: give images or a dataset"
        raise invalid_fields([FieldViolation("segmentation.source", text)])
    return Plan(
        images=tuple(found),
        model=model,
        options=options,
        outputs=convert.outputs(message.outputs),
        pixel_size_nm=size.as_tuple() if size else None,
        inputs=tuple(inputs),
    )


def keep_plan(store: ObjectStore, plan: Plan) -> str:
    """Store a plan for the operation that carries it out.

    Returns
    -------
    str
        The segmentation's name.
    """
    content = json.dumps(plan.to_json(), sort_keys=True).encode()
    store.put(_plan_key(plan.target), content, "application/json")
    return plan.target


def create_segmentation(settings: SegmenterSettings) -> Workflow:
    """The durable operation that segments a set of images."""

    def run(context: OperationContext) -> pb.Segmentation:
        request = context.request
        assert isinstance(request, pb.CreateSegmentationRequest)  # the runner checks the type
        if not context.store.exists(f"{context.target}/manifest.json"):
            kept = json.loads(context.store.get(_plan_key(context.target)))
            _make(context, request, Plan.from_json(kept), settings)
        return get_segmentation(context.store, context.target)

    return Workflow(
        kind=KIND,
        request_type=pb.CreateSegmentationRequest,
        metadata_type=pb.CreateSegmentationMetadata,
        run=run,
    )


def get_segmentation(store: ObjectStore, name: str, *, results: bool = True) -> pb.Segmentation:
    """A finished segmentation; RESOURCE_NOT_FOUND while there is none."""
    return convert.segmentation(
        manifests.load(store, name), manifests.manifest_artifact(store, name), results=results
    )


def _make(
    context: OperationContext,
    request: pb.CreateSegmentationRequest,
    plan: Plan,
    settings: SegmenterSettings,
) -> None:
    context.progress(unit="image", units_total=len(plan.images), message="waiting for the model")
    _wait_for_model(context, plan, settings)
    stems = result_stems(page_names(plan.images))
    tasks = [
        _task(_job(context.target, plan, image, stem, settings), index)
        for index, (image, stem) in enumerate(zip(plan.images, stems, strict=True))
    ]
    # A set survives a bad image; a single bad image is the operation's own failure.
    receipts = context.run_tasks(tasks, unit="image", allow_failures=len(tasks) > 1)
    context.check_cancelled()
    if not receipts:
        raise GranuloError(
            Reason.TASK_FAILED,
            f"None of the {len(tasks)} images could be segmented; the operation's partial "
            "failures say why.",
        )
    objects: list[StoredObject] = []
    results: list[pb.SegmentedImage] = []
    failed: list[str] = []
    for task, image, stem in zip(tasks, plan.images, stems, strict=True):
        if task.id not in receipts:
            failed.append(image.name)
            continue
        receipt = Receipt.from_bytes(receipts[task.id])
        objects += receipt.objects
        results.append(_result(image, stem, receipt))
    manifests.commit(
        context.store,
        context.target,
        manifests.Manifest(
            resource=context.target,
            kind="Segmentation",
            objects=tuple(objects),
            inputs=plan.inputs,
            producer=manifests.producer("segmenter", 0),
            request=convert.to_json(request),
            facts={
                "resolved_model_version": plan.model.resource,
                "particle_count": sum(result.particle_count for result in results),
                "results": [convert.to_json(result) for result in results],
                "failed": failed,
            },
        ),
    )


def _wait_for_model(context: OperationContext, plan: Plan, settings: SegmenterSettings) -> None:
    """One clear failure of the operation rather than one a picture."""
    with Predictor(
        require_model_server(settings),
        settings,
        timeout_s=settings.tile_timeout_s,
        patience_s=settings.job_patience_s,
    ) as predictor:
        predictor.wait_until_available(plan.model.served, context.check_cancelled)


def require_model_server(settings: SegmenterSettings) -> str:
    """Address of the model server, or MODEL_SERVER_UNAVAILABLE where none is set."""
    if not settings.model_server:
        raise GranuloError(
            Reason.MODEL_SERVER_UNAVAILABLE,
            "No model server is named. Set GRANULO_MODEL_SERVER to the address of TensorFlow "
            "Serving, or use `granulo up`, which starts one.",
        )
    return settings.model_server


def _job(
    target: str, plan: Plan, image: SourceImage, stem: ResultStem, settings: SegmenterSettings
) -> SegmentJob:
    return SegmentJob(
        image=image,
        stem_key=f"{target}/{stem.key}",
        outputs=plan.outputs,
        model=plan.model,
        options=plan.options,
        pixel_size_nm=plan.pixel_size_nm,
        model_server=settings.model_server,
        patience_s=settings.job_patience_s,
        timeout_s=settings.tile_timeout_s,
        max_px=settings.max_image_px,
        memory_px=settings.memory_px,
    )


def _task(job: SegmentJob, index: int) -> Task:
    # A new attempt may mean another model or server: its receipts must not be mistaken for ours.
    mark = hashlib.sha256(job.stem_key.encode()).hexdigest()[:8]
    return Task(
        id=f"image-{index:06d}-{mark}",
        entry_point=_ENTRY_POINT,
        payload=job.to_bytes(),
        resources=Resources(pool="cpu"),
        timeout_s=_TASK_TIMEOUT_S,
    )


def _result(image: SourceImage, stem: ResultStem, receipt: Receipt) -> pb.SegmentedImage:
    facts = receipt.facts
    size = facts["pixel_size_nm"]
    message = convert.segmented_image(
        convert.stored_image(image, facts["image_bytes"], ""),
        image.name,
        receipt.objects[0],
        f"{stem.shown}_labels.tif",
        particle_count=facts["particle_count"],
        size=PixelSize(*size) if size else None,
        content_height_px=facts["content_height_px"],
        inverted=facts["inverted"],
        page=image.page + 1 if image.pages > 1 else 0,
    )
    for kind, stored in zip(facts["kinds"][1:], receipt.objects[1:], strict=True):
        convert.add_file(message, kind, stored, f"{stem.shown}_{stored.key.rsplit('_', 1)[1]}")
    return message


def _model_input(store: ObjectStore, model: ResolvedModel) -> ManifestInput:
    if store.exists(f"{model.resource}/manifest.json"):
        return ManifestInput(
            model.resource, manifests.manifest_artifact(store, model.resource).digest
        )
    return ManifestInput(model.resource, model.digest)


def _check_count(count: int, field: str, most: int) -> None:
    if not 1 <= count <= most:
        text = f"has {count} images; give at least one and at most {most}"
        raise invalid_fields([FieldViolation(field, text)])


def _plan_key(target: str) -> str:
    return f"{target}/plan.json"
