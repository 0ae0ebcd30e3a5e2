# SPDX-License-Identifier: GPL-3.0-or-later
"""Entry points that the engine runs in worker processes: they render."""

import io
import json
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from granulo.render.v1 import render_service_pb2 as pb
from granulo_core.engine.port import TaskContext
from granulo_core.imaging.labels import ImageKind, encode_tiff
from granulo_core.imaging.normalise import to_unit
from granulo_core.imaging.read import read_micrograph
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.reporting import report
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore, StoredObject
from granulo_core.telemetry.metrics import record
from granulo_core.telemetry.stages import Stage, stage
from granulo_render.convert import ShardJob, comparison_message, read_frames
from granulo_render.domain.amodal import amodal_masks, amodal_pages
from granulo_render.domain.coco import coco_scene
from granulo_render.domain.compose import compose
from granulo_render.domain.delivery import Delivery, deliver
from granulo_render.domain.particles import particle_table
from granulo_render.domain.realism import compare
from granulo_render.meshes import load_meshes

_TIFF = "image/tiff"


def render_shard(context: TaskContext, payload: bytes) -> bytes:
    """Render a shard's scenes into the store.

    Parameters
    ----------
    context : TaskContext
    payload : bytes
        From `granulo_render.convert.ShardJob`.

    Returns
    -------
    bytes
        Receipt: every object, and the number of particles labelled and of those without a place.
    """
    job = ShardJob.from_bytes(payload)
    store = open_store(context.store_url)
    objects: list[StoredObject] = []
    labelled = unplaced = 0
    first, count = job.shard.first, job.shard.count
    for done, index in enumerate(range(first, first + count), start=1):
        delivery = _render(store, job, index)
        with stage(Stage.STORE_SCENE):
            objects += _put(store, job, index, delivery)
        record("granulo_scenes_total")
        labelled += delivery.labelled
        unplaced += delivery.unplaced
        report(context, units_done=done, message=f"scene {index + 1} of {job.plan.image_count}")
    facts = {"particle_count": labelled, "unplaced": unplaced}
    return Receipt(objects=tuple(objects), facts=facts).to_bytes()


def preview_frame(context: TaskContext, payload: bytes) -> bytes:
    """Render one scene of a preview; returns a serialised ``PreviewRecipeResponse``."""
    job = ShardJob.from_bytes(payload)
    delivery = _render(open_store(context.store_url), job, job.shard.first)
    known, pixel_nm = delivery.truth, delivery.layers.pixel_size_nm
    pages = amodal_pages(known.amodal, known.order.rank)
    response = pb.PreviewRecipeResponse(
        image_png=_png(delivery.micrograph),
        labels_png=_png(known.labels),
        frame=job.shard.first,
        particle_count=delivery.labelled,
        unplaced_count=delivery.unplaced,
        pixel_size_nm=pixel_nm,
        amodal_tiff=encode_tiff(pages, (pixel_nm, pixel_nm), kind="amodal"),
    )
    return response.SerializeToString()


def preview_sheet(_context: TaskContext, payload: bytes) -> bytes:
    """Put the frames of a preview side by side with their labels drawn in; returns PNG bytes."""
    # Drawing needs matplotlib and its fonts, which rendering does without.
    from granulo_render.sheets import Frame, contact_sheet

    label, frames, _ = read_frames(payload)
    parts = [
        Frame(
            image=_pixels(frame.image_png),
            labels=_pixels(frame.labels_png),
            pixel_size_nm=frame.pixel_size_nm,
            caption=_caption(frame),
            amodal=dict(amodal_masks(_pages(frame.amodal_tiff))),
        )
        for frame in frames
    ]
    return contact_sheet(parts, label)


def compare_frames(context: TaskContext, payload: bytes) -> bytes:
    """Compare rendered frames with reference images; returns a ``RecipeComparison``."""
    from granulo_render.sheets import comparison_sheet

    _, frames, request = read_frames(payload)
    store = open_store(context.store_url)
    references = []
    for artifact in request.references:
        data = store.get(artifact.uri, artifact.digest or None)
        found = read_micrograph(data, name=artifact.display_name or artifact.uri)
        references.append(to_unit(found.content))
    rendered = [to_unit(_pixels(frame.image_png)) for frame in frames]
    line = request.profile if request.HasField("profile") else None
    ends = (line.x0_px, line.y0_px, line.x1_px, line.y1_px) if line else None
    comparison = compare(references, rendered, ends)
    sheet = comparison_sheet(comparison, references, rendered)
    return comparison_message(comparison, sheet).SerializeToString()


def _caption(frame: pb.PreviewRecipeResponse) -> str:
    missing = f", {frame.unplaced_count} without a place" if frame.unplaced_count else ""
    return f"scene {frame.frame}: {frame.particle_count} particles{missing}"


def _render(store: ObjectStore, job: ShardJob, index: int) -> Delivery:
    # Blender takes seconds to import and belongs to workers, not to whoever names these tasks.
    from granulo_render.blender.layers import render_layers

    plan = job.plan
    with stage(Stage.COMPOSE):
        meshes = load_meshes(store, plan.recipe)
        scene = compose(plan.recipe, plan.seed, index, plan.size_px, meshes)
    with stage(Stage.CYCLES):
        layers = render_layers(scene, job.device)
    with stage(Stage.LABELS):
        return deliver(plan.recipe, plan.seed, index, scene, layers)


def _put(store: ObjectStore, job: ShardJob, index: int, delivery: Delivery) -> list[StoredObject]:
    known, layers = delivery.truth, delivery.layers
    classes = job.plan.recipe.classes
    stem = f"{index:06d}"
    pages = amodal_pages(known.amodal, known.order.rank)
    images: list[tuple[str, NDArray[Any], ImageKind]] = [
        ("images", delivery.micrograph, "micrograph"),
        ("labels", known.labels, "labels"),
        ("masks", known.mask, "mask"),
        ("amodal", pages, "amodal"),
        ("depth", known.depth_nm, "depth"),
    ]
    size = (layers.pixel_size_nm, layers.pixel_size_nm)
    stored = [
        store.put(f"{job.dataset}/{folder}/{stem}.tif", encode_tiff(pixels, size, kind=kind), _TIFF)
        for folder, pixels, kind in images
    ]
    coco = coco_scene(known, classes, f"{stem}.tif", layers.pixel_size_nm)
    files = [
        (f"layers/{stem}.npz", layers.save(), "application/x-npz"),
        (f"particles/{stem}.csv", particle_table(known.particles, classes), "text/csv"),
        (f"annotations/{stem}.json", json.dumps(coco).encode(), "application/json"),
    ]
    return stored + [store.put(f"{job.dataset}/{key}", data, kind) for key, data, kind in files]


def _pixels(png: bytes) -> NDArray[Any]:
    pixels: NDArray[Any] = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels


def _pages(tiff: bytes) -> NDArray[np.uint16]:
    """Amodal pages (P, H, W)."""
    with tifffile.TiffFile(io.BytesIO(tiff)) as file:
        return np.stack([page.asarray() for page in file.pages])


def _png(image: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    done, data = cv2.imencode(".png", image)
    if not done:
        raise RuntimeError(f"OpenCV cannot write {image.shape} pixels of {image.dtype} as PNG")
    return bytes(data)
