# SPDX-License-Identifier: GPL-3.0-or-later
"""Annotated datasets in the object store: ``annotated/<id>/images|labels/<stem>.tif``."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_core.errors import FieldViolation, GranuloError, Reason, invalid_fields
from granulo_core.imaging.labels import decode_labels, encode_tiff
from granulo_core.imaging.read import read_micrograph
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore, StoredObject, digest_of
from granulo_trainer.domain.annotation import (
    AnnotatedImage,
    ImportPlan,
    SourcePair,
    UnusablePairError,
    fit_labels,
    stored_grey,
)
from granulo_trainer.domain.job import StoredImage

COLLECTION = "annotated"
KIND = "AnnotatedDataset"
_UPLOAD = re.compile(r"^uploads/([0-9a-f]{64})$")


def with_digests(store: ObjectStore, plan: ImportPlan) -> ImportPlan:
    """The plan with the digest of every file.

    Raises
    ------
    GranuloError
        FIELD_INVALID with all files that the store does not have.
    """
    missing = [
        FieldViolation(
            f"dataset.images[{number}].{part}.uri",
            f"{file.key} is not in the store; upload the file first and give its uri",
        )
        for number, pair in enumerate(plan.pairs)
        for part, file in (("image", pair.image), ("labels", pair.labels))
        if not store.exists(file.key)
    ]
    if missing:
        raise invalid_fields(missing)
    return replace(
        plan,
        pairs=tuple(
            SourcePair(_known(store, pair.image), _known(store, pair.labels)) for pair in plan.pairs
        ),
    )


def identity(plan: ImportPlan) -> str:
    """Digest of what determines a dataset's content; the plan has all digests."""
    content = {
        "pairs": [
            [pair.image.digest, pair.image.name, pair.labels.digest, pair.labels.name]
            for pair in plan.pairs
        ],
        "pixel_size_nm": plan.pixel_size_nm,
        "content_height_px": plan.content_height_px,
    }
    return digest_of(json.dumps(content, sort_keys=True).encode())


def resource_name(plan: ImportPlan) -> str:
    """``annotated/<id>`` with the id that was asked for, or the one of the content."""
    return f"{COLLECTION}/{plan.dataset_id or manifests.content_id('an', identity(plan))}"


def find(store: ObjectStore, plan: ImportPlan) -> manifests.Manifest | None:
    """The dataset that an equal import made.

    Raises
    ------
    GranuloError
        RESOURCE_EXISTS where the name belongs to other content.
    """
    name = resource_name(plan)
    if not store.exists(f"{name}/manifest.json"):
        return None
    manifest = manifests.load(store, name)
    if manifest.facts.get("identity") != identity(plan):
        raise GranuloError(
            Reason.RESOURCE_EXISTS,
            f"{name} holds other images, labels or settings; datasets never change. Choose another "
            "dataset_id, or none.",
            metadata={"name": name},
        )
    return manifest


def check(store: ObjectStore, plan: ImportPlan, max_px: int) -> list[AnnotatedImage]:
    """Read every pair.

    Returns
    -------
    list of AnnotatedImage

    Raises
    ------
    GranuloError
        FIELD_INVALID with what is wrong with each pair, all pairs at once; DIGEST_MISMATCH for a
        damaged upload.
    """
    images = []
    violations = _duplicates(plan.pairs)
    for number, pair in enumerate(plan.pairs):
        try:
            images.append(_read(store, plan, pair, max_px).facts(_stem(number), pair))
        except _UnusableFilesError as error:
            violations += [
                FieldViolation(f"dataset.images[{number}].{part}", text)
                for part, text in error.faults
            ]
    if violations:
        raise invalid_fields(violations)
    return images


def write(store: ObjectStore, plan: ImportPlan, max_px: int) -> list[StoredObject]:
    """Write the objects of a checked plan, one pair at a time."""
    name = resource_name(plan)
    # Without a manifest these belong to an import that was killed.
    for key in list(store.list(f"{name}/")):
        store.delete(key)
    objects = []
    for number, pair in enumerate(plan.pairs):
        found = _read(store, plan, pair, max_px)
        image = encode_tiff(found.grey, found.pixel_size_nm, kind="micrograph")
        labels = encode_tiff(found.labels, found.pixel_size_nm, kind="labels")
        objects += [
            store.put(f"{name}/images/{_stem(number)}.tif", image, "image/tiff"),
            store.put(f"{name}/labels/{_stem(number)}.tif", labels, "image/tiff"),
        ]
    return objects


