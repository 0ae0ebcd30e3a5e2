# SPDX-License-Identifier: GPL-3.0-or-later
"""What beam, scan, detector and display make of the signal."""

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging import texture
from granulo_core.imaging.look import Look
from granulo_core.imaging.streams import Effect, Streams
from granulo_core.imaging.texture import FloatImage

_FOCUS_LEVELS = 4
_FOCUS_LIMIT_PX = 12.0
"""Widest blur of what is out of focus."""


def detect(
    signal: FloatImage, height_nm: NDArray[np.float16], look: Look, streams: Streams
) -> FloatImage:
    """Image of a noiseless signal.

    Parameters
    ----------
    signal : (H, W) float32
        Not negative.
    height_nm : (H, W) float16
        Height above the substrate, for the depth of focus.
    look : Look
    streams : Streams

    Returns
    -------
    (H, W) float32 in [0, 1]
    """
    if look.inverted:
        # Beer and Lambert: what passes through, so that grey levels swap their order.
        signal = signal + np.float32(look.inverted) * (cv2.exp(-signal) - signal)
    if look.defocus_px_per_um:
        signal = _defocus(signal, height_nm.astype(np.float32), look)
    if look.upsampling > 1:
        signal = _coarsen(signal, int(look.upsampling))
    signal = texture.blur(_illuminate(signal, look, streams), look.psf_sigma_px)
    if look.scan_drift_px or look.scan_jitter_px:
        signal = _displace_lines(signal, look, streams)
    return _display(_add_noise(signal, look, streams), look)


def _defocus(signal: FloatImage, height_nm: FloatImage, look: Look) -> FloatImage:
    """Blur by the distance from the focus: a few blur levels, blended pixel by pixel."""
    focus_nm = look.focus_height * float(height_nm.max(initial=0.0))
    sigma = np.abs(height_nm - np.float32(focus_nm)) * np.float32(look.defocus_px_per_um / 1000.0)
    widest = min(float(sigma.max(initial=0.0)), _FOCUS_LIMIT_PX)
    if widest < 0.05:
        return signal
    step = widest / (_FOCUS_LEVELS - 1)
    place = sigma / np.float32(step)
    # Linear between the levels: each further one takes over as the distance passes through it.
    result = signal.copy()
    sharper = signal
    for level in range(1, _FOCUS_LEVELS):
        softer = texture.blur(signal, level * step)
        result += np.clip(place - np.float32(level - 1), 0.0, 1.0) * (softer - sharper)
        sharper = softer
    return result


def _coarsen(signal: FloatImage, factor: int) -> FloatImage:
    """M9: what a render of size / factor looks like after bilinear upsampling."""
    height, width = signal.shape
    small = cv2.resize(
        signal,
        (max(1, round(width / factor)), max(1, round(height / factor))),
        interpolation=cv2.INTER_AREA,
    )
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    result: FloatImage = large.astype(np.float32)
    return result


def _illuminate(signal: FloatImage, look: Look, streams: Streams) -> FloatImage:
    """Uneven and overall brightness of the beam."""
    height, width = signal.shape
    if look.drift_strength:
        field = texture.smooth_field(streams[Effect.DRIFT], (height, width))
        signal = signal * np.maximum(0.0, 1.0 + look.drift_strength * field)
    if look.vignetting:
        x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
        y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
        signal = signal * (1.0 - np.float32(0.5 * look.vignetting) * (x * x + y * y))
    if look.exposure != 1.0:
        signal = signal * np.float32(look.exposure)
    result: FloatImage = signal.astype(np.float32, copy=False)
    return result


def _displace_lines(signal: FloatImage, look: Look, streams: Streams) -> FloatImage:
    """Scan lines that do not begin where they should: a slow walk and a tremble."""
    height, width = signal.shape
    shift = look.scan_jitter_px * streams[Effect.SCAN_JITTER].standard_normal((height, 1))
    if look.scan_drift_px:
        walk = np.cumsum(streams[Effect.SCAN_DRIFT].standard_normal(height))
        walk -= walk.mean()
        smooth = cv2.GaussianBlur(walk[:, None], (1, 0), 0.1, sigmaY=4.0)
        shift += smooth * (look.scan_drift_px / max(float(np.abs(smooth).max()), 1e-9))
    columns = np.arange(width, dtype=np.float32)[None, :] + shift.astype(np.float32)
    rows = np.repeat(np.arange(height, dtype=np.float32)[:, None], width, axis=1)
    moved: FloatImage = cv2.remap(
        signal, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return moved


def _add_noise(signal: FloatImage, look: Look, streams: Streams) -> FloatImage:
    shape = (signal.shape[0], signal.shape[1])
    if look.line_noise:
        lines = streams[Effect.LINES].standard_normal((shape[0], 1), dtype=np.float32)
        signal = signal * (1.0 + np.float32(look.line_noise) * lines)
    if look.dose > 0:
        # Gaussian approximation of the shot noise: ten times as fast, and equal from a few
        # electrons on.
        shot = texture.normal(streams[Effect.SHOT], shape)
        signal = signal + shot * np.sqrt(np.maximum(signal, 0.0) / np.float32(look.dose))
    if look.gaussian_noise:
        noise = texture.normal(streams[Effect.GAUSSIAN], shape)
        if look.noise_correlation_px > 0:
            noise = texture.blur(noise, look.noise_correlation_px)
            noise /= np.float32(float(noise.std()) + 1e-9)
        signal = signal + np.float32(look.gaussian_noise) * noise
    return signal


def _display(signal: FloatImage, look: Look) -> FloatImage:
    if look.saturation:
        signal = np.minimum(signal, np.float32(look.saturation))
    if look.sharpening:
        signal = signal + np.float32(look.sharpening) * (signal - texture.blur(signal, 1.5))
    displayed = np.clip(
        signal * np.float32(look.contrast) + np.float32(look.brightness), 0.0, 1.0
    ).astype(np.float32, copy=False)
    result: FloatImage = cv2.pow(displayed, look.gamma)
    return result
