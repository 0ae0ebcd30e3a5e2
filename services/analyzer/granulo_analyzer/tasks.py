# SPDX-License-Identifier: GPL-3.0-or-later
"""Entry points that the engine runs: measure one image, and report on the whole set."""

import tempfile
from pathlib import Path

from granulo_analyzer import inputs
from granulo_analyzer.domain.counting import RULES
from granulo_analyzer.domain.ensemble import Counted, Ensemble, MeasuredImage, pool
from granulo_analyzer.domain.exports import Shapes, image_coco, roi_zip, write_merged_coco
from granulo_analyzer.domain.jobs import MeasureJob, ReportJob
from granulo_analyzer.domain.morphology import measure
from granulo_analyzer.domain.tables import image_csv, merged_csv, merged_parquet, read_image_csv
from granulo_core.engine.port import TaskContext
from granulo_core.operations.receipts import Receipt
from granulo_core.store import ObjectStore, StoredObject, open_store
from granulo_core.telemetry.metrics import record
from granulo_core.telemetry.stages import Stage, stage

# The pictures need matplotlib, whose import takes as long as measuring an image: workers only.
_PREVIEW_PX = 1100


def measure_image(context: TaskContext, payload: bytes) -> bytes:
    """Measure the particles of one image and draw them.

    Parameters
    ----------
    context : TaskContext
    payload : bytes
        A :class:`MeasureJob`.

    Returns
    -------
    bytes
        Receipt with table, overlay, outlines and masks, in this order; facts for the report.
    """
    from granulo_analyzer.report.overlay import draw_overlay, encode_png

    job = MeasureJob.from_bytes(payload)
    store = open_store(context.store_url)
    item = inputs.load(store, job)
    with stage(Stage.MEASURE):
        table = measure(
            item.labels,
            pixel_size_nm=item.pixel_size_nm,
            grey=item.grey,
            confidence=item.confidence,
            visible_fraction=item.visible_fraction,
            amodal=item.amodal,
        )
    height, width = item.labels.shape
    image = MeasuredImage(job.name, width, height, item.pixel_size_nm, table.columns)
    counted = Counted.of(image, RULES[job.rule], job.min_confidence).keep
    with stage(Stage.OVERLAY):
        overlay = encode_png(draw_overlay(item.labels, table, item.grey, counted))
    shapes = Shapes(item.labels, table, item.amodal)
    stem = job.file_stem
    with stage(Stage.EXPORT_SHAPES):
        coco = image_coco(shapes, (job.image or job.labels).name, item.full_height_px)
        rois = roi_zip(shapes)
    files = (
        (f"tables/{stem}.csv", image_csv(table), "text/csv"),
        (f"overlays/{stem}.png", overlay, "image/png"),
        (f"rois/{stem}_rois.zip", rois, "application/zip"),
        (f"masks/{stem}_coco.json", coco, "application/json"),
    )
    receipt = Receipt(
        objects=tuple(
            store.put(f"{job.analysis}/{name}", data, kind) for name, data, kind in files
        ),
        facts={"width_px": width, "height_px": height, "pixel_size_nm": item.pixel_size_nm},
    )
    record("granulo_images_total", service="analyzer")
    return receipt.to_bytes()


def write_report(context: TaskContext, payload: bytes) -> bytes:
    """Pool the tables of all images; write tables, masks, statistics, histogram and report.

    Parameters
    ----------
    context : TaskContext
    payload : bytes
        A :class:`ReportJob`.

    Returns
    -------
    bytes
        Receipt with the files that are of the whole set; the facts of the analysis.
    """
    from granulo_analyzer.report import figures, html
    from granulo_analyzer.report.overlay import encode_preview
    from granulo_analyzer.report.summary import summary_json

    job = ReportJob.from_bytes(payload)
    store = open_store(context.store_url)
    tables = [store.get(image.table.key, image.table.digest) for image in job.images]
    with stage(Stage.STATISTICS):
        ensemble = pool(
            [
                MeasuredImage(
                    image.name,
                    image.width_px,
                    image.height_px,
                    image.pixel_size_nm,
                    read_image_csv(table),
                )
                for image, table in zip(job.images, tables, strict=True)
            ],
            job.settings,
        )
    provenance = html.Provenance(
        resource=job.analysis,
        created=job.created[:10],
        lineage=tuple(html.LineageItem(*item) for item in job.lineage),
        producer=job.producer,
    )
    with stage(Stage.REPORT):
        previews = [
            encode_preview(store.get(image.overlay.key, image.overlay.digest), _PREVIEW_PX)
            for image in job.images[: html.MAX_PICTURES]
        ]
        page = html.render_report(ensemble, provenance, previews)
    named = [(image.name, table) for image, table in zip(job.images, tables, strict=True)]
    files = {
        "particles.csv": (merged_csv(named), "text/csv"),
        "particles.parquet": (merged_parquet(named), "application/vnd.apache.parquet"),
        "summary.json": (summary_json(ensemble, provenance), "application/json"),
        "histogram.png": (figures.png_bytes(figures.histogram_figure(ensemble)), "image/png"),
        "report.html": (page.encode(), "text/html"),
    }
    stored = [
        store.put(f"{job.analysis}/{name}", data, kind) for name, (data, kind) in files.items()
    ]
    stored.append(_store_masks(job, store))
    return Receipt(objects=tuple(stored), facts=_facts(ensemble)).to_bytes()


def _store_masks(job: ReportJob, store: ObjectStore) -> StoredObject:
    """Join the masks of all images, which need not fit into memory."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        write_merged_coco(
            (store.get(image.masks.key, image.masks.digest) for image in job.images), file
        )
        file.flush()
        return store.put_file(f"{job.analysis}/coco.json", Path(file.name), "application/json")


def _facts(ensemble: Ensemble) -> dict[str, object]:
    shown = ("quantity", "unit", "count", "mean", "stddev", "median", "p10", "p90", "figures")
    stated = ("nanomaterial", "uncertainty", "advice")
    findings = ensemble.findings.to_json()
    return {
        "particle_count": ensemble.listed,
        "counted": ensemble.counted,
        "unit": ensemble.unit,
        "summaries": [
            {name: value for name, value in item.to_json().items() if name in shown}
            for item in ensemble.distributions.values()
        ],
        "findings": {name: findings[name] for name in stated},
    }
