# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans, runs and commits the making of a dataset."""

from collections.abc import Iterator

from granulo.render.v1 import render_service_pb2 as pb
from granulo.type.v1.progress_pb2 import Progress
from granulo_core.engine.port import Engine, Resources, Task, TaskOutcome
from granulo_core.errors import GranuloError, Reason
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.runner import OperationContext, Workflow
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore
from granulo_render import convert
from granulo_render.convert import frames_payload
from granulo_render.domain.plan import DatasetPlan, Shard, plan_shards
from granulo_render.domain.recipe import Recipe
from granulo_render.meshes import load_meshes
from granulo_render.settings import RenderSettings

KIND = "CreateDataset"
_RENDER_SHARD = "granulo_render.tasks:render_shard"
_PREVIEW_FRAME = "granulo_render.tasks:preview_frame"
_PREVIEW_SHEET = "granulo_render.tasks:preview_sheet"
_COMPARE_FRAMES = "granulo_render.tasks:compare_frames"
_START_S = 120.0  # Blender's import, on a busy machine
_KERNELS_S = 900.0  # a GPU's driver may have to compile Blender's kernels: docs/performance.md
_SCENE_S = 120.0  # a 512 px scene takes 1 to 2 s; this is for one that hangs
_POLL_S = 0.25


def create_dataset(settings: RenderSettings) -> Workflow:
    """The durable operation that renders a dataset."""

    def run(context: OperationContext) -> pb.Dataset:
        request = context.request
        assert isinstance(request, pb.CreateDatasetRequest)  # the runner checks the type
        if not _exists(context.store, context.target):
            plan = convert.dataset_plan(request, settings.max_images)
            _make(context, request, plan, settings.render_device)
        return get_dataset(context.store, context.target)

    return Workflow(
        kind=KIND,
        request_type=pb.CreateDatasetRequest,
        metadata_type=pb.CreateDatasetMetadata,
        run=run,
    )


def target_of(
    store: ObjectStore, request: pb.CreateDatasetRequest, plan: DatasetPlan, device: str
) -> str:
    """Name of the dataset that this request makes.

    Raises
    ------
    GranuloError
        RESOURCE_EXISTS when the wanted id belongs to a dataset of other content.
    """
    content = manifests.content_id("ds", convert.identity(plan, device))
    name = f"datasets/{request.dataset_id or content}"
    if _exists(store, name) and manifests.load(store, name).facts.get("content_id") != content:
        raise GranuloError(
            Reason.RESOURCE_EXISTS,
            f"{name} exists and was rendered from another recipe, seed, count or size. Choose "
            "another dataset_id, or leave it out.",
            metadata={"name": name},
        )
    return name


def get_dataset(store: ObjectStore, name: str, *, listed: bool = False) -> pb.Dataset:
    """A dataset that exists; RESOURCE_NOT_FOUND for others."""
    manifest = manifests.load(store, name)
    return convert.dataset(manifest, manifests.manifest_artifact(store, name), listed=listed)


def check_recipe(store: ObjectStore, recipe: Recipe, prefix: str) -> None:
    """Refuse, before any work, a recipe whose meshes cannot be rendered."""
    load_meshes(store, recipe, prefix)


def preview(
    engine: Engine, store: ObjectStore, plan: DatasetPlan, device: str, *, sheet: bool
) -> Iterator[pb.PreviewRecipeResponse | None]:
    """Render frames in workers and give them in order, then perhaps their contact sheet.

    Yields ``None`` while there is nothing yet, so that the caller can see whether anybody waits.
    """
    frames = []
    for frame in _frames(engine, store, plan, device):
        if frame is not None:
            frames.append(frame)
        yield frame
    if sheet:
        payload = frames_payload(plan, frames)
        for result in _one_task(engine, store, _PREVIEW_SHEET, payload):
            yield pb.PreviewRecipeResponse(sheet_png=result) if result is not None else None


