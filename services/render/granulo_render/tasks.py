# SPDX-License-Identifier: GPL-3.0-or-later
"""Entry points that the engine runs in worker processes: they render."""

import csv
import io

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo.render.v1 import render_service_pb2 as pb
from granulo_core.engine.port import TaskContext
from granulo_core.imaging.appearance import Layers
from granulo_core.imaging.labels import encode_tiff
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.reporting import report
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore, StoredObject
from granulo_render.convert import read_payload
from granulo_render.domain.compose import compose
from granulo_render.domain.job import DatasetPlan, Delivery, deliver

_TIFF = "image/tiff"


def render_shard(context: TaskContext, payload: bytes) -> bytes:
    """Render a shard's scenes into the store.

    Parameters
    ----------
    context : TaskContext
    payload : bytes
        From `granulo_render.convert.shard_payload`.

    Returns
    -------
    bytes
        Receipt: every object, and the number of particles labelled and of those without a place.
    """
    plan, dataset, shard = read_payload(payload)
    store = open_store(context.store_url)
    objects: list[StoredObject] = []
    labelled = unplaced = 0
    for done, index in enumerate(range(shard.first, shard.first + shard.count), start=1):
        delivery, layers, missing = _render(plan, index)
        objects += _put(store, dataset, index, plan, delivery, layers)
        labelled += len(delivery.particles)
        unplaced += missing
        report(context, units_done=done, message=f"scene {index + 1} of {plan.image_count}")
    facts = {"particle_count": labelled, "unplaced": unplaced}
    return Receipt(objects=tuple(objects), facts=facts).to_bytes()


def preview_frame(_context: TaskContext, payload: bytes) -> bytes:
    """Render one scene of a preview; returns a serialised ``PreviewRecipeResponse``."""
    plan, _, shard = read_payload(payload)
    delivery, _, _ = _render(plan, shard.first)
    response = pb.PreviewRecipeResponse(
        image_png=_png(delivery.micrograph), labels_png=_png(delivery.labels)
    )
    return response.SerializeToString()


def _render(plan: DatasetPlan, index: int) -> tuple[Delivery, Layers, int]:
    # Blender takes seconds to import and belongs to workers, not to whoever names these tasks.
    from granulo_render.blender.layers import render_layers

    scene = compose(plan.recipe, plan.seed, index, plan.size_px)
    layers = render_layers(scene)
    return deliver(plan.recipe, plan.seed, index, scene, layers), layers, scene.unplaced


def _put(
    store: ObjectStore,
    dataset: str,
    index: int,
    plan: DatasetPlan,
    delivery: Delivery,
    layers: Layers,
) -> list[StoredObject]:
    size = (layers.pixel_size_nm, layers.pixel_size_nm)
    image = encode_tiff(delivery.micrograph, size, kind="micrograph")
    labels = encode_tiff(delivery.labels, size, kind="labels")
    mask = encode_tiff(delivery.mask, size, kind="mask")
    stem = f"{index:06d}"
    return [
        store.put(f"{dataset}/images/{stem}.tif", image, _TIFF),
        store.put(f"{dataset}/labels/{stem}.tif", labels, _TIFF),
        store.put(f"{dataset}/masks/{stem}.tif", mask, _TIFF),
        store.put(f"{dataset}/layers/{stem}.npz", layers.save(), "application/x-npz"),
        store.put(f"{dataset}/particles/{stem}.csv", _table(plan, delivery), "text/csv"),
    ]


def _table(plan: DatasetPlan, delivery: Delivery) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["id", "class", "diameter_nm", "x_px", "y_px", "z_nm", "visible_px", "cluster"])
    for item in delivery.particles:
        lengths = (item.diameter_nm, item.x_px, item.y_px, item.z_nm)
        label = plan.recipe.classes[item.kind].label or str(item.kind)
        numbers = [f"{value:.3f}" for value in lengths]
        rows.writerow([item.id, label, *numbers, item.visible_px, item.cluster])
    return text.getvalue().encode()


def _png(image: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    done, data = cv2.imencode(".png", image)
    if not done:
        raise RuntimeError(f"OpenCV cannot write {image.shape} pixels of {image.dtype} as PNG")
    return bytes(data)
