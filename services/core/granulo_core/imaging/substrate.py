# SPDX-License-Identifier: GPL-3.0-or-later
"""What the particles lie on, and the dirt that lies on everything."""

import numpy as np

from granulo_core.imaging import texture
from granulo_core.imaging.look import Look
from granulo_core.imaging.streams import Effect, Streams
from granulo_core.imaging.texture import FloatImage

_PER_PX = 1.0 / 65536.0
"""Counts of scratches, specks and curls are per 256 x 256 px."""
_DIRT_EDGE = 0.3
"""Width of a patch's soft edge, in standard deviations of the dirt."""


def substrate_signal(shape: tuple[int, int], look: Look, streams: Streams) -> FloatImage:
    """The bare substrate.

    Parameters
    ----------
    shape : (int, int)
        Height and width in pixels.
    look : Look
    streams : Streams

    Returns
    -------
    (H, W) float32, not negative.
    """
    relief = np.ones(shape, dtype=np.float32)
    if look.substrate_texture:
        rng = streams[Effect.SUBSTRATE]
        relief += look.substrate_texture * texture.fractal_noise(rng, shape, look.substrate_beta)
    if look.ridge_strength:
        rng = streams[Effect.RIDGES]
        relief += look.ridge_strength * texture.ridges(rng, shape, look.ridge_width_px)
    if look.crack_strength:
        rng = streams[Effect.CRACKS]
        relief += look.crack_strength * texture.cracks(rng, shape, look.crack_grain_px)
    if look.scratches:
        rng = streams[Effect.SCRATCHES]
        relief += 0.3 * texture.scratches(rng, shape, _count(rng, look.scratches, shape))
    if look.specks:
        rng = streams[Effect.SPECKS]
        relief += 0.5 * texture.specks(rng, shape, _count(rng, look.specks, shape))
    if look.gradient_strength:
        relief *= 1.0 + look.gradient_strength * _ramp(shape, look.gradient_azimuth_rad)
    level = np.maximum(look.substrate_level * relief, 0.0)
    if look.curls:
        rng = streams[Effect.CURLS]
        loops = texture.curls(rng, shape, _count(rng, look.curls, shape))
        # As bright as faint particles, however dark the substrate is.
        level += np.float32(0.4 * look.particle_level) * loops
    result: FloatImage = level.astype(np.float32, copy=False)
    return result


def dirt_factor(shape: tuple[int, int], look: Look, streams: Streams) -> FloatImage:
    """What the dirt multiplies the signal by (M4): patches of a diamond-square texture.

    Parameters
    ----------
    shape : (int, int)
        Height and width in pixels.
    look : Look
    streams : Streams

    Returns
    -------
    (H, W) float32, not negative; 1 where it is clean.
    """
    if look.dirt_coverage <= 0.0:
        return np.ones(shape, dtype=np.float32)
    dirt = texture.diamond_square(streams[Effect.DIRT], shape, look.dirt_roughness)
    if look.dirt_smear_px >= 1.0:
        dirt = texture.smear(dirt, look.dirt_smear_px, look.dirt_smear_azimuth_rad)
    if look.dirt_coverage < 1.0:
        # Every fourth pixel tells the quantile well enough, and in a sixteenth of the time.
        threshold = np.quantile(dirt[::4, ::4], 1.0 - look.dirt_coverage)
        dirt = dirt * np.clip((dirt - threshold) / _DIRT_EDGE + 0.5, 0.0, 1.0)
    factor: FloatImage = np.maximum(1.0 + look.dirt_strength * dirt, 0.0).astype(np.float32)
    return factor


def _count(rng: np.random.Generator, density: float, shape: tuple[int, int]) -> int:
    return int(rng.poisson(density * shape[0] * shape[1] * _PER_PX))


def _ramp(shape: tuple[int, int], azimuth_rad: float) -> FloatImage:
    """Plane through 0 in the middle that reaches 1 at the farthest corner."""
    x = np.linspace(-1.0, 1.0, shape[1]) * np.cos(azimuth_rad)
    y = np.linspace(-1.0, 1.0, shape[0]) * np.sin(azimuth_rad)
    plane = x[None, :] + y[:, None]
    ramp: FloatImage = (plane / max(float(plane.max()), 1e-9)).astype(np.float32)
    return ramp
