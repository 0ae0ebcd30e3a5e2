# SPDX-License-Identifier: GPL-3.0-or-later
"""Every field of a recipe changes the layers or the image that it names, and nothing else."""

import copy
import hashlib
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
import pytest
import trimesh
from google.protobuf.descriptor import Descriptor

from granulo.render.v1 import recipe_pb2
from granulo_core.imaging.appearance import Layers, Look
from granulo_render.domain.compose import compose
from granulo_render.domain.delivery import deliver
from granulo_render.domain.recipe import APPEARANCE, Format
from granulo_render.domain.scene import Scene
from granulo_render.domain.shapes import UserGeometry
from granulo_render.domain.user_mesh import read_mesh
from granulo_render.recipe_file import from_mapping

SEED = 11
GEOMETRY = {"instances", "normals", "height_nm", "occlusion"}
MATERIAL = {"contrast", "image"}
EVERYTHING = GEOMETRY | {"contrast", "shaded", "labels", "image"}
BOX, BALL = "uploads/" + 64 * "0", "uploads/" + 64 * "1"

# Every effect is on, so that each of its parameters matters, and nothing is driven into black or
# white.
LOOK = {item.name: item.default for item in fields(Look) if item.name in APPEARANCE} | {
    "bright_fraction": 0.3,
    "height_gain": 0.2,
    "thickness_contrast": 0.2,
    "detector_strength": 0.2,
    "detector_azimuth_rad": 1.0,
    "surface_texture": 0.1,
    "shadow_strength": 0.4,
    "gradient_strength": 0.2,
    "gradient_azimuth_rad": 1.0,
    "ridge_strength": 0.5,
    "crack_strength": 0.5,
    "scratches": 40.0,
    "specks": 60.0,
    "curls": 40.0,
    "dirt_strength": 0.2,
    "dirt_coverage": 0.6,
    "dirt_smear_px": 8.0,
    "dirt_smear_azimuth_rad": 1.0,
    "halo_strength": 0.1,
    "streak_strength": 0.2,
    "bloom_strength": 0.2,
    "defocus_px_per_um": 20.0,
    "focus_height": 0.5,
    "scan_drift_px": 1.0,
    "scan_jitter_px": 0.5,
    "drift_strength": 0.1,
    "vignetting": 0.2,
    "dose": 300.0,
    "noise_correlation_px": 0.6,
    "line_noise": 0.02,
    "saturation": 0.9,
    "sharpening": 0.4,
    "contrast": 0.8,
    "gamma": 0.9,
    "data_bar": 0.2,
    "scale_bar": 1.0,
}
SHAPES: dict[str, dict[str, Any]] = {
    "sphere": {"roughness": 0.05},
    "ellipsoid": {"aspect_ratio": 1.5},
    "polyhedron": {
        "templates": 2,
        "families": ["half_spaces", "random_hull"],
        "faces": 10,
        "sharpness": 6,
        "bevel": 0.1,
        "aspect_ratio": 1.2,
        "roughness": 0.02,
    },
    "rod": {"aspect_ratio": 3, "end_rounding": 1},
    "wire": {"length_nm": 300, "bending_deg_per_um": 20},
    "platelet": {"thickness_ratio": 0.3, "corners": 6, "bevel": 0.3},
    "mesh": {"file": BOX, "format": "stl"},
}


def base(shape: str) -> dict[str, Any]:
    kinds = [
        {"label": "a", shape: SHAPES[shape], "diameter_nm": 70, "weight": 1, "brightness": 1.0},
        {"label": "b", "sphere": {}, "diameter_nm": 50, "weight": 1, "brightness": 1.0},
    ]
    kinds[0]["core"] = {"diameter_ratio": 0.6, "brightness": 1.5}
    return {
        "version": 1,
        "label": "base",
        "classes": kinds,
        "arrangement": {
            "count": 14,
            "patterns": {"agglomerates": 1},
            "cluster_size": 4,
            "stacking": 0.3,
            "overlap": 0.05,
            "lying": 1,
        },
        "imaging": {
            "pixel_size_nm": 4,
            "size_px": 96,
            "upsampling": 1,
            "tilt_deg": 0,
            "shading": "layers",
            "transparency": 0,
        },
        "appearance": dict(LOOK),
        "modality": "any",
    }


