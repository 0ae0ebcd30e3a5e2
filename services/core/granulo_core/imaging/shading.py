# SPDX-License-Identifier: GPL-3.0-or-later
"""The noiseless signal of a scene: particles, shadows, charge and dirt."""

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging import texture
from granulo_core.imaging.antialias import blend_edges
from granulo_core.imaging.layers import NORMAL_SCALE, Layers
from granulo_core.imaging.look import Look
from granulo_core.imaging.streams import Effect, Streams
from granulo_core.imaging.substrate import dirt_factor, substrate_signal
from granulo_core.imaging.texture import FloatImage

_COSINES = np.clip(np.abs(np.arange(256, dtype=np.uint8).view(np.int8) / NORMAL_SCALE), 0.02, 1.0)
"""Cosine of a surface's tilt by the byte of its normal's z."""
_SHADED_AS = Look()
"""The look whose levels :attr:`Layers.shaded` has."""
_ABSORPTION = 1.5
"""Optical depth of a typical particle where ``thickness_contrast`` is 1."""
_PENUMBRA = 0.8
"""Depth below the horizon at which a shadow is full, relative to the particles' mean height: slow
electrons reach the detector on bent ways."""
_STREAK_SPREAD = 0.5
"""How much trails differ from scan line to scan line."""


def shade(layers: Layers, look: Look, streams: Streams) -> FloatImage:
    """The noiseless secondary-electron signal.

    Parameters
    ----------
    layers : Layers
    look : Look
    streams : Streams

    Returns
    -------
    (H, W) float32
        About 0 to 1.5, not negative.
    """
    particles = layers.instances > 0
    own_level = np.take(_particle_levels(layers, look, streams), layers.instances)
    if layers.contrast is not None:
        own_level *= layers.contrast.astype(np.float32)
    ground = substrate_signal(layers.shape, look, streams)
    if layers.shaded is None:
        surface = _surface(layers, look, own_level)
    else:
        surface = own_level / np.float32(_SHADED_AS.particle_level)
        ground = ground / np.float32(_SHADED_AS.substrate_level)
    if look.surface_texture:
        noise = texture.fractal_noise(streams[Effect.SURFACE], layers.shape, look.surface_beta)
        surface *= np.maximum(0.0, 1.0 + look.surface_texture * noise)
    signal: FloatImage = np.where(particles, surface, ground)
    if layers.shaded is not None:
        signal *= layers.shaded.astype(np.float32)
    elif look.occlusion_strength:
        openness = (np.arange(256) / 255.0) ** look.occlusion_power
        signal *= _by_byte(layers.occlusion, 1.0 - look.occlusion_strength * (1.0 - openness))
    if look.shadow_strength:
        shadow = cast_shadow(layers, look.detector_azimuth_rad, look.shadow_length)
        signal *= 1.0 - np.float32(look.shadow_strength) * shadow
    if layers.shaded is None:  # Cycles sampled whole pixels
        signal = blend_edges(signal, layers.instances, layers.coverage)
    if look.halo_strength:
        halo = texture.blur(particles.astype(np.float32), look.halo_sigma_px)
        signal += np.float32(look.halo_strength) * np.where(particles, 0.0, halo)
    if look.streak_strength:
        signal += _streaks(np.where(particles, signal, 0.0), look, streams)
    if look.dirt_strength:
        signal *= dirt_factor(layers.shape, look, streams)
    if look.bloom_strength:
        spread = texture.blur(signal, look.bloom_sigma_px)
        signal += np.float32(look.bloom_strength) * (spread - signal)
    result: FloatImage = np.maximum(signal, 0.0, dtype=np.float32)
    return result


def cast_shadow(layers: Layers, azimuth_rad: float, length: float) -> FloatImage:
    """Where particles stand between a surface and the detector.

    The horizon towards the detector is the highest of all heights on the way, each lowered with its
    distance; it is found by doubling that distance, in logarithmically many steps.

    Parameters
    ----------
    layers : Layers
    azimuth_rad : float
        Direction of the detector, from x to the right to y down.
    length : float
        Length of a shadow over the height that casts it: 1 / tan(elevation of the detector).

    Returns
    -------
    (H, W) float32
        0 in the open to 1 in full shadow, with soft edges.
    """
    height = layers.height_nm.astype(np.float32) / np.float32(layers.pixel_size_nm)
    raised = height[layers.instances > 0]
    if not raised.size:
        return np.zeros(layers.shape, dtype=np.float32)
    reach = min(float(raised.max()) * length, float(np.hypot(*layers.shape)))
    horizon = height.copy()
    step = 1.0
    while step <= reach:
        dx, dy = round(step * np.cos(azimuth_rad)), round(step * np.sin(azimuth_rad))
        here, there = texture.shifted(layers.shape, dx, dy)
        lowered = horizon[there] - np.float32(np.hypot(dx, dy) / length)
        np.maximum(horizon[here], lowered, out=horizon[here])
        step *= 2.0
    softness = _PENUMBRA * max(float(raised.mean()), 1e-3)
    shadow = np.minimum((horizon - height) / np.float32(softness), np.float32(1.0))
    return texture.blur(shadow, float(np.clip(0.2 * softness, 0.6, 8.0)))


