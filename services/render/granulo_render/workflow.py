# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans, runs and commits the making of a dataset."""

from collections.abc import Iterator

from granulo.render.v1 import render_service_pb2 as pb
from granulo_core.engine.port import Engine, Resources, Task
from granulo_core.errors import GranuloError, Reason
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.runner import OperationContext, Workflow
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore
from granulo_render import convert
from granulo_render.domain.job import DatasetPlan, Shard, plan_shards
from granulo_render.settings import RenderSettings

KIND = "CreateDataset"
_RENDER_SHARD = "granulo_render.tasks:render_shard"
_PREVIEW_FRAME = "granulo_render.tasks:preview_frame"
_START_S = 120.0  # Blender's import, on a busy machine
_SCENE_S = 120.0  # a 512 px scene takes 1 to 2 s; this is for one that hangs
_POLL_S = 0.25


def create_dataset(settings: RenderSettings) -> Workflow:
    """The durable operation that renders a dataset."""

    def run(context: OperationContext) -> pb.Dataset:
        request = context.request
        assert isinstance(request, pb.CreateDatasetRequest)  # the runner checks the type
        if not _exists(context.store, context.target):
            _make(context, request, convert.dataset_plan(request, settings.max_images))
        return get_dataset(context.store, context.target)

    return Workflow(
        kind=KIND,
        request_type=pb.CreateDatasetRequest,
        metadata_type=pb.CreateDatasetMetadata,
        run=run,
    )


def target_of(store: ObjectStore, request: pb.CreateDatasetRequest, plan: DatasetPlan) -> str:
    """Name of the dataset that this request makes.

    Raises
    ------
    GranuloError
        RESOURCE_EXISTS when the wanted id belongs to a dataset of other content.
    """
    content = manifests.content_id("ds", convert.identity(plan))
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


def preview(
    engine: Engine, store: ObjectStore, plan: DatasetPlan
) -> Iterator[pb.PreviewRecipeResponse | None]:
    """Render frames in workers and give them in order; ``None`` while there is nothing yet."""
    tasks = [
        Task(
            id=f"frame-{index}",
            entry_point=_PREVIEW_FRAME,
            payload=convert.shard_payload(plan, "", Shard(index, 1)),
            resources=Resources(cpu=1, pool="render"),
            timeout_s=_START_S + _SCENE_S,
        )
        for index in range(plan.image_count)
    ]
    frames: dict[str, bytes] = {}
    waiting = [task.id for task in tasks]
    group = engine.submit(tasks, store.url)
    try:
        for outcome in group.as_completed(_POLL_S):
            if outcome is None:
                yield None
                continue
            if outcome.error is not None:
                raise outcome.error
            frames[outcome.task_id] = outcome.receipt or b""
            while waiting and waiting[0] in frames:
                yield pb.PreviewRecipeResponse.FromString(frames.pop(waiting.pop(0)))
    finally:
        group.cancel()


def _exists(store: ObjectStore, name: str) -> bool:
    return store.exists(f"{name}/manifest.json")


def _make(context: OperationContext, request: pb.CreateDatasetRequest, plan: DatasetPlan) -> None:
    shards = {f"scenes-{shard.first:06d}": shard for shard in plan_shards(plan.image_count)}
    tasks = [_task(key, plan, context.target, shard) for key, shard in shards.items()]
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
                "content_id": manifests.content_id("ds", convert.identity(plan)),
                "recipe": convert.plan_mapping(plan)["recipe"],
                "size_px": plan.size_px,
                "particle_count": sum(receipt.facts["particle_count"] for receipt in receipts),
                "unplaced": sum(receipt.facts["unplaced"] for receipt in receipts),
            },
        ),
    )


def _task(key: str, plan: DatasetPlan, dataset: str, shard: Shard) -> Task:
    size_factor = max(1.0, (plan.size_px / 512) ** 2)
    return Task(
        id=key,
        entry_point=_RENDER_SHARD,
        payload=convert.shard_payload(plan, dataset, shard),
        resources=Resources(cpu=1, pool="render"),
        timeout_s=_START_S + _SCENE_S * size_factor * shard.count,
    )
