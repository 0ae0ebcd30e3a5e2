# SPDX-License-Identifier: GPL-3.0-or-later
"""The packaged network finds the same objects in one piece and in tiles and blocks."""

import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from granulo_core.imaging.read import Micrograph
from granulo_segmenter.domain.model import ModelFacts
from granulo_segmenter.domain.options import Options
from granulo_segmenter.domain.segmentation import Working, segment
from granulo_segmenter.predictor import versions

ROOT = Path(__file__).resolve().parents[2]
SIDE_PX = 1500


def drawn_spheres() -> Micrograph:
    spec = importlib.util.spec_from_file_location("scenes", ROOT / "benchmarks" / "scenes.py")
    assert spec is not None
    assert spec.loader is not None
    scenes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scenes)
    pixels, _ = scenes.micrograph(SIDE_PX, 48, seed=3)
    return Micrograph(pixels, None, SIDE_PX, "drawn")


@pytest.mark.long
def test_the_packaged_model_s_objects_do_not_depend_on_tiles_and_blocks() -> None:
    import tensorflow as tf

    folder = versions.packaged_folder()
    facts = ModelFacts.from_json(json.loads((folder / versions.METADATA).read_text()))
    run = tf.saved_model.load(str(folder)).signatures["serving_default"]

    def predict(tiles: Iterable[np.ndarray], names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        for tile in tiles:
            found = run(image=tf.constant(tile[None, :, :, None]))
            yield {name: np.asarray(found[name])[0] for name in names}

    image = drawn_spheres()
    # The largest tile there is, and one block: as near to one piece as the model's server takes.
    whole = segment(image, facts, predict, options=Options(overlap_px=128))
    shares = []
    for tile_px, overlap_px, block_px in ((512, 128, 600), (384, 192, 2048), (1024, 64, 400)):
        options = Options(tile_px=tile_px, overlap_px=overlap_px)
        parts = segment(image, facts, predict, options=options, working=Working(block_px=block_px))
        assert parts.maps.scale == whole.maps.scale
        shares.append(same(whole.labels, parts.labels))
    assert whole.particle_count > 700
    assert min(shares) >= 0.995, shares


def same(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the objects that have their like (IoU of at least 0.9) in the other labels."""
    sizes = np.bincount(one.ravel()), np.bincount(other.ravel())
    pairs, overlap = np.unique(
        np.stack([one.ravel(), other.ravel()]).astype(np.int64), axis=1, return_counts=True
    )
    union = sizes[0][pairs[0]] + sizes[1][pairs[1]] - overlap
    equal = np.count_nonzero((overlap >= 0.9 * union) & (pairs > 0).all(axis=0))
    return equal / max(np.count_nonzero(size[1:]) for size in sizes)
