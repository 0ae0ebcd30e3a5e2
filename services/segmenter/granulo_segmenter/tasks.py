# SPDX-License-Identifier: GPL-3.0-or-later
"""Entry points that the engine runs: segment one image."""

import tempfile
from pathlib import Path

from granulo_core.engine.port import TaskContext
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.read import OpenMicrograph, open_micrograph
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.reporting import report
from granulo_core.settings import CoreSettings
from granulo_core.store import open_store
from granulo_core.telemetry.metrics import record
from granulo_core.telemetry.stages import Stage, in_stage, stage
from granulo_segmenter.domain.jobs import SegmentJob
from granulo_segmenter.domain.planes import ArrayPlane, Plane, Window
from granulo_segmenter.domain.segmentation import Segmented, Working, segment_plane
from granulo_segmenter.predictor.client import Predictor
from granulo_segmenter.scratch import FilePlane, MicrographPlane
from granulo_segmenter.writing import Written, write_results


def segment_shard(context: TaskContext, payload: bytes) -> bytes:
    """Segment one image and store its results.

    Parameters
    ----------
    context : TaskContext
    payload : bytes
        A `SegmentJob`.

    Returns
    -------
    bytes
        Receipt with the labels, the particle table and the wanted outputs; which is which, particle
        count, pixel size, polarity and height of the content as facts.

    Raises
    ------
    GranuloError
        What is wrong with the image, the model server or the store.
    """
    job = SegmentJob.from_bytes(payload)
    store = open_store(context.store_url)
    with tempfile.TemporaryDirectory(prefix="granulo-segment-") as name:
        folder = Path(name)
        file = folder / "image"
        store.get_file(job.image.key, file, job.image.digest)
        user_size = PixelSize(*job.pixel_size_nm) if job.pixel_size_nm else None
        with open_micrograph(
            file, page=job.image.page, max_px=job.max_px, name=job.image.name, pixel_size=user_size
        ) as micrograph:
            result = _segment(context, job, micrograph)
            height = micrograph.content_height_px
            with stage(Stage.WRITE):
                files = write_results(result, job.outputs, folder)
                objects = [
                    store.put_file(f"{job.stem_key}{item.ending}", item.path, item.media_type)
                    for item in files
                ]
        record("granulo_images_total", service="segmenter")
        size = result.pixel_size
        return Receipt(
            objects=tuple(objects),
            facts={
                "kinds": [item.kind for item in files],
                "particle_count": len(result.found.particles),
                "pixel_size_nm": size.as_tuple() if size else None,
                "content_height_px": height if height < result.shape[0] else 0,
                "inverted": result.found.inverted,
                "image_bytes": file.stat().st_size,
            },
        ).to_bytes()


def _segment(context: TaskContext, job: SegmentJob, micrograph: OpenMicrograph) -> Written:
    height, width = micrograph.shape
    in_memory = height * width <= job.memory_px or not micrograph.streams
    content_height = micrograph.content_height_px
    image: Plane
    content: Plane
    if in_memory:
        with stage(Stage.READ):
            image = ArrayPlane(micrograph.read_whole())
            content = ArrayPlane(image.read(Window(0, content_height, 0, width)))
    else:
        image = MicrographPlane(micrograph, height)
        content = MicrographPlane(micrograph, content_height)
    working = Working(
        make_plane=ArrayPlane.zeros if in_memory else FilePlane,
        on_progress=lambda share, message: report(context, units_done=share, message=message),
    )
    # Where certificates lie is this machine's own matter, not the job's.
    predictor = Predictor(
        job.model_server,
        CoreSettings.load(),
        timeout_s=job.timeout_s,
        patience_s=job.patience_s,
    )
    with predictor, stage(Stage.INSTANCES):
        found: Segmented = segment_plane(
            content,
            job.model.facts,
            lambda tiles, names: in_stage(
                Stage.NETWORK, predictor.predict_many(job.model.served, tiles, names)
            ),
            options=job.options,
            pixel_size=micrograph.pixel_size,
            working=working,
        )
    return Written(found, image, micrograph.shape, job.image.name, micrograph.pixel_size, in_memory)