# Path of the field, another value, what must change, what may change besides, further changes to
# the base that give the field a meaning.
Case = tuple[str, Any, set[str], set[str], dict[str, Any]]
CASES: list[Case] = [
    ("label", "other", set(), set(), {}),
    ("classes.0.label", "other", set(), set(), {}),
    ("modality", "him", {"image"}, set(), {"appearance": {}}),
    ("classes.0.diameter_nm", 90, GEOMETRY, EVERYTHING, {}),
    ("classes.0.weight", 20, GEOMETRY, EVERYTHING, {}),
    ("classes.0.brightness", 1.6, MATERIAL, set(), {}),
    ("classes.0.core.brightness", 3, MATERIAL, set(), {}),
    ("classes.0.core.diameter_ratio", 0.8, MATERIAL, set(), {}),
    *[
        (f"classes.0.{shape}.{name}", value, {"normals"}, EVERYTHING, {})
        for shape, name, value in (
            ("sphere", "roughness", 0.15),
            ("ellipsoid", "aspect_ratio", 2.5),
            ("polyhedron", "templates", 1),
            ("polyhedron", "families", ["cube"]),
            ("polyhedron", "faces", 5),
            ("polyhedron", "sharpness", 20),
            ("polyhedron", "bevel", 0.4),
            ("polyhedron", "aspect_ratio", 2),
            ("polyhedron", "roughness", 0.1),
            ("rod", "aspect_ratio", 5),
            ("rod", "end_rounding", 0.2),
            ("wire", "length_nm", 500),
            ("wire", "bending_deg_per_um", 900),
            ("platelet", "thickness_ratio", 0.6),
            ("platelet", "corners", 3),
            ("platelet", "bevel", 0.9),
            ("mesh", "file", BALL),
        )
    ],
    ("arrangement.count", 30, GEOMETRY, EVERYTHING, {}),
    ("arrangement.coverage", 0.5, GEOMETRY, EVERYTHING, {"arrangement.count": None}),
    ("arrangement.density_per_um2", 200, GEOMETRY, EVERYTHING, {"arrangement.count": None}),
    ("arrangement.row_share", 1, GEOMETRY, EVERYTHING, {"arrangement.patterns": None}),
    ("arrangement.cluster_size", 9, GEOMETRY, EVERYTHING, {}),
    ("arrangement.stacking", 1, GEOMETRY, EVERYTHING, {}),
    ("arrangement.overlap", 0.4, GEOMETRY, EVERYTHING, {"arrangement.stacking": 0}),
    ("arrangement.lying", 0, GEOMETRY, EVERYTHING, {"shape": "rod"}),
    *[
        (f"arrangement.patterns.{name}", 1e6, GEOMETRY, EVERYTHING, {"arrangement.count": 30})
        for name in ("random", "chains", "rows", "rafts", "sheets")
    ],
    (
        "arrangement.patterns.agglomerates",
        1e6,
        GEOMETRY,
        EVERYTHING,
        {"arrangement.patterns": {"random": 1}},
    ),
    ("imaging.pixel_size_nm", 3, GEOMETRY, EVERYTHING, {}),
    (
        "imaging.field_of_view_nm",
        300,
        GEOMETRY,
        EVERYTHING,
        {"imaging.pixel_size_nm": None, "imaging.field_of_view_nm": 384},
    ),
    ("imaging.size_px", 64, GEOMETRY, EVERYTHING, {}),
    ("imaging.upsampling", 3, {"image"}, set(), {}),
    ("imaging.tilt_deg", 35, GEOMETRY, EVERYTHING, {}),
    ("imaging.shading", "cycles", {"shaded", "image"}, set(), {}),
    ("imaging.transparency", 0.6, {"shaded", "image"}, set(), {"imaging.shading": "cycles"}),
]


