# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the render service's messages and its domain."""

import json
import re
from collections.abc import Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from granulo.render.v1 import recipe_pb2, render_service_pb2
from granulo_core.errors import FieldViolation, GranuloError, invalid_fields
from granulo_core.rpc.artifacts import to_proto
from granulo_core.store.manifest import Manifest
from granulo_core.store.port import StoredObject
from granulo_render.domain.job import RENDERER_VERSION, DatasetPlan, Shard
from granulo_render.domain.recipe import Recipe
from granulo_render.domain.recipe_check import MAX_SIZE_PX, MIN_SIZE_PX
from granulo_render.presets import Preset, presets
from granulo_render.recipe_file import from_mapping, to_mapping

pb = render_service_pb2

MAX_PREVIEW_FRAMES = 4
MAX_PREVIEW_PX = 512
_PREVIEW_PX = 256
# Larger datasets would not fit into one message: their manifest lists the images.
_MAX_LISTED_IMAGES = 10_000
_NAME = re.compile(r"^datasets/([a-z0-9][a-z0-9._-]{0,62})$")


def dataset_plan(request: pb.CreateDatasetRequest, max_images: int) -> DatasetPlan:
    """Read a request.

    Raises
    ------
    GranuloError
        FIELD_INVALID naming every unusable field.
    """
    dataset = request.dataset
    violations: list[FieldViolation] = []
    recipe = _source(dataset, "dataset", violations)
    if not 1 <= dataset.image_count <= max_images:
        violations.append(
            FieldViolation(
                "dataset.image_count", f"is {dataset.image_count}; ask for 1 to {max_images} images"
            )
        )
    violations += _size_violations(dataset.size_px, MAX_SIZE_PX, "dataset.size_px")
    if request.dataset_id and not _NAME.match(f"datasets/{request.dataset_id}"):
        violations.append(
            FieldViolation(
                "dataset_id",
                f"{request.dataset_id!r} is no id; use 1 to 63 lower-case letters, digits, '.', "
                "'-' and '_', a letter or digit first",
            )
        )
    if violations or recipe is None:
        raise invalid_fields(violations)
    size_px = dataset.size_px or recipe.imaging.size_px
    return DatasetPlan(recipe, dataset.seed, dataset.image_count, size_px)


def preview_plan(request: pb.PreviewRecipeRequest) -> DatasetPlan:
    """Read a request for a preview; FIELD_INVALID names every unusable field."""
    violations: list[FieldViolation] = []
    recipe = _source(request, "", violations)
    if not 0 <= request.frame_count <= MAX_PREVIEW_FRAMES:
        text = f"is {request.frame_count}; ask for 1 to {MAX_PREVIEW_FRAMES} frames"
        violations.append(FieldViolation("frame_count", text))
    violations += _size_violations(request.size_px, MAX_PREVIEW_PX, "size_px")
    if violations or recipe is None:
        raise invalid_fields(violations)
    size_px = request.size_px or _PREVIEW_PX
    return DatasetPlan(recipe, request.seed, request.frame_count or 1, size_px)


def dataset_name(name: str) -> str:
    """Check a dataset's resource name; FIELD_INVALID when it is none."""
    if not _NAME.match(name):
        raise invalid_fields([FieldViolation("name", f"{name!r} is no name like datasets/<id>")])
    return name


def identity(plan: DatasetPlan) -> str:
    """Canonical text of everything on which a dataset's content depends."""
    content = {"renderer": RENDERER_VERSION, **plan_mapping(plan)}
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def plan_mapping(plan: DatasetPlan) -> dict[str, Any]:
    """Plain values of a plan, for payloads and ids."""
    return {
        "recipe": to_mapping(plan.recipe),
        "seed": plan.seed,
        "image_count": plan.image_count,
        "size_px": plan.size_px,
    }


def shard_payload(plan: DatasetPlan, name: str, shard: Shard) -> bytes:
    """What the engine hands to `granulo_render.tasks`."""
    content = {"plan": plan_mapping(plan), "dataset": name, "first": shard.first}
    return json.dumps({**content, "count": shard.count}, sort_keys=True).encode()


def read_payload(payload: bytes) -> tuple[DatasetPlan, str, Shard]:
    """Read what `shard_payload` wrote."""
    content = json.loads(payload)
    plan = content["plan"]
    recipe = from_mapping(plan["recipe"])
    return (
        DatasetPlan(recipe, plan["seed"], plan["image_count"], plan["size_px"]),
        content["dataset"],
        Shard(content["first"], content["count"]),
    )


def request_json(request: pb.CreateDatasetRequest) -> dict[str, Any]:
    """The whole request as plain values for the manifest."""
    values: dict[str, Any] = MessageToDict(request, preserving_proto_field_name=True)
    return values


def dataset(manifest: Manifest, stored: StoredObject, *, listed: bool = False) -> pb.Dataset:
    """Message of a dataset; ``listed`` leaves its images out."""
    message = pb.Dataset()
    ParseDict(manifest.request["dataset"], message)
    message.name = manifest.resource
    message.state = pb.Dataset.STATE_ACTIVE
    message.size_px = int(manifest.facts["size_px"])
    message.particle_count = int(manifest.facts["particle_count"])
    message.manifest.CopyFrom(to_proto(stored))
    created = Timestamp()
    created.FromJsonString(manifest.create_time)
    message.create_time.CopyFrom(created)
    if not listed and message.image_count <= _MAX_LISTED_IMAGES:
        message.images.extend(map(to_proto, _below(manifest, "images")))
        message.labels.extend(map(to_proto, _below(manifest, "labels")))
    return message


def preset(found: Preset) -> pb.Preset:
    """Message of a preset."""
    recipe = ParseDict(to_mapping(found.recipe), recipe_pb2.Recipe())
    return pb.Preset(id=found.id, description=found.description, recipe=recipe)


def _below(manifest: Manifest, folder: str) -> Sequence[StoredObject]:
    prefix = f"{manifest.resource}/{folder}/"
    return [item for item in manifest.objects if item.key.startswith(prefix)]


def _source(
    message: pb.Dataset | pb.PreviewRecipeRequest, path: str, violations: list[FieldViolation]
) -> Recipe | None:
    prefix = f"{path}." if path else ""
    kind = message.WhichOneof("source")
    if kind == "preset":
        if message.preset in presets():
            return presets()[message.preset].recipe
        known = ", ".join(presets())
        text = f"{message.preset!r} is no preset; there are {known}, or give a recipe"
        violations.append(FieldViolation(f"{prefix}preset", text))
        return None
    if kind is None:
        text = f"is missing; give a preset ({', '.join(presets())}) or a recipe"
        violations.append(FieldViolation(f"{prefix}preset", text))
        return None
    content = MessageToDict(message.recipe, preserving_proto_field_name=True)
    try:
        return from_mapping(content, f"{prefix}recipe.")
    except GranuloError as error:
        violations += error.violations
        return None


def _size_violations(size_px: int, largest: int, field: str) -> list[FieldViolation]:
    if size_px == 0 or MIN_SIZE_PX <= size_px <= largest:
        return []
    text = f"is {size_px}; give {MIN_SIZE_PX} to {largest} px, or 0 for the default"
    return [FieldViolation(field, text)]