def commit(
    store: ObjectStore,
    plan: ImportPlan,
    images: Sequence[AnnotatedImage],
    objects: Sequence[StoredObject],
    request: dict[str, object],
) -> manifests.Manifest:
    """Make the dataset exist."""
    name = resource_name(plan)
    sources = [file for pair in plan.pairs for file in (pair.image, pair.labels)]
    manifest = manifests.Manifest(
        resource=name,
        kind=KIND,
        objects=tuple(objects),
        inputs=tuple(manifests.ManifestInput(file.key, file.digest) for file in sources),
        producer=manifests.producer("trainer", 0),
        request=request,
        facts={
            "identity": identity(plan),
            "images": [asdict(image) for image in images],
            "particle_count": sum(image.particle_count for image in images),
            "pixel_size_nm": plan.pixel_size_nm,
            "content_height_px": plan.content_height_px,
        },
    )
    manifests.commit(store, name, manifest)
    return manifest


def images_of(manifest: manifests.Manifest) -> list[AnnotatedImage]:
    """Images of a dataset in the order of its request."""
    return [AnnotatedImage(**item) for item in manifest.facts["images"]]


@dataclass(frozen=True)
class _Pair:
    """A pair that can be trained on."""

    grey: NDArray[Any]
    labels: NDArray[np.uint16]
    pixel_size_nm: tuple[float, float] | None

    def facts(self, stem: str, pair: SourcePair) -> AnnotatedImage:
        height, width = self.labels.shape
        return AnnotatedImage(
            name=pair.image.name,
            labels_name=pair.labels.name,
            stem=stem,
            height_px=height,
            width_px=width,
            particle_count=int(self.labels.max()),
            pixel_size_nm=self.pixel_size_nm,
        )


class _UnusableFilesError(Exception):
    """What is wrong with a pair's files: ``(part, text)`` each."""

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__(faults)
        self.faults = tuple(faults)


def _read(store: ObjectStore, plan: ImportPlan, pair: SourcePair, max_px: int) -> _Pair:
    faults: list[tuple[str, str]] = []
    micrograph = labels = None
    data = store.get(pair.image.key, pair.image.digest)
    try:
        micrograph = read_micrograph(data, max_px=max_px, name=pair.image.name)
    except GranuloError as error:
        faults.append(("image", error.message))
    data = store.get(pair.labels.key, pair.labels.digest)
    try:
        labels = decode_labels(data, max_px=max_px, name=pair.labels.name)
    except GranuloError as error:
        faults.append(("labels", error.message))
    if micrograph is None or labels is None:
        raise _UnusableFilesError(faults)
    height, width = micrograph.pixels.shape
    try:
        fitted = fit_labels(
            (height, width),
            labels,
            content_height_px=plan.content_height_px,
            found_height_px=micrograph.content_height_px,
        )
    except UnusablePairError as error:
        file = pair.image if error.part == "image" else pair.labels
        raise _UnusableFilesError([(error.part, f"{file.name}: {error}")]) from error
    return _Pair(
        grey=stored_grey(micrograph.pixels[: len(fitted)]),
        labels=fitted,
        pixel_size_nm=plan.pixel_size_nm or micrograph.pixel_size_nm,
    )


def _stem(number: int) -> str:
    return f"{number:06d}"


def _duplicates(pairs: Sequence[SourcePair]) -> list[FieldViolation]:
    """Names and images that come twice: results could not be told apart, folds would leak."""
    found = []
    names: dict[str, int] = {}
    digests: dict[str, int] = {}
    for number, pair in enumerate(pairs):
        field = f"dataset.images[{number}].image"
        first = names.setdefault(pair.image.name, number)
        if first != number:
            text = f"{pair.image.name} is also the name of images[{first}]; rename one of them"
            found.append(FieldViolation(f"{field}.display_name", text))
        first = digests.setdefault(pair.image.digest, number)
        if first != number:
            text = (
                f"{pair.image.name} is the same image as images[{first}], "
                f"{pairs[first].image.name}; give each image once"
            )
            found.append(FieldViolation(field, text))
    return found


def _known(store: ObjectStore, file: StoredImage) -> StoredImage:
    upload = _UPLOAD.match(file.key)
    if upload:
        # The key is the digest, also where the request does not say it.
        return replace(file, digest=file.digest or f"sha256:{upload.group(1)}")
    return file if file.digest else replace(file, digest=store.stat(file.key).digest)