@cache
def _blender() -> ProcessPoolExecutor:
    """One worker with Blender, which never runs in the tests' own process."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(scope="module", autouse=True)
def _stop_blender() -> Iterator[None]:
    yield
    _blender().shutdown()


def _render(scene: Scene) -> Layers:
    from granulo_render.blender.layers import render_layers

    return render_layers(scene)


@cache
def geometry(document: str) -> tuple[Scene, Layers]:
    recipe = from_mapping(json.loads(document))
    scene = compose(recipe, SEED, 0, 0, _meshes())
    return scene, _blender().submit(_render, scene).result()


def products(content: dict[str, Any]) -> dict[str, str]:
    """Digests of everything that a recipe's first scene delivers."""
    recipe = from_mapping(content)
    looks = ("appearance", "modality")  # which the geometry does not know
    rest = {name: value for name, value in content.items() if name not in looks}
    scene, layers = geometry(json.dumps(rest, sort_keys=True))
    delivery = deliver(recipe, SEED, 0, scene, layers)
    found: dict[str, Any] = {name: getattr(layers, name) for name in (*GEOMETRY, "shaded")}
    found |= {"contrast": delivery.layers.contrast, "labels": delivery.truth.labels}
    found["image"] = delivery.micrograph
    return {name: _digest(value) for name, value in found.items()}


def _digest(array: Any) -> str:
    if array is None:
        return ""
    return f"{array.shape} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"


@cache
def _meshes() -> dict[str, UserGeometry]:
    solids = {
        BOX: trimesh.creation.box((3, 2, 1)),
        BALL: trimesh.creation.icosphere(subdivisions=2),
    }
    return {
        name: read_mesh(solid.export(file_type="stl"), Format.STL) for name, solid in solids.items()
    }


def _put(content: dict[str, Any], path: str, value: Any) -> None:
    """Set a field by its path; None takes it away."""
    *parts, last = path.split(".")
    target: Any = content
    for part in parts:
        target = target[int(part)] if part.isdigit() else target.setdefault(part, {})
    if value is None:
        target.pop(last)
    else:
        target[last] = value


def _shape_of(path: str, context: dict[str, Any]) -> str:
    named = [part for part in path.split(".") if part in SHAPES]
    return context.get("shape", named[0] if named else "sphere")


@pytest.mark.parametrize(
    ("path", "value", "must", "may", "context"), CASES, ids=[f"{c[0]}={c[1]}"[:50] for c in CASES]
)
def test_a_field_changes_what_it_names_and_nothing_else(
    path: str, value: Any, must: set[str], may: set[str], context: dict[str, Any]
) -> None:
    before = base(_shape_of(path, context))
    for where, what in context.items():
        if where != "shape":
            _put(before, where, what)
    after = copy.deepcopy(before)
    _put(after, path, value)
    one, other = products(before), products(after)
    changed = {name for name in one if one[name] != other[name]}
    assert must <= changed, f"{path} left {must - changed} as they were"
    assert changed <= must | may, f"{path} also changed {changed - must - may}"


@pytest.mark.parametrize("name", sorted(APPEARANCE))
def test_an_appearance_parameter_changes_the_image_and_nothing_else(name: str) -> None:
    low, high, _ = APPEARANCE[name]
    before = base("sphere")
    after = copy.deepcopy(before)
    value = before["appearance"][name]
    assert low < value <= high or name in ("inverted", "brightness")
    switches = {"inverted": 1.0, "scale_bar": 0.0, "brightness": 0.1}
    after["appearance"][name] = switches.get(name, (low + value) / 2)
    one, other = products(before), products(after)
    changed = {item for item in one if one[item] != other[item]}
    hides = {"data_bar", "scale_bar"}  # what writing covers is no particle any more
    assert "image" in changed
    assert changed <= {"image"} | ({"labels"} if name in hides else set())


def test_every_field_of_the_contract_is_varied() -> None:
    varied = {".".join(p for p in case[0].split(".") if not p.isdigit()) for case in CASES}
    varied |= {"version", "appearance", "classes.mesh.format"}  # refused, or told by the file
    assert set(_fields(recipe_pb2.Recipe.DESCRIPTOR)) <= varied


def _fields(message: Descriptor, prefix: str = "") -> Iterator[str]:
    for item in message.fields:
        inner = item.message_type
        if inner is None or inner.name in ("Distribution", "AppearanceEntry"):
            yield f"{prefix}{item.name}"
        else:
            yield from _fields(inner, f"{prefix}{item.name}.")
