# SPDX-License-Identifier: Apache-2.0
"""Datasets as folders for other programs: TIFF files, or COCO."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from google.protobuf import json_format

from granulo.render.v1.recipe_pb2 import Recipe
from granulo.render.v1.render_service_pb2 import Dataset
from granulo.type.v1.artifact_pb2 import Artifact
from granulo_client.client import Client
from granulo_client.errors import FailedPreconditionError
from granulo_client.files import write_whole
from granulo_client.progress import Stage
from granulo_client.recipe_text import recipe_yaml

FORMATS = ("tiff", "coco")

T = TypeVar("T")
R = TypeVar("R")

# Below half of the streams that the standalone's services have places for.
_STREAMS = 4
_BATCH = 64
_TIFF_ENDINGS = {
    "images": "_image.tif",
    "labels": "_labels.tif",
    "masks": "_mask.tif",
    "amodal": "_amodal.tif",
    "depth": "_depth.tif",
    "particles": "_particles.csv",
}
"""What the files of a folder of the dataset are called in an export, after the scene's number."""


def export_dataset(client: Client, dataset: Dataset, folder: Path, kind: str, stage: Stage) -> None:
    """Write a dataset to a folder, with its recipe and its manifest.

    Parameters
    ----------
    client : Client
    dataset : Dataset
    folder : Path
    kind : str
        ``tiff``: ``000000_image.tif``, ``000000_labels.tif`` and so on. ``coco``:
        ``images/000000.tif`` and ``annotations.json``.
    stage : Stage
        Shows the progress.

    Raises
    ------
    FailedPreconditionError
        The dataset was made before there were COCO annotations.
    GranuloClientError
        A file could not be fetched or written.
    """
    manifest = client.manifest(dataset.manifest)
    objects = [
        Artifact(uri=item["key"], digest=item["digest"], size_bytes=item["size_bytes"])
        for item in manifest["objects"]
    ]
    if kind == "coco":
        _export_coco(client, dataset.name, objects, folder, stage)
    else:
        _download(client, tiff_files(objects, folder), stage)
    recipe = json_format.ParseDict(
        manifest["facts"]["recipe"], Recipe(), ignore_unknown_fields=True
    )
    with write_whole(folder / "recipe.yaml") as file:
        file.write(recipe_yaml(recipe, f"The recipe of {dataset.name}.").encode())
    # Last: where it stands, the export is complete.
    client.download(dataset.manifest, folder / "manifest.json")


def tiff_files(objects: Sequence[Artifact], folder: Path) -> list[tuple[Artifact, Path]]:
    """Objects of a dataset and the files that they become."""
    files = []
    for item in objects:
        key = PurePosixPath(item.uri)
        ending = _TIFF_ENDINGS.get(key.parent.name)
        if ending is not None:
            files.append((item, folder / f"{key.stem}{ending}"))
    return files


def _export_coco(
    client: Client, name: str, objects: Sequence[Artifact], folder: Path, stage: Stage
) -> None:
    images = [item for item in objects if PurePosixPath(item.uri).parent.name == "images"]
    scenes = [item for item in objects if PurePosixPath(item.uri).parent.name == "annotations"]
    if len(scenes) != len(images):
        raise FailedPreconditionError(
            f"{name} was rendered by a version of Granulo that made no COCO annotations. Render "
            "it again with another seed, or export it with --format tiff."
        )
    targets = [folder / "images" / PurePosixPath(item.uri).name for item in images]
    _download(client, list(zip(images, targets, strict=True)), stage)
    scenes.sort(key=lambda item: item.uri)
    with write_whole(folder / "annotations.json") as file:
        documents = _in_parallel(
            lambda item: json.loads(client.read(item)), scenes, stage, "annotation"
        )
        for part in merge_coco(documents, (PurePosixPath(item.uri).stem for item in scenes)):
            file.write(part.encode())


def merge_coco(scenes: Iterator[Mapping[str, Any]], stems: Iterator[str]) -> Iterator[str]:
    """Join COCO documents of one scene each; ids become unique.

    Parameters
    ----------
    scenes : iterator of mapping
        ``images``, ``annotations``, ``categories`` and ``info``; equal categories in all of them.
    stems : iterator of str
        Name of each scene's image file, without its ending.

    Yields
    ------
    str
        Parts of the JSON text, so that no dataset needs to fit into memory.
    """
    images: list[Mapping[str, Any]] = []
    categories: dict[int, Mapping[str, Any]] = {}
    info: Mapping[str, Any] = {}
    before = 0
    yield '{"annotations": ['
    for scene, stem in zip(scenes, stems, strict=True):
        image_id = len(images) + 1
        (image,) = scene["images"]
        images.append({**image, "id": image_id, "file_name": f"{stem}.tif"})
        info = info or scene.get("info", {})
        for category in scene["categories"]:
            categories[category["id"]] = category
        ids = {item["id"]: before + n for n, item in enumerate(scene["annotations"], 1)}
        for item in scene["annotations"]:
            # Its value in the label image, which is also the particle's id in the table.
            moved = {**item, "label": item["id"], "id": ids[item["id"]], "image_id": image_id}
            if "occluded_by" in item:
                moved["occluded_by"] = [ids[other] for other in item["occluded_by"]]
            yield ("\n" if moved["id"] == 1 else ",\n") + json.dumps(moved)
        before += len(ids)
    rest = {"images": images, "categories": [categories[n] for n in sorted(categories)]}
    yield "],\n" + json.dumps({**rest, "info": info})[1:] + "\n"


def _download(client: Client, files: Sequence[tuple[Artifact, Path]], stage: Stage) -> None:
    for _ in _in_parallel(lambda pair: client.download(*pair), files, stage, "file"):
        pass


def _in_parallel(
    work: Callable[[T], R], items: Sequence[T], stage: Stage, unit: str
) -> Iterator[R]:
    """Results in the order of the items; only a batch of them is waited for at a time."""
    done = 0
    with ThreadPoolExecutor(_STREAMS) as pool:
        for first in range(0, len(items), _BATCH):
            for result in pool.map(work, items[first : first + _BATCH]):
                done += 1
                stage.update(done=done, total=len(items), unit=unit)
                yield result
