# SPDX-License-Identifier: Apache-2.0
"""Mesh files that recipes name: found on this machine, uploaded, replaced by what they became."""

import re
from collections.abc import Callable
from pathlib import Path

from granulo.render.v1.recipe_pb2 import Mesh, Recipe
from granulo.type.v1.artifact_pb2 import Artifact
from granulo_client.yamlfile import Location

MAX_MESH_BYTES = 64 * 2**20
"""Largest mesh file that the renderer reads."""

_UPLOADED = re.compile(r"uploads/[0-9a-f]{64}")
_FORMATS = {".obj": Mesh.FORMAT_OBJ, ".stl": Mesh.FORMAT_STL, ".ply": Mesh.FORMAT_PLY}


def resolve_meshes(recipe: Recipe, folder: Path) -> list[tuple[Location, str]]:
    """Give every mesh of a recipe an absolute path and a format.

    Parameters
    ----------
    recipe : Recipe
        Changed in place. What was uploaded already, ``uploads/<sha256>``, stays.
    folder : Path
        Against which relative paths are read.

    Returns
    -------
    list of (location, description)
        What is wrong; empty when every file can be used.
    """
    problems: list[tuple[Location, str]] = []
    for i, item in enumerate(recipe.classes):
        if item.WhichOneof("shape") != "mesh":
            continue
        at = ("classes", i, "mesh", "file")
        mesh = item.mesh
        mesh.format = mesh.format or _FORMATS.get(Path(mesh.file).suffix.lower(), mesh.format)
        if not mesh.file:
            problems.append((at, "is missing; give the path of an OBJ, STL or PLY file"))
        elif not mesh.format:
            problems.append((at, "ends neither with .obj, .stl nor .ply; add format: stl"))
        elif not _UPLOADED.fullmatch(mesh.file):
            path = (folder / mesh.file).absolute()
            problem = _problem(path)
            if problem:
                problems.append((at, problem))
            mesh.file = str(path)
    return problems


def upload_meshes(recipe: Recipe, upload: Callable[[Path], Artifact]) -> Recipe:
    """Copy of a recipe whose mesh files are uploaded.

    Parameters
    ----------
    recipe : Recipe
    upload : callable
        Stores a file; a file that several classes name is stored once.
    """
    uploaded = Recipe()
    uploaded.CopyFrom(recipe)
    known: dict[str, str] = {}
    for item in uploaded.classes:
        if item.WhichOneof("shape") == "mesh" and not _UPLOADED.fullmatch(item.mesh.file):
            file = item.mesh.file
            known[file] = known.get(file) or upload(Path(file)).uri
            item.mesh.file = known[file]
    return uploaded


def _problem(path: Path) -> str:
    try:
        size = path.stat().st_size
        if path.is_dir():
            return f"{path} is a folder; give the path of an OBJ, STL or PLY file"
        with path.open("rb"):
            pass
    except FileNotFoundError:
        return f"{path} does not exist; paths are read from the recipe's folder"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if size == 0:
        return f"{path} is empty"
    if size > MAX_MESH_BYTES:
        return (
            f"{path} has {size / 2**20:.0f} MiB; give a mesh of at most "
            f"{MAX_MESH_BYTES // 2**20} MiB, e.g. one with fewer triangles"
        )
    return ""
