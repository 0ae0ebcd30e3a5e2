# SPDX-License-Identifier: GPL-3.0-or-later
"""An image larger than memory: 20,000 x 20,000 px within 4 GiB, all processes together."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

GRANULO = Path(sys.executable).parent / "granulo"
SIDE_PX = int(os.environ.get("GRANULO_TEST_LARGE_PX", "20000"))
MOST_BYTES = 4 << 30
SPACING_PX = 125
RADIUS_PX = 24
_TILE_PX = 500


def tiles(side_px: int) -> Iterator[np.ndarray]:
    """Bright discs on a grid, one a field, over a noisy ground; every tile is made alone."""
    y, x = np.mgrid[:SPACING_PX, :SPACING_PX]
    disc = (y - SPACING_PX // 2) ** 2 + (x - SPACING_PX // 2) ** 2 <= RADIUS_PX**2
    fields = _TILE_PX // SPACING_PX
    shape = np.tile(disc, (fields, fields))
    for number in range((side_px // _TILE_PX) ** 2):
        noise = np.random.default_rng(number).normal(60, 6, (_TILE_PX, _TILE_PX))
        tile = np.zeros((512, 512), np.uint8)
        tile[:_TILE_PX, :_TILE_PX] = (noise + 110 * shape).clip(0, 255)
        yield tile[:_TILE_PX, :_TILE_PX]


def write_image(path: Path, side_px: int) -> None:
    # Tile sides are multiples of 16: rows of fields are joined to strips instead.
    made = tiles(side_px)
    across = side_px // _TILE_PX
    strips = (np.hstack([next(made) for _ in range(across)]) for _ in range(side_px // _TILE_PX))
    tifffile.imwrite(
        path, strips, shape=(side_px, side_px), dtype=np.uint8, rowsperstrip=_TILE_PX,
        photometric="minisblack", bigtiff=True,
    )  # fmt: skip


def tree_bytes(pid: int) -> int:
    """Resident memory of a process and all below it; shared pages count once a process."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        pass
    return total


@pytest.mark.long
@pytest.mark.timeout(6 * 3600)
def test_an_image_larger_than_memory_is_segmented_within_4_gib(tmp_path: Path) -> None:
    image, out = tmp_path / "large.tif", tmp_path / "out"
    write_image(image, SIDE_PX)
    command = [GRANULO, "segment", image, "--out", out, "--data", tmp_path / "data", "--json", "-q"]
    # What a smaller image than the real one takes the same way.
    environment = {**os.environ, "GRANULO_MEMORY_PX": str(min(64 << 20, SIDE_PX**2 // 4))}
    errors = (tmp_path / "stderr").open("w")
    started = time.monotonic()
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
    )
    most = 0
    while process.poll() is None:
        most = max(most, tree_bytes(process.pid))
        time.sleep(0.5)
    errors.close()
    assert process.stdout is not None
    text = process.stdout.read()
    assert process.returncode == 0, text + (tmp_path / "stderr").read_text()
    seconds = time.monotonic() - started
    sys.stdout.write(f"\n{SIDE_PX} px: {most / 2**30:.2f} GiB, {seconds:.0f} s\n")
    assert most < MOST_BYTES
    found = json.loads(text)["results"][0]
    true = (SIDE_PX // SPACING_PX) ** 2
    assert abs(found["particle_count"] - true) <= 0.005 * true
    with tifffile.TiffFile(found["labels"]) as tiff:
        page = tiff.pages.first
        assert (tiff.is_bigtiff, page.is_tiled) == (True, True)
        assert page.shape == (SIDE_PX, SIDE_PX)
