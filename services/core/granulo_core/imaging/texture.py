# SPDX-License-Identifier: GPL-3.0-or-later
"""Random textures of substrates and surfaces: fractal noise, dirt, ridges, scratches and specks.

Every function is deterministic from its arguments and the state of ``rng``, and returns float32.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]

_BLUR_LIMIT_PX = 6.0


def blur(image: FloatImage, sigma_px: float) -> FloatImage:
    """Gaussian blur; wide kernels are applied on a coarser grid, which is fast and looks the same.

    Parameters
    ----------
    image : (H, W) float32
    sigma_px : float
        Standard deviation in pixels; 0 or less returns the image unchanged.

    Returns
    -------
    (H, W) float32
    """
    if sigma_px <= 0:
        return image
    step = 1
    while sigma_px / step > _BLUR_LIMIT_PX and min(image.shape) // (step * 2) >= 8:
        step *= 2
    if step == 1:
        return _float32(cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT))
    height, width = image.shape
    small = cv2.resize(
        image,
        (-(-width // step), -(-height // step)),
        interpolation=cv2.INTER_AREA,
    )
    small = cv2.GaussianBlur(small, (0, 0), sigma_px / step, borderType=cv2.BORDER_REFLECT)
    return _float32(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def fractal_noise(rng: np.random.Generator, shape: tuple[int, int], beta: float) -> FloatImage:
    """Noise with the power spectrum f^-beta, zero mean and unit variance.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : (int, int)
        Height and width in pixels.
    beta : float
        0 is white noise, 1 is pink, 2 and more are cloudy.

    Returns
    -------
    (H, W) float32
    """
    height, width = shape
    columns = width // 2 + 1
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    spectrum = rng.standard_normal((2, height, columns), dtype=np.float32)
    amplitude = np.power(frequency, -beta / 2.0)
    noise = np.fft.irfft2((spectrum[0] + 1j * spectrum[1]) * amplitude, s=shape)
    return _standardised(noise.astype(np.float32))


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], cells: int = 5) -> FloatImage:
    """A slowly varying field of about unit amplitude: drifts of brightness over the frame."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    return _float32(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC))


def diamond_square(
    rng: np.random.Generator, shape: tuple[int, int], roughness: float = 0.55
) -> FloatImage:
    """Dirt by random midpoint displacement on the diamond-square scheme (M4).

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : (int, int)
        Height and width in pixels; the grid of 2^k + 1 points that covers it is cropped.
    roughness : float
        Ratio of the displacement between two subdivisions, 0 to 1; higher is rougher.

    Returns
    -------
    (H, W) float32, zero mean and unit variance.
    """
    levels = max(1, int(np.ceil(np.log2(max(*shape, 3) - 1))))
    size = 2**levels + 1
    grid = np.zeros((size, size), dtype=np.float32)
    grid[:: size - 1, :: size - 1] = rng.standard_normal((2, 2), dtype=np.float32)
    step, amplitude = size - 1, 1.0
    while step > 1:
        half = step // 2
        corners = grid[::step, ::step]
        centres = (corners[:-1, :-1] + corners[1:, :-1] + corners[:-1, 1:] + corners[1:, 1:]) / 4
        centres += amplitude * rng.standard_normal(centres.shape, dtype=np.float32)
        grid[half::step, half::step] = centres
        # The two families of diamond points; at the frame only three neighbours exist.
        rows = np.pad(centres, ((0, 0), (1, 1)), mode="edge")
        on_rows = (corners[:-1] + corners[1:] + rows[:, :-1] + rows[:, 1:]) / 4
        columns = np.pad(centres, ((1, 1), (0, 0)), mode="edge")
        on_columns = (corners[:, :-1] + corners[:, 1:] + columns[:-1] + columns[1:]) / 4
        on_rows += amplitude * rng.standard_normal(on_rows.shape, dtype=np.float32)
        on_columns += amplitude * rng.standard_normal(on_columns.shape, dtype=np.float32)
        grid[half::step, ::step] = on_rows
        grid[::step, half::step] = on_columns
        step, amplitude = half, amplitude * roughness
    return _standardised(grid[: shape[0], : shape[1]].copy())


