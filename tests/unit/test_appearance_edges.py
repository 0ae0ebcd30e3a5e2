# SPDX-License-Identifier: GPL-3.0-or-later
"""Edges in drawn micrographs: pixels that an edge crosses show both sides by their areas."""

import numpy as np
import pytest

from granulo_core.imaging.antialias import blend_edges


def _disc(side_px: int, radius_px: float, factor: int) -> np.ndarray:
    """Disc of a size in pixels of the coarse image, drawn ``factor`` times finer."""
    centre = (np.arange(side_px * factor) + 0.5) / factor - (side_px / 2 + 0.3)
    inside = centre[:, None] ** 2 + (centre[None, :] + 0.4) ** 2 <= radius_px**2
    return inside.astype(np.uint16)


@pytest.mark.parametrize("radius_px", [6.3, 12.3, 25.0])
def test_an_edge_is_as_after_many_samples(radius_px: float) -> None:
    ids = _disc(64, radius_px, 1)
    true = _disc(64, radius_px, 8).reshape(64, 8, 64, 8).mean(axis=(1, 3))
    hard = ids.astype(np.float32)
    blended = blend_edges(hard, ids)
    assert np.sqrt(((blended - true) ** 2).mean()) < 0.55 * np.sqrt(((hard - true) ** 2).mean())
    # Each pixel keeps more of its own than it takes of the other side.
    assert np.array_equal(blended >= 0.5, ids > 0)


def test_only_pixels_beside_an_edge_change() -> None:
    rng = np.random.default_rng(0)
    signal = rng.random((40, 40), dtype=np.float32)
    ids = np.zeros((40, 40), dtype=np.uint16)
    ids[:, 20:] = 1
    changed = np.flatnonzero((blend_edges(signal, ids) != signal).any(axis=0))
    assert set(changed) <= {19, 20}
    assert np.array_equal(blend_edges(signal, np.zeros_like(ids)), signal)
