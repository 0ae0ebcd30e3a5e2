# SPDX-License-Identifier: GPL-3.0-or-later
"""Entry points that the engine runs: describe the patches of one image, and compare two sets."""

import csv
import io
import math

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer import features, inputs
from granulo_analyzer.domain.realism import comparison
from granulo_analyzer.domain.realism.jobs import (
    CompareJob,
    ComparisonSettings,
    DescribedImage,
    DescribeJob,
    ImageOfSet,
)
from granulo_analyzer.domain.realism.patches import at_random, sequential
from granulo_analyzer.domain.realism.sharpness import edge_width_px, noise_level
from granulo_core.engine.port import TaskContext
from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.imaging.normalise import to_unit
from granulo_core.imaging.patch_texture import texture_features
from granulo_core.imaging.reading.isolated import read_here
from granulo_core.operations.receipts import Receipt
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore

_SHARPNESS_PX = 2048
"""Noise and edges are looked at in the middle of larger images."""


def check_weights(context: TaskContext, payload: bytes) -> bytes:
    """Refuse weights of another network, before any image is described.

    Parameters
    ----------
    context : TaskContext
    payload : bytes
        A :class:`CompareJob` without images.

    Returns
    -------
    bytes
        An empty receipt.
    """
    weights = CompareJob.from_bytes(payload).settings.vgg16_weights
    assert weights is not None  # the workflow's condition
    features.check_weights(context.store_url, weights.key, weights.digest, weights.name)
    return Receipt().to_bytes()


def describe_image(context: TaskContext, payload: bytes) -> bytes:
    """Describe patches of one image, and its noise and edges.

    Parameters
    ----------
    context : TaskContext
    payload : bytes
        A :class:`DescribeJob`.

    Returns
    -------
    bytes
        Receipt with the table of the patches; ``noise`` and ``edge_width_px`` as facts.
    """
    job = DescribeJob.from_bytes(payload)
    store = open_store(context.store_url)
    grey = _grey(store, job.image, job.max_px)
    side = job.settings.patch_px
    if job.image.set_name == "real":
        corners = sequential(grey.shape, side, job.most)
    else:
        # Each image has places of its own.
        corners = at_random(grey.shape, side, job.most, job.settings.seed + job.image.number)
    patches = np.stack([grey[y : y + side, x : x + side] for y, x in corners])
    buffer = io.BytesIO()
    np.savez(buffer, features=_described(patches, job.settings, context), corners=corners)
    key = f"{job.comparison}/patches/{job.image.set_name}-{job.image.number:06d}.npz"
    middle = _middle(grey)
    width = edge_width_px(middle)
    receipt = Receipt(
        objects=(store.put(key, buffer.getvalue(), "application/x-npz"),),
        facts={
            "noise": noise_level(middle),
            "edge_width_px": width if math.isfinite(width) else None,
        },
    )
    return receipt.to_bytes()


def compare_sets(context: TaskContext, payload: bytes) -> bytes:
    """Compare the described images of two sets, and draw the map and the profile.

    Parameters
    ----------
    context : TaskContext
    payload : bytes
        A :class:`CompareJob`.

    Returns
    -------
    bytes
        Receipt with embedding.png, embedding.csv and, where a line is given, profile.png; the facts
        of the comparison.
    """
    from granulo_analyzer.report.figures import png_bytes
    from granulo_analyzer.report.realism import map_figure, profile_figure

    job = CompareJob.from_bytes(payload)
    store = open_store(context.store_url)
    tables = [_table(store, item) for item in job.images]
    patches = comparison.pool(job.images, tables, job.settings.max_patches)
    try:
        found = comparison.compare(job.images, patches, job.settings)
    except ValueError as error:
        violations = [FieldViolation(name, str(error)) for name in ("real", "synthetic")]
        raise invalid_fields(violations) from error
    files = {
        "embedding.png": (png_bytes(map_figure(found, job.settings)), "image/png"),
        "embedding.csv": (_embedding_csv(job, found), "text/csv"),
    }
    if job.settings.line is not None:
        firsts = [
            next(item.image for item in job.images if item.image.set_name == name)
            for name in ("real", "synthetic")
        ]
        figure = profile_figure(
            [_grey(store, first, job.max_px) for first in firsts],
            [first.file.name for first in firsts],
            job.settings,
        )
        files["profile.png"] = (png_bytes(figure), "image/png")
    receipt = Receipt(
        objects=tuple(
            store.put(f"{job.comparison}/{name}", data, kind)
            for name, (data, kind) in files.items()
        ),
        facts=found.to_json(),
    )
    return receipt.to_bytes()


def _grey(store: ObjectStore, image: ImageOfSet, max_px: int) -> NDArray[np.float32]:
    read = inputs.read_image(store, image.file, image.field, read_here, max_px=max_px)
    return to_unit(read.content)


def _described(
    patches: NDArray[np.float32], settings: ComparisonSettings, context: TaskContext
) -> NDArray[np.float64]:
    weights = settings.vgg16_weights
    if weights is None:
        return texture_features(patches)
    return features.vgg16_features(patches, context.store_url, weights.key, weights.digest)


def _middle(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    top, left = (max(0, (side - _SHARPNESS_PX) // 2) for side in grey.shape)
    return grey[top : top + _SHARPNESS_PX, left : left + _SHARPNESS_PX]


def _table(
    store: ObjectStore, item: DescribedImage
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    data = store.get(item.table.key, item.table.digest)
    with np.load(io.BytesIO(data)) as arrays:
        return arrays["features"], arrays["corners"]


def _embedding_csv(job: CompareJob, found: comparison.Realism) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("set", "image", "x_px", "y_px", "map_1", "map_2"))
    patches = found.patches
    for image, (row, column), (first, second) in zip(
        patches.image, patches.corners, found.map, strict=True
    ):
        of = job.images[image].image
        writer.writerow((of.set_name, of.file.name, column, row, f"{first:.6g}", f"{second:.6g}"))
    return text.getvalue().encode()