def ridges(rng: np.random.Generator, shape: tuple[int, int], width_px: float) -> FloatImage:
    """Short, one-sided bright lines: contours of band-passed noise, lit from one side.

    They look like the ridges of a carbon film or a coarse wafer; peaks are about 1.
    """
    lines = _band_noise(rng, shape, width_px, width_px * 1.8)
    patches = _band_noise(rng, shape, width_px * 0.9, width_px * 2.5) - rng.uniform(0.3, 1.5)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    slope = cv2.Sobel(lines, cv2.CV_32F, 1, 0) * np.float32(np.cos(angle))
    slope += cv2.Sobel(lines, cv2.CV_32F, 0, 1) * np.float32(np.sin(angle))
    scale = 2.0 * float(np.abs(slope).mean()) + 1e-6
    side = np.clip(slope / scale + 0.3, -0.4, 1.0)
    crest = np.exp(-np.square(lines / rng.uniform(0.1, 0.35)))
    return _float32(crest * np.clip(2.0 * patches, 0.0, 1.0) * side)


def scratches(rng: np.random.Generator, shape: tuple[int, int], count: int) -> FloatImage:
    """Straight thin lines of either sign, slightly blurred; amplitudes -1.5 to 3."""
    canvas = np.zeros(shape, dtype=np.float32)
    for _ in range(count):
        start = rng.uniform((0, 0), (shape[1], shape[0]))
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.8) * max(shape)
        end = start + length * np.array([np.cos(angle), np.sin(angle)])
        cv2.line(canvas, _point(start), _point(end), float(rng.uniform(-1.5, 3.0)), 1, cv2.LINE_AA)
    return blur(canvas, float(rng.uniform(0.5, 1.5)))


def specks(rng: np.random.Generator, shape: tuple[int, int], count: int) -> FloatImage:
    """Small round spots of dust, 1 to 3 px in radius; amplitudes -1 to 3."""
    canvas = np.zeros(shape, dtype=np.float32)
    for _ in range(count):
        centre = rng.uniform((0, 0), (shape[1], shape[0]))
        value = float(rng.uniform(-1.0, 3.0))
        cv2.circle(canvas, _point(centre), int(rng.integers(1, 4)), value, -1, cv2.LINE_AA)
    return blur(canvas, float(rng.uniform(0.6, 1.5)))


def curls(rng: np.random.Generator, shape: tuple[int, int], count: int) -> FloatImage:
    """Thin, uneven, open or closed loops: relief of a substrate that is easily taken for particles.

    Radii are 3 to 20 px, amplitudes 0.5 to 4.
    """
    canvas = np.zeros(shape, dtype=np.float32)
    for _ in range(count):
        centre = rng.uniform((0, 0), (shape[1], shape[0]))
        radius = float(np.exp(rng.uniform(np.log(3.0), np.log(20.0))))
        begin, sweep = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(1.5, 2.0 * np.pi)
        angle = begin + np.linspace(0.0, sweep, 24)
        wave = (
            1.0 + 0.2 * np.cos(2.0 * angle + begin) + rng.uniform(-0.15, 0.15) * np.cos(3 * angle)
        )
        x = centre[0] + radius * wave * np.cos(angle)
        y = centre[1] + radius * wave * rng.uniform(0.6, 1.0) * np.sin(angle)
        points = np.rint(np.stack([x, y], axis=1) * 8).astype(np.int32)[:, None]
        value = float(rng.uniform(0.5, 4.0))
        cv2.polylines(canvas, [points], False, value, 1, cv2.LINE_AA, 3)
    return blur(canvas, float(rng.uniform(0.5, 1.2)))


def _band_noise(
    rng: np.random.Generator, shape: tuple[int, int], low_px: float, high_px: float
) -> FloatImage:
    noise = rng.standard_normal(shape, dtype=np.float32)
    return _standardised(blur(noise, low_px) - blur(noise, high_px))


def _standardised(field: FloatImage) -> FloatImage:
    field = field - field.mean()
    return _float32(field / (float(field.std()) + 1e-9))


def _point(xy: NDArray[np.float64]) -> tuple[int, int]:
    return int(xy[0]), int(xy[1])


def _float32(values: Any) -> FloatImage:
    result: FloatImage = np.asarray(values, dtype=np.float32)
    return result