def _surface(layers: Layers, look: Look, own_level: FloatImage) -> FloatImage:
    """Signal of the particles' surfaces, before texture and occlusion."""
    tilt = np.ascontiguousarray(layers.normals[..., 2]).view(np.uint8)
    edge = (np.minimum(_COSINES**-look.rim_power, look.rim_cap) - 1.0) / (look.rim_cap - 1.0)
    fixed_rim = look.rim_strength * (1.0 - look.rim_follows) * edge
    own_rim = look.rim_strength * look.rim_follows * edge / max(look.particle_level, 1e-3)
    body = 1.0 - look.tilt_darkening * (1.0 - _COSINES)
    surface = own_level * _by_byte(tilt, body + own_rim) + _by_byte(tilt, fixed_rim)
    if look.detector_strength:
        slope = look.detector_strength / NORMAL_SCALE
        cosine, sine = np.cos(look.detector_azimuth_rad), np.sin(look.detector_azimuth_rad)
        weights = np.array([[slope * cosine, slope * sine, 0.0]], dtype=np.float32)
        facing = cv2.transform(layers.normals.astype(np.float32), weights)
        surface *= np.maximum(0.0, 1.0 + facing)
    if look.thickness_contrast:
        surface *= _thickness_factor(layers, look.thickness_contrast, _by_byte(tilt, _COSINES))
    result: FloatImage = surface.astype(np.float32, copy=False)
    return result


def _thickness_factor(layers: Layers, share: float, cosine: FloatImage) -> FloatImage:
    """Mass-thickness contrast; height times cosine stands for the material in the beam.

    Exact in the middle and at the rim of a sphere and for flat faces; 1 for a particle as thick as
    most.
    """
    height = layers.height_nm.astype(np.float32)
    raised = height[::2, ::2][layers.instances[::2, ::2] > 0]
    typical = max(float(np.quantile(raised, 0.75)) if raised.size else 1.0, 1e-3)
    passed = cv2.exp(height * cosine * np.float32(-_ABSORPTION / typical))
    gain = share / (1.0 - np.exp(-_ABSORPTION))
    factor: FloatImage = np.float32(1.0 - share + gain) - np.float32(gain) * passed
    return factor


def _particle_levels(layers: Layers, look: Look, streams: Streams) -> NDArray[np.float32]:
    """Brightness of each instance id; id 0 (substrate) is included and never used."""
    count = int(layers.instances.max(initial=0)) + 1
    spread = streams[Effect.LEVELS].standard_normal(count)
    levels = look.particle_level * np.exp(look.particle_spread * spread)
    if look.height_gain:
        tops = np.zeros(count, dtype=np.float32)
        np.maximum.at(tops, layers.instances.ravel(), layers.height_nm.ravel().astype(np.float32))
        present = tops[1:][tops[1:] > 0]
        typical = float(np.median(present)) if present.size else 1.0
        excess = np.clip(tops / max(typical, 1e-3) - 1.0, -0.5, 2.0)
        levels = levels * np.maximum(0.1, 1.0 + look.height_gain * excess)
    outstanding = streams[Effect.BRIGHT].random(count) < look.bright_fraction
    levels = np.where(outstanding, levels * look.bright_gain, levels)
    result: NDArray[np.float32] = levels.astype(np.float32)
    return result


def _streaks(source: FloatImage, look: Look, streams: Streams) -> FloatImage:
    """What charged particles leave on the rest of their scan lines: an exponential trail."""
    height, width = source.shape
    decay = float(np.exp(-1.0 / look.streak_length_px))
    lines = 1.0 + _STREAK_SPREAD * streams[Effect.STREAKS].standard_normal((height, 1))
    gain = look.streak_strength * (1.0 - decay) * np.maximum(lines, 0.0)
    trail = source * gain.astype(np.float32)
    # (1 + a z)(1 + a^2 z^2)(1 + a^4 z^4)... is the geometric series of the trail.
    reach = 1
    while reach < width and decay**reach > 1e-3:
        trail[:, reach:] += np.float32(decay**reach) * trail[:, :-reach]
        reach *= 2
    return trail


def _by_byte(image: NDArray[np.uint8], values: NDArray[np.float64]) -> FloatImage:
    """Look every byte up in a table of 256 values: functions of a byte are cheap that way."""
    result: FloatImage = cv2.LUT(image, values.astype(np.float32))
    return result