def compare(
    engine: Engine, store: ObjectStore, request: pb.CompareRecipeRequest, device: str
) -> Iterator[pb.CompareRecipeResponse]:
    """Render frames and compare them with the references; ends with the comparison."""
    plan = convert.comparison_plan(request)
    progress = Progress(state=Progress.STATE_RUNNING, unit="frame", units_total=plan.image_count)
    frames = []
    for frame in _frames(engine, store, plan, device):
        if frame is not None:
            frames.append(frame)
        progress.units_done = len(frames)
        yield pb.CompareRecipeResponse(progress=progress)
    progress.message = f"comparing with {len(request.references)} references"
    payload = frames_payload(plan, frames, request)
    for result in _one_task(engine, store, _COMPARE_FRAMES, payload):
        response = pb.CompareRecipeResponse(progress=progress)
        if result is not None:
            response.comparison.ParseFromString(result)
            response.progress.state = Progress.STATE_SUCCEEDED
        yield response


def _frames(
    engine: Engine, store: ObjectStore, plan: DatasetPlan, device: str
) -> Iterator[pb.PreviewRecipeResponse | None]:
    """Rendered frames in their order; ``None`` while there is nothing new."""
    tasks = [
        Task(
            id=f"frame-{index}",
            entry_point=_PREVIEW_FRAME,
            payload=convert.ShardJob(plan, "", Shard(index, 1), device).to_bytes(),
            resources=Resources(cpu=1, pool="render"),
            timeout_s=_start_s(device) + _SCENE_S,
        )
        for index in range(plan.image_count)
    ]
    waiting = [task.id for task in tasks]
    frames: dict[str, bytes] = {}
    group = engine.submit(tasks, store.url)
    try:
        for outcome in group.as_completed(_POLL_S):
            if outcome is None:
                yield None
                continue
            frames[outcome.task_id] = _result(outcome)
            while waiting and waiting[0] in frames:
                yield pb.PreviewRecipeResponse.FromString(frames.pop(waiting.pop(0)))
    finally:
        group.cancel()


def _one_task(
    engine: Engine, store: ObjectStore, entry_point: str, payload: bytes
) -> Iterator[bytes | None]:
    """Result of a task outside of any operation, after ``None`` as often as it makes us wait."""
    task = Task("only", entry_point, payload, timeout_s=_START_S)
    group = engine.submit([task], store.url)
    try:
        for outcome in group.as_completed(_POLL_S):
            yield _result(outcome) if outcome is not None else None
    finally:
        group.cancel()


def _result(outcome: TaskOutcome) -> bytes:
    if outcome.error is not None:
        raise outcome.error
    return outcome.receipt or b""


def _exists(store: ObjectStore, name: str) -> bool:
    return store.exists(f"{name}/manifest.json")


def _make(
    context: OperationContext, request: pb.CreateDatasetRequest, plan: DatasetPlan, device: str
) -> None:
    shards = {f"scenes-{shard.first:06d}": shard for shard in plan_shards(plan.image_count)}
    tasks = [
        _task(key, convert.ShardJob(plan, context.target, shard, device))
        for key, shard in shards.items()
    ]
    done = context.run_tasks(tasks, unit="scene", units_of=lambda task: shards[task.id].count)
    receipts = [Receipt.from_bytes(done[key]) for key in shards]
    context.check_cancelled()
    manifests.commit(
        context.store,
        context.target,
        manifests.Manifest(
            resource=context.target,
            kind="Dataset",
            objects=tuple(item for receipt in receipts for item in receipt.objects),
            inputs=(),
            producer=manifests.producer("render", plan.seed),
            request=convert.request_json(request),
            facts={
                "content_id": manifests.content_id("ds", convert.identity(plan, device)),
                "recipe": convert.plan_mapping(plan)["recipe"],
                "size_px": plan.size_px,
                "particle_count": sum(receipt.facts["particle_count"] for receipt in receipts),
                "unplaced": sum(receipt.facts["unplaced"] for receipt in receipts),
            },
        ),
    )


def _task(key: str, job: convert.ShardJob) -> Task:
    size_factor = max(1.0, (job.plan.size_px / 512) ** 2)
    return Task(
        id=key,
        entry_point=_RENDER_SHARD,
        payload=job.to_bytes(),
        resources=Resources(cpu=1, pool="render"),
        timeout_s=_start_s(job.device) + _SCENE_S * size_factor * job.shard.count,
    )


def _start_s(device: str) -> float:
    """Longest time until a worker can render its first scene on a device.

    A compilation that is stopped begins again with the next task: a limit that is too short for it
    would stop every task.
    """
    return _START_S if device == "cpu" else _START_S + _KERNELS_S
