# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the messages of comparisons of image sets and the domain."""

import math
import re
from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo_analyzer import convert
from granulo_analyzer.domain.realism.embedding import PERPLEXITY
from granulo_analyzer.domain.realism.jobs import ComparisonSettings, ImageOfSet, SetName
from granulo_analyzer.domain.realism.patches import FEWEST_PATCHES
from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.imaging.patch_texture import PATCH_PX
from granulo_core.imaging.profiles import Line
from granulo_core.rpc.artifacts import to_proto
from granulo_core.store.manifest import Manifest
from granulo_core.store.port import StoredObject

_NAME = re.compile(r"comparisons/[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LEAST_PATCH_PX = 24
_MAX_PATCHES = 1000
_MOST_PATCHES = 10_000
_VGG16 = pb.CompareImageSetsRequest.FEATURES_VGG16


def comparison_name(name: str) -> str:
    """Return ``name`` where it is one of a comparison, or raise FIELD_INVALID."""
    if not _NAME.fullmatch(name):
        text = f"{name!r} is no name of a comparison; it has the form comparisons/<id>"
        raise invalid_fields([FieldViolation("name", text)])
    return name


def images(request: pb.CompareImageSetsRequest, max_images: int) -> list[ImageOfSet]:
    """The images of both sets, the real ones first; FIELD_INVALID for none or too many."""
    found = []
    sets: tuple[SetName, ...] = ("real", "synthetic")
    for name in sets:
        artifacts = getattr(request, name)
        convert.check_count(len(artifacts), name, max_images)
        found += [
            ImageOfSet(name, number, convert.stored_file(artifact))
            for number, artifact in enumerate(artifacts, start=1)
        ]
    return found


def settings(request: pb.CompareImageSetsRequest) -> ComparisonSettings:
    """How sets are compared, with every default written out.

    Raises
    ------
    GranuloError
        FIELD_INVALID that names every unusable field.
    """
    patch_px = request.patch_px or PATCH_PX
    max_patches = request.max_patches or _MAX_PATCHES
    perplexity = request.perplexity or PERPLEXITY
    checks = {
        "patch_px": (patch_px >= _LEAST_PATCH_PX, f"{_LEAST_PATCH_PX} px or more"),
        "max_patches": (
            FEWEST_PATCHES <= max_patches <= _MOST_PATCHES,
            f"{FEWEST_PATCHES} to {_MOST_PATCHES} patches",
        ),
        "perplexity": (1 <= perplexity < math.inf, "a number of 1 or more"),
        "seed": (request.seed >= 0, "0 or more"),
    }
    violations = [
        FieldViolation(name, f"is {getattr(request, name)}; give {wanted}, or leave it out")
        for name, (is_right, wanted) in checks.items()
        if not is_right
    ]
    violations += _unusable_features(request) + _unusable_profile(request)
    if violations:
        raise invalid_fields(violations)
    has_weights = request.features == _VGG16
    return ComparisonSettings(
        patch_px=patch_px,
        max_patches=max_patches,
        perplexity=perplexity,
        seed=request.seed,
        vgg16_weights=convert.stored_file(request.vgg16_weights) if has_weights else None,
        line=_line(request.profile) if request.HasField("profile") else None,
        line_width_px=request.profile.width_px or 1.0,
    )


def request_json(request: pb.CompareImageSetsRequest) -> dict[str, Any]:
    """The whole request as plain values for the manifest."""
    values: dict[str, Any] = MessageToDict(request, preserving_proto_field_name=True)
    return values


def comparison(manifest: Manifest, stored: StoredObject) -> pb.ImageSetComparison:
    """Message of a finished comparison."""
    created = Timestamp()
    created.FromJsonString(manifest.create_time)
    facts = manifest.facts
    message = pb.ImageSetComparison(
        name=manifest.resource,
        figures=[_figure(item) for item in facts["figures"]],
        features=facts["features"],
        real_patches=facts["real_patches"],
        synthetic_patches=facts["synthetic_patches"],
        principal_components=facts["principal_components"],
        perplexity=facts["perplexity"],
        warnings=facts["warnings"],
        picture=to_proto(manifest.object("embedding.png"), "embedding.png"),
        embedding=to_proto(manifest.object("embedding.csv"), "embedding.csv"),
        manifest=to_proto(stored, "manifest.json"),
        create_time=created,
    )
    if "profile" in manifest.request:
        message.profile.CopyFrom(to_proto(manifest.object("profile.png"), "profile.png"))
    return message


def _figure(item: Mapping[str, Any]) -> pb.Figure:
    bounds = {
        name: math.nan if item[name] is None else item[name] for name in ("value", "lower", "upper")
    }
    return pb.Figure(name=item["name"], unit=item["unit"], **bounds)


def _unusable_features(request: pb.CompareImageSetsRequest) -> list[FieldViolation]:
    known = pb.CompareImageSetsRequest.Features.values()
    if request.features not in known:
        return [FieldViolation("features", "is none of the features that this server knows")]
    has_weights = bool(request.vgg16_weights.uri)
    if request.features == _VGG16 and not has_weights:
        text = "is required with FEATURES_VGG16: give Keras' ImageNet weights of VGG16"
        return [FieldViolation("vgg16_weights", text)]
    if has_weights and request.features != _VGG16:
        text = "belongs to FEATURES_VGG16; ask for these features, or leave the weights out"
        return [FieldViolation("vgg16_weights", text)]
    return []


def _unusable_profile(request: pb.CompareImageSetsRequest) -> list[FieldViolation]:
    if not request.HasField("profile"):
        return []
    width = request.profile.width_px
    if not all(map(math.isfinite, (*_line(request.profile), width))) or width < 0:
        return [FieldViolation("profile", "needs finite ends and a width of 0 px or more")]
    return []


def _line(profile: pb.IntensityProfile) -> Line:
    return profile.x0_px, profile.y0_px, profile.x1_px, profile.y1_px
