# SPDX-License-Identifier: GPL-3.0-or-later
"""Entry points that the engine runs: segment one image."""

from granulo_core.engine.port import TaskContext
from granulo_core.imaging.labels import encode_tiff
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.read import read_micrograph
from granulo_core.operations.receipts import Receipt
from granulo_core.store import open_store
from granulo_segmenter.domain.jobs import SegmentJob
from granulo_segmenter.domain.overlay import draw_overlay, encode_png
from granulo_segmenter.domain.segmentation import segment
from granulo_segmenter.predictor.client import Predictor


def segment_shard(context: TaskContext, payload: bytes) -> bytes:
    """Segment one image and store its labels and overlay.

    Parameters
    ----------
    context : TaskContext
    payload : bytes
        A `SegmentJob`.

    Returns
    -------
    bytes
        Receipt with the labels and the overlay, in this order; particle count, pixel size and
        height of the content as facts.

    Raises
    ------
    GranuloError
        What is wrong with the image, the model server or the store.
    """
    job = SegmentJob.from_bytes(payload)
    store = open_store(context.store_url)
    data = store.get(job.image.key, job.image.digest)
    micrograph = read_micrograph(data, max_px=job.max_px, name=job.image.name)
    size = PixelSize(*job.pixel_size_nm) if job.pixel_size_nm else micrograph.pixel_size
    with Predictor(
        job.model_server, timeout_s=job.timeout_s, patience_s=job.patience_s
    ) as predictor:
        found = segment(
            micrograph,
            job.model.facts,
            lambda tiles, names: predictor.predict_many(job.model.served, tiles, names),
            options=job.options,
            pixel_size=size,
        )
    labels = encode_tiff(found.labels, size, kind="labels")
    overlay = encode_png(draw_overlay(micrograph.pixels, found.labels))
    height = micrograph.content_height_px
    return Receipt(
        objects=(
            store.put(job.labels_key, labels, "image/tiff"),
            store.put(job.overlay_key, overlay, "image/png"),
        ),
        facts={
            "particle_count": found.particle_count,
            "pixel_size_nm": size.as_tuple() if size else None,
            "content_height_px": height if height < micrograph.pixels.shape[0] else 0,
            "image_bytes": len(data),
        },
    ).to_bytes()
