# SPDX-License-Identifier: GPL-3.0-or-later
"""The user's own meshes: from uploads to geometry, once per process."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from granulo_core.errors import FieldViolation, GranuloError, Reason, invalid_fields
from granulo_core.store.port import ObjectStore
from granulo_render.domain.recipe import Format, Recipe, UserMesh

if TYPE_CHECKING:  # few recipes have a mesh, and trimesh takes seconds to import
    from granulo_render.domain.shapes import UserGeometry

_UPLOAD = re.compile(r"uploads/[0-9a-f]{64}")
_KEPT = 8
_cache: "OrderedDict[tuple[str, Format], UserGeometry]" = OrderedDict()
# An upload's key is the digest of its content: what was read once stays true in every store.


def load_meshes(
    store: ObjectStore, recipe: Recipe, prefix: str = ""
) -> "Mapping[str, UserGeometry]":
    """Read the meshes of a recipe's classes.

    Parameters
    ----------
    store : ObjectStore
        Holds the uploads.
    recipe : Recipe
    prefix : str
        Precedes the paths in errors, e.g. ``"dataset.recipe."``.

    Returns
    -------
    mapping of str to UserGeometry
        By the name of the file.

    Raises
    ------
    GranuloError
        FIELD_INVALID naming every mesh that cannot be rendered, and why.
    """
    found: dict[str, UserGeometry] = {}
    violations = []
    for i, kind in enumerate(recipe.classes):
        if not isinstance(kind.shape, UserMesh):
            continue
        try:
            found[kind.shape.file] = _load(store, kind.shape)
        except ValueError as error:  # a MeshError, or what is wrong with the upload
            violations.append(FieldViolation(f"{prefix}classes[{i}].mesh.file", str(error)))
    if violations:
        raise invalid_fields(violations)
    return found


def _load(store: ObjectStore, mesh: UserMesh) -> "UserGeometry":
    from granulo_render.domain.user_mesh import MAX_BYTES, MeshError, read_mesh

    assert mesh.format is not None  # the recipe's check saw to it
    key = (mesh.file, mesh.format)
    if key in _cache:
        _cache.move_to_end(key)
        return _cache[key]
    if not _UPLOAD.fullmatch(mesh.file):
        raise MeshError(
            f"is {mesh.file!r}; upload the file and give its artifact's uri, uploads/<sha256> (the "
            "command does so for a path in a recipe file)"
        )
    try:
        size = store.stat(mesh.file).size_bytes
    except GranuloError as error:
        if error.reason is Reason.RESOURCE_NOT_FOUND:
            raise MeshError("names an upload that does not exist; upload the file again") from error
        raise
    if size > MAX_BYTES:
        raise MeshError(
            f"holds {size / 2**20:.0f} MiB; at most {MAX_BYTES // 2**20} MiB can be read, so "
            "simplify the mesh"
        )
    digest = f"sha256:{mesh.file.removeprefix('uploads/')}"
    _cache[key] = read_mesh(store.get(mesh.file, digest), mesh.format)
    while len(_cache) > _KEPT:
        _cache.popitem(last=False)
    return _cache[key]
