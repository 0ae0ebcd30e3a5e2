# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds per analysed 2048 x 2048 px image: table, overlay, statistics, report."""

from scenes import PIXEL_SIZE_NM, micrograph
from stopwatch import Stopwatch, emit

from granulo_analyzer.domain.ensemble import MeasuredImage, pool
from granulo_analyzer.domain.morphology import measure
from granulo_analyzer.domain.tables import image_csv, read_image_csv
from granulo_analyzer.report import figures, html
from granulo_analyzer.report.overlay import draw_overlay, encode_png, encode_preview
from granulo_core.store.manifest import producer

SIDE_PX = 2048
ROUNDS = 3


def main() -> None:
    pixels, layers = micrograph(SIDE_PX, 64, seed=1)
    size = (PIXEL_SIZE_NM, PIXEL_SIZE_NM)
    labels = layers.instances.astype("uint32")
    watch = Stopwatch()
    for _ in range(ROUNDS):
        with watch.stage("measure"):
            table = measure(labels, pixel_size_nm=size, grey=pixels)
        with watch.stage("overlay"):
            overlay = encode_png(draw_overlay(labels, table, pixels))
        with watch.stage("statistics"):
            rows = read_image_csv(image_csv(table))
            ensemble = pool([MeasuredImage("bench", SIDE_PX, SIDE_PX, size, rows)])
        with watch.stage("figures and report"):
            histogram = figures.histogram_figure(ensemble)
            html.render_report(
                ensemble,
                html.Provenance("analyses/bench", "", (), producer("analyzer", 0)),
                histogram_svg=figures.svg_text(histogram, "set"),
                previews=[encode_preview(overlay, 1100)],
            )
    note = f"{SIDE_PX} px, {int(labels.max())} particles"
    emit("analyse", "s per image", watch.medians(), note)


if __name__ == "__main__":
    main()
