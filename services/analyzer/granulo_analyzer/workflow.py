# SPDX-License-Identifier: GPL-3.0-or-later
"""CreateAnalysis: plan the tasks, gather their receipts, commit the manifest last."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo_analyzer import convert, convert_statistics, inputs
from granulo_analyzer.domain.jobs import MeasuredFile, MeasureJob, ReportJob, StoredFile
from granulo_analyzer.domain.settings import AnalysisSettings
from granulo_analyzer.settings import AnalyzerSettings
from granulo_core.engine.port import Resources, Task
from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.imaging.reading.isolated import Read
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.runner import OperationContext, Workflow
from granulo_core.store import manifest as manifests
from granulo_core.store.manifest import ManifestInput
from granulo_core.store.port import ObjectStore

KIND = "CreateAnalysis"
COLLECTION = "analyses"
_TIMEOUT_S = 3600.0
_FILES = "v2"
"""Goes up with what the tasks write."""


@dataclass(frozen=True)
class Plan:
    """What an analysis is made of."""

    target: str
    """``analyses/<id>``; the id follows from the content of the inputs."""
    jobs: tuple[MeasureJob, ...]
    settings: AnalysisSettings
    lineage: tuple[tuple[str, str, str], ...]
    """Role, name and digest."""
    inputs: tuple[ManifestInput, ...]


def plan(store: ObjectStore, request: pb.CreateAnalysisRequest, settings: AnalyzerSettings) -> Plan:
    """Resolve a request: which images, from where, under which name.

    Raises
    ------
    GranuloError
        FIELD_INVALID for a request that names nothing to analyse or files that are not there,
        RESOURCE_NOT_FOUND for a segmentation that does not exist.
    """
    source = request.analysis.WhichOneof("source")
    found = convert.settings(request)
    if source == "segmentation":
        return _plan_segmentation(store, request.analysis.segmentation, found, settings)
    if source == "label_set":
        return _plan_label_set(store, request.analysis.label_set, found, settings)
    text = "is required: give a segmentation or a label_set"
    raise invalid_fields([FieldViolation("analysis.source", text)])


def check_files(
    store: ObjectStore, request: pb.CreateAnalysisRequest, plan: Plan, read: Read
) -> None:
    """Read uploaded files once before any work, so that a bad one is refused at once.

    Parameters
    ----------
    store : ObjectStore
    request : CreateAnalysisRequest
    plan : Plan
    read : Read
        How they are read.

    Raises
    ------
    GranuloError
        What is wrong with a file, with its field in the request.
    """
    sizes = [job.pixel_size_nm for job in plan.jobs]
    if request.analysis.WhichOneof("source") == "label_set":
        sizes = [inputs.load(store, job, read).pixel_size_nm for job in plan.jobs]
    convert_statistics.check_units(plan.settings, all(sizes), "analysis.settings")


def create_analysis(settings: AnalyzerSettings) -> Workflow:
    """The durable operation that measures the images of a set and reports on them."""

    def run(context: OperationContext) -> pb.Analysis:
        request = context.request
        assert isinstance(request, pb.CreateAnalysisRequest)  # the runner checks the type
        if not context.store.exists(f"{context.target}/manifest.json"):
            _make(context, request, plan(context.store, request, settings))
        return get_analysis(context.store, context.target)

    return Workflow(
        kind=KIND,
        request_type=pb.CreateAnalysisRequest,
        metadata_type=pb.CreateAnalysisMetadata,
        run=run,
    )


def get_analysis(store: ObjectStore, name: str) -> pb.Analysis:
    """A finished analysis; RESOURCE_NOT_FOUND while there is none."""
    return convert.analysis(manifests.load(store, name), manifests.manifest_artifact(store, name))


def _plan_segmentation(
    store: ObjectStore, name: str, found: AnalysisSettings, settings: AnalyzerSettings
) -> Plan:
    manifest = manifests.load(store, convert.segmentation_name(name))
    digest = manifests.manifest_artifact(store, name).digest
    results = convert.segmented_images(manifest)
    jobs = convert.segmentation_jobs(results, settings.max_images, settings.max_image_px)
    lineage = [("segmentation", name, digest)]
    if model := manifest.facts.get("resolved_model_version"):
        known = {item.name: item.digest for item in manifest.inputs}
        lineage.append(("model", str(model), known.get(str(model), "")))
    return _plan(jobs, found, [digest], lineage, (ManifestInput(name, digest),))


def _plan_label_set(
    store: ObjectStore, label_set: pb.LabelSet, found: AnalysisSettings, settings: AnalyzerSettings
) -> Plan:
    jobs = [
        replace(
            job,
            labels=inputs.located(store, job.labels, f"{job.field}.labels"),
            image=_located_given(store, job.image, f"{job.field}.image"),
            particles=_located_given(store, job.particles, f"{job.field}.particles"),
            amodal=_located_given(store, job.amodal, f"{job.field}.amodal"),
        )
        for job in convert.label_set_jobs(label_set, settings.max_images, settings.max_image_px)
    ]
    lineage = []
    for job in jobs:
        lineage.append(("labels", job.labels.name, job.labels.digest))
        for role, file in (
            ("micrograph", job.image),
            ("particle table", job.particles),
            ("whole particles", job.amodal),
        ):
            if file:
                lineage.append((role, file.name, file.digest))
    files = [file for job in jobs for file in job.files]
    made_from = tuple(ManifestInput(file.key, file.digest) for file in files)
    return _plan(jobs, found, [], lineage, made_from)


def _plan(
    jobs: Sequence[MeasureJob],
    found: AnalysisSettings,
    parts: Sequence[str],
    lineage: Sequence[tuple[str, str, str]],
    made_from: tuple[ManifestInput, ...],
) -> Plan:
    lacking = [job.name for job in jobs if job.particles is None]
    if found.min_confidence > 0 and lacking:
        text = f"needs the particle table of {lacking[0]}, which tells confidences; leave it out"
        raise invalid_fields([FieldViolation("analysis.settings.min_confidence", text)])
    target = f"{COLLECTION}/{manifests.content_id('an', *parts, *convert.identity(jobs, found))}"
    counting: dict[str, Any] = {"rule": found.rule.name, "min_confidence": found.min_confidence}
    named = tuple(replace(job, analysis=target, **counting) for job in jobs)
    return Plan(target, named, found, tuple(lineage), made_from)


def _located_given(store: ObjectStore, file: StoredFile | None, field: str) -> StoredFile | None:
    return inputs.located(store, file, field) if file else None


def _make(context: OperationContext, request: pb.CreateAnalysisRequest, plan: Plan) -> None:
    # Receipts of an earlier attempt count by task id: another target is other work, and so are
    # the files of another version of this service.
    mark = f"{_FILES}-{plan.target.rpartition('-')[2]}"
    measuring = [
        Task(
            id=f"measure-{job.number:06d}-{mark}",
            entry_point="granulo_analyzer.tasks:measure_image",
            payload=job.to_bytes(),
            resources=Resources(pool="cpu"),
            timeout_s=_TIMEOUT_S,
        )
        for job in plan.jobs
    ]
    receipts = context.run_tasks(measuring, unit="image")
    measured = [Receipt.from_bytes(receipts[task.id]) for task in measuring]
    context.progress(message="writing the report")
    producer = manifests.producer("analyzer", 0)
    report = Task(
        id=f"report-{mark}",
        entry_point="granulo_analyzer.tasks:write_report",
        payload=ReportJob(
            analysis=plan.target,
            created=manifests.now_rfc3339(),
            images=tuple(map(_measured, plan.jobs, measured)),
            settings=plan.settings,
            lineage=plan.lineage,
            producer={
                "version": producer.version,
                "git_revision": producer.git_revision,
                "packages": dict(producer.packages),
            },
        ).to_bytes(),
        resources=Resources(pool="cpu"),
        timeout_s=_TIMEOUT_S,
    )
    written = Receipt.from_bytes(context.run_tasks([report], unit="report")[report.id])
    context.check_cancelled()
    manifests.commit(
        context.store,
        plan.target,
        manifests.Manifest(
            resource=plan.target,
            kind="Analysis",
            objects=(*written.objects, *(item for one in measured for item in one.objects)),
            inputs=plan.inputs,
            producer=producer,
            request=convert.request_json(request),
            facts={**written.facts, "images": len(plan.jobs)},
        ),
    )


def _measured(job: MeasureJob, receipt: Receipt) -> MeasuredFile:
    table, overlay, _, masks = receipt.objects
    facts = receipt.facts
    size = facts["pixel_size_nm"]
    return MeasuredFile(
        name=job.name,
        width_px=facts["width_px"],
        height_px=facts["height_px"],
        pixel_size_nm=(size[0], size[1]) if size else None,
        table=StoredFile(table.key, table.digest, ""),
        overlay=StoredFile(overlay.key, overlay.digest, ""),
        masks=StoredFile(masks.key, masks.digest, ""),
    )
