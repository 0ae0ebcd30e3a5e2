# SPDX-License-Identifier: GPL-3.0-or-later
"""What the particles lie on: its brightness, dirt and smears."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from granulo_core.imaging import texture
from granulo_core.imaging.streams import Streams
from granulo_core.imaging.substrate import dirt_factor

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from two_balls import PLAIN, picture


def test_gradient_brightens_the_substrate_on_its_side_only() -> None:
    graded = picture(replace(PLAIN, gradient_strength=0.5, gradient_azimuth_rad=0.0))
    assert graded[6, 90] > 1.3 * graded[6, 6]
    assert graded[40, 36] == picture(PLAIN)[40, 36]


@pytest.mark.parametrize("coverage", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("roughness", [0.45, 0.7])
def test_dirt_covers_as_much_as_asked(coverage: float, roughness: float) -> None:
    look = replace(PLAIN, dirt_strength=0.5, dirt_coverage=coverage, dirt_roughness=roughness)
    streams = Streams(np.random.default_rng(1))
    clean = replace(look, dirt_coverage=1.0)
    field = dirt_factor((256, 256), clean, streams)
    patches = dirt_factor((256, 256), look, streams)
    # Where the dirt is, it is the full field; soft edges are half of it.
    covered = np.abs(patches - 1.0) >= 0.5 * np.abs(field - 1.0)
    assert covered.mean() == pytest.approx(coverage, abs=0.05)


def test_dirt_without_coverage_is_clean() -> None:
    look = replace(PLAIN, dirt_strength=0.5, dirt_coverage=0.0)
    assert np.array_equal(picture(look), picture(PLAIN))


def test_smears_run_along_their_direction() -> None:
    noise = texture.normal(np.random.default_rng(0), (128, 160))
    smeared = texture.smear(noise, 24.0, 0.0)
    assert smeared.shape == noise.shape
    along, across = (np.abs(np.diff(smeared, axis=axis)).mean() for axis in (1, 0))
    assert along < 0.5 * across
    assert smeared.std() == pytest.approx(1.0, abs=1e-3)


def test_smearing_moves_nothing() -> None:
    dot = np.zeros((65, 65), np.float32)
    dot[32, 32] = 1.0
    for azimuth in (0.0, 0.8, 2.5):
        smeared = texture.smear(dot, 16.0, azimuth)
        rows, columns = np.nonzero(smeared > smeared.mean() + 1)
        assert rows.mean() == pytest.approx(32, abs=1.5)
        assert columns.mean() == pytest.approx(32, abs=1.5)
        assert 11 <= np.hypot(np.ptp(rows), np.ptp(columns)) <= 18


@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_noise_is_normal(beta: float) -> None:
    noise = texture.fractal_noise(np.random.default_rng(5), (200, 301), beta)
    assert noise.shape == (200, 301)
    assert noise.mean() == pytest.approx(0.0, abs=1e-4)
    assert noise.std() == pytest.approx(1.0, abs=1e-3)
    white = texture.normal(np.random.default_rng(5), (400, 400))
    assert white.std() == pytest.approx(1.0, abs=0.01)
    assert np.mean(np.abs(white) < 1.96) == pytest.approx(0.95, abs=0.005)
