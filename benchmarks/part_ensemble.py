# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds and memory for the statistics of 1,000,000 particles with 1,000 bootstrap replicates.

Log-normal diameters on 100 micrographs, every figure of an analysis: eight distributions, fits,
tests and verdict. Environment: ``PARTICLES``.
"""

import os
import resource
import time

import numpy as np
from stopwatch import Stopwatch, emit

from granulo_analyzer.domain.ensemble import MeasuredImage, pool
from granulo_analyzer.domain.settings import AnalysisSettings

IMAGES = 100
FRAME_PX = 20_000
PIXEL_NM = 1.0


def image_of(number: int, count: int) -> MeasuredImage:
    rng = np.random.default_rng(number)
    ecd = 60 * np.exp(0.4 * rng.normal(size=count))
    ratio = rng.uniform(0.6, 1, count)
    columns: dict[str, np.ndarray] = {
        "label": np.arange(1, count + 1),
        "touched_edges": np.zeros(count, int),
        "touches_border": np.zeros(count, bool),
        "aspect_ratio": ratio,
        "circularity": rng.uniform(0.7, 1, count),
        "solidity": rng.uniform(0.8, 1, count),
        "area_px": np.pi * ecd**2 / 4,
        "area_nm2": np.pi * ecd**2 / 4 * PIXEL_NM**2,
    }
    for name, values in (
        ("ecd", ecd),
        ("sqrt_area", ecd * np.sqrt(np.pi) / 2),
        ("min_feret", ecd * np.sqrt(ratio)),
        ("max_feret", ecd / np.sqrt(ratio)),
        ("feret_x", ecd),
        ("feret_y", ecd),
    ):
        columns |= {f"{name}_px": values, f"{name}_nm": values * PIXEL_NM}
    return MeasuredImage(f"image {number}", FRAME_PX, FRAME_PX, (PIXEL_NM, PIXEL_NM), columns)


def main() -> None:
    particles = int(os.environ.get("PARTICLES") or 1_000_000)
    images = [image_of(number, particles // IMAGES) for number in range(IMAGES)]
    watch = Stopwatch()
    started_s = time.process_time()
    with watch.stage("statistics of all"):
        pool(images, AnalysisSettings(replicates=1000))
    cpu_s = time.process_time() - started_s
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    emit(
        "statistics of an ensemble",
        "s",
        watch.medians(),
        f"{particles:,} particles, 1,000 replicates: {cpu_s:.0f} s of CPU, "
        f"{peak_gib:.1f} GiB at most",
    )


if __name__ == "__main__":
    main()
