# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the render service's messages and its domain."""

import base64
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from granulo.render.v1 import recipe_pb2, render_service_pb2
from granulo_core.errors import FieldViolation, GranuloError, invalid_fields
from granulo_core.rpc.artifacts import to_proto
from granulo_core.store.manifest import Manifest
from granulo_core.store.port import StoredObject
from granulo_render.domain.plan import RENDERER_VERSION, DatasetPlan, Shard
from granulo_render.domain.recipe import Recipe
from granulo_render.domain.recipe_check import MAX_SIZE_PX, MIN_SIZE_PX
from granulo_render.presets import Preset, presets
from granulo_render.recipe_file import from_mapping, to_mapping

if TYPE_CHECKING:  # servers start without the libraries of image analysis
    from granulo_render.domain.realism import Comparison, Curve

pb = render_service_pb2

MAX_PREVIEW_FRAMES = 4
MAX_PREVIEW_PX = 512
_PREVIEW_PX = 256
MAX_REFERENCES = 32
MAX_COMPARED_FRAMES = 16
MAX_COMPARED_PX = 1024
_COMPARED_FRAMES = 4
_COMPARED_PX = 512
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


def checked_recipe(request: pb.CheckRecipeRequest) -> Recipe:
    """Read a request to check a recipe; FIELD_INVALID names every offending field."""
    violations: list[FieldViolation] = []
    recipe = _source(request, "", violations)
    if recipe is None:
        raise invalid_fields(violations)
    return recipe


def comparison_plan(request: pb.CompareRecipeRequest) -> DatasetPlan:
    """Read a request for a comparison; FIELD_INVALID names every unusable field."""
    violations: list[FieldViolation] = []
    recipe = _source(request, "", violations)
    if not 1 <= len(request.references) <= MAX_REFERENCES:
        text = f"has {len(request.references)} images; give 1 to {MAX_REFERENCES}"
        violations.append(FieldViolation("references", text))
    for i, reference in enumerate(request.references):
        if not reference.uri:
            violations.append(FieldViolation(f"references[{i}].uri", "is empty; upload the image"))
    if not 0 <= request.frame_count <= MAX_COMPARED_FRAMES:
        text = f"is {request.frame_count}; ask for 1 to {MAX_COMPARED_FRAMES} frames"
        violations.append(FieldViolation("frame_count", text))
    violations += _size_violations(request.size_px, MAX_COMPARED_PX, "size_px")
    line = request.profile
    if any(not math.isfinite(x) for x in (line.x0_px, line.y0_px, line.x1_px, line.y1_px)):
        violations.append(FieldViolation("profile", "has an end that is no finite number"))
    elif request.HasField("profile") and (line.x0_px, line.y0_px) == (line.x1_px, line.y1_px):
        violations.append(FieldViolation("profile", "has two equal ends; give a line"))
    if violations or recipe is None:
        raise invalid_fields(violations)
    size_px = request.size_px or _COMPARED_PX
    return DatasetPlan(recipe, request.seed, request.frame_count or _COMPARED_FRAMES, size_px)


def recipe_message(recipe: Recipe) -> recipe_pb2.Recipe:
    """Message of a recipe, every default written out."""
    return ParseDict(to_mapping(recipe), recipe_pb2.Recipe())


def dataset_name(name: str) -> str:
    """Check a dataset's resource name; FIELD_INVALID when it is none."""
    if not _NAME.match(name):
        raise invalid_fields([FieldViolation("name", f"{name!r} is no name like datasets/<id>")])
    return name


def identity(plan: DatasetPlan, device: str) -> str:
    """Canonical text of everything on which a dataset's content depends."""
    content = {"renderer": RENDERER_VERSION, "device": device, **plan_mapping(plan)}
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def plan_mapping(plan: DatasetPlan) -> dict[str, Any]:
    """Plain values of a plan, for payloads and ids."""
    return {
        "recipe": to_mapping(plan.recipe),
        "seed": plan.seed,
        "image_count": plan.image_count,
        "size_px": plan.size_px,
    }


@dataclass(frozen=True)
class ShardJob:
    """What a worker is told about a shard."""

    plan: DatasetPlan
    dataset: str
    """Resource name; empty where nothing is stored."""
    shard: Shard
    device: str
    """Where Blender renders, a value of the setting ``render_device``."""

    def to_bytes(self) -> bytes:
        """Payload of `granulo_render.tasks`."""
        content = {"plan": plan_mapping(self.plan), "dataset": self.dataset}
        content |= {"shard": vars(self.shard), "device": self.device}
        return json.dumps(content, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, payload: bytes) -> "ShardJob":
        """Read what `to_bytes` wrote."""
        content = json.loads(payload)
        plan = content["plan"]
        recipe = from_mapping(plan["recipe"])
        return cls(
            DatasetPlan(recipe, plan["seed"], plan["image_count"], plan["size_px"]),
            content["dataset"],
            Shard(**content["shard"]),
            content["device"],
        )


def frames_payload(
    plan: DatasetPlan,
    frames: Sequence[pb.PreviewRecipeResponse],
    request: pb.CompareRecipeRequest | None = None,
) -> bytes:
    """Payload of a task that works on rendered frames, and perhaps on a request's references."""
    packed = [base64.b64encode(frame.SerializeToString()).decode() for frame in frames]
    asked = base64.b64encode(request.SerializeToString()).decode() if request else ""
    label = plan.recipe.label or "recipe"
    return json.dumps({"label": label, "frames": packed, "request": asked}).encode()


def read_frames(
    payload: bytes,
) -> tuple[str, list[pb.PreviewRecipeResponse], pb.CompareRecipeRequest]:
    """Read what `frames_payload` wrote: the recipe's label, the frames and the request."""
    content = json.loads(payload)
    frames = [
        pb.PreviewRecipeResponse.FromString(base64.b64decode(frame)) for frame in content["frames"]
    ]
    request = pb.CompareRecipeRequest.FromString(base64.b64decode(content["request"]))
    return content["label"], frames, request


def comparison_message(found: "Comparison", sheet_png: bytes) -> pb.RecipeComparison:
    """Message of a comparison."""
    return pb.RecipeComparison(
        sheet_png=sheet_png,
        grey_level_distance=found.grey_level_distance,
        spectrum_distance_db=found.spectrum_distance_db,
        feature_distance_ratio=found.feature_distance_ratio,
        feature_distance=found.feature_distance,
        profiles=map(_curve, found.profiles),
        grey_levels=map(_curve, found.grey_levels),
        spectra=map(_curve, found.spectra),
    )


def _curve(curve: "Curve") -> pb.RecipeComparison.Curve:
    return pb.RecipeComparison.Curve(label=curve.label, x=curve.x.tolist(), y=curve.y.tolist())


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
    return pb.Preset(
        id=found.id, description=found.description, recipe=recipe_message(found.recipe)
    )


def _below(manifest: Manifest, folder: str) -> Sequence[StoredObject]:
    prefix = f"{manifest.resource}/{folder}/"
    return [item for item in manifest.objects if item.key.startswith(prefix)]


def _source(
    message: pb.Dataset | pb.PreviewRecipeRequest | pb.CheckRecipeRequest | pb.CompareRecipeRequest,
    path: str,
    violations: list[FieldViolation],
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
