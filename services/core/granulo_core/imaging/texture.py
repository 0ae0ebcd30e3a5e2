# SPDX-License-Identifier: GPL-3.0-or-later
"""Random textures of substrates and surfaces: fractal noise, dirt, ridges, scratches and specks.

Every function is deterministic from its arguments and the state of ``rng``, and returns float32.
"""

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.special import ndtri

FloatImage = NDArray[np.float32]

_BLUR_LIMIT_PX = 3.0
_NORMAL = ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)
"""Quantiles of the normal distribution."""


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatImage:
    """White noise of zero mean and unit variance, cut off at 4.3 standard deviations.

    Quantiles are looked up for 16 random bits each: a third of the time of an exact sample.
    """
    ranks = rng.integers(0, 65536, shape, dtype=np.uint16)
    noise: FloatImage = np.take(_NORMAL, ranks, mode="wrap")  # no check of bounds: faster
    return noise


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
    spectrum = normal(rng, (2, height, width // 2 + 1))
    spectrum *= cv2.exp(np.float32(-beta / 2.0) * _log_frequency(height, width))
    spectrum[:, 0, 0] = 0.0
    noise = fft.irfft2(spectrum[0] + np.complex64(1j) * spectrum[1], s=shape, overwrite_x=True)
    return _standardised(noise)


@lru_cache(maxsize=8)
def _log_frequency(height: int, width: int) -> FloatImage:
    """Logarithm of the frequency of each coefficient; 0 at the mean, which has none."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    logarithm = _float32(np.log(frequency))
    logarithm.flags.writeable = False
    return logarithm


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
        centres += np.float32(amplitude) * normal(rng, centres.shape)
        grid[half::step, half::step] = centres
        # The two families of diamond points; at the frame only three neighbours exist.
        rows = np.pad(centres, ((0, 0), (1, 1)), mode="edge")
        on_rows = (corners[:-1] + corners[1:] + rows[:, :-1] + rows[:, 1:]) / 4
        columns = np.pad(centres, ((1, 1), (0, 0)), mode="edge")
        on_columns = (corners[:, :-1] + corners[:, 1:] + columns[:-1] + columns[1:]) / 4
        on_rows += np.float32(amplitude) * normal(rng, on_rows.shape)
        on_columns += np.float32(amplitude) * normal(rng, on_columns.shape)
        grid[half::step, ::step] = on_rows
        grid[::step, half::step] = on_columns
        step, amplitude = half, amplitude * roughness
    return _standardised(grid[: shape[0], : shape[1]].copy())


def smear(image: FloatImage, length_px: float, azimuth_rad: float) -> FloatImage:
    """Average along a line, as if wiped; zero mean and unit variance again.

    The line is doubled in logarithmically many steps, so that its length costs next to nothing.

    Parameters
    ----------
    image : (H, W) float32
    length_px : float
        Length of the line; below 1 nothing is smeared.
    azimuth_rad : float
        Its direction, from x to the right to y down.

    Returns
    -------
    (H, W) float32
    """
    steps = int(np.ceil(np.log2(max(length_px, 1.0))))
    margin = int(np.ceil(length_px)) + steps
    field = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT)
    unit = length_px / 2.0**steps
    begin = -length_px / 2.0
    offset = np.rint(begin * np.array([np.sin(azimuth_rad), np.cos(azimuth_rad)])).astype(int)
    for step in range(steps):
        reach = unit * 2.0**step
        dy, dx = round(reach * np.sin(azimuth_rad)), round(reach * np.cos(azimuth_rad))
        field = np.float32(0.5) * (field + np.roll(field, (-dy, -dx), (0, 1)))
    top, left = margin + offset
    return _standardised(field[top : top + image.shape[0], left : left + image.shape[1]])


def shifted(shape: tuple[int, int], dx: int, dy: int) -> tuple[Any, Any]:
    """Index of all pixels that have a pixel (dx, dy) away inside the image, and of the latter."""
    height, width = shape
    dx, dy = max(-width, min(dx, width)), max(-height, min(dy, height))
    here = np.s_[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
    there = np.s_[max(0, dy) : height - max(0, -dy), max(0, dx) : width - max(0, -dx)]
    return here, there


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
    crest = cv2.exp(-np.square(lines / np.float32(rng.uniform(0.1, 0.35))))
    return _float32(crest * np.clip(2.0 * patches, 0.0, 1.0) * side)


def cracks(rng: np.random.Generator, shape: tuple[int, int], grain_px: float) -> FloatImage:
    """Dark lines between the grains of a thin film, one flank of them lit; from about -1.5 to 0.5.

    They look like sputtered gold on a wafer: the zero lines of band-passed noise wind between
    islands of about one size.
    """
    field = _band_noise(rng, shape, grain_px * 0.5, grain_px)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    slope = cv2.Sobel(field, cv2.CV_32F, 1, 0) * np.float32(np.cos(angle))
    slope += cv2.Sobel(field, cv2.CV_32F, 0, 1) * np.float32(np.sin(angle))
    flank = slope / np.float32(3.0 * float(np.abs(slope).mean()) + 1e-6)
    crest = cv2.exp(-np.square(field / np.float32(rng.uniform(0.2, 0.6))))
    return _float32(crest * (np.clip(flank, -0.5, 1.5) - 1.0))


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
    centre = rng.uniform((0, 0), (shape[1], shape[0]), (count, 2))
    radius, begin, sweep, wobble, squash, value = rng.uniform(
        (np.log(3.0), 0.0, 1.5, -0.15, 0.6, 0.5),
        (np.log(20.0), 2.0 * np.pi, 2.0 * np.pi, 0.15, 1.0, 4.0),
        (count, 6),
    ).T
    angle = begin[:, None] + sweep[:, None] * np.linspace(0.0, 1.0, 24)
    wave = 1.0 + 0.2 * np.cos(2.0 * angle + begin[:, None]) + wobble[:, None] * np.cos(3 * angle)
    wave *= np.exp(radius)[:, None]
    x = centre[:, :1] + wave * np.cos(angle)
    y = centre[:, 1:] + wave * squash[:, None] * np.sin(angle)
    points = np.rint(np.stack([x, y], axis=-1) * 8.0).astype(np.int32)[:, :, None]
    canvas = np.zeros(shape, dtype=np.float32)
    for loop, level in zip(points, value.tolist(), strict=True):
        cv2.polylines(canvas, [loop], False, level, 1, cv2.LINE_AA, 3)
    return blur(canvas, float(rng.uniform(0.5, 1.2)))


def _band_noise(
    rng: np.random.Generator, shape: tuple[int, int], low_px: float, high_px: float
) -> FloatImage:
    # On a grid as coarse as the finer blur allows.
    step = max(1, int(low_px / 1.5))
    height, width = shape
    noise = normal(rng, (-(-height // step), -(-width // step)))
    band = _standardised(blur(noise, low_px / step) - blur(noise, high_px / step))
    if step == 1:
        return band
    return _float32(cv2.resize(band, (width, height), interpolation=cv2.INTER_CUBIC))


def _standardised(field: FloatImage) -> FloatImage:
    mean, deviation = cv2.meanStdDev(field)
    scale = np.float32(1.0 / (deviation.item() + 1e-9))
    return _float32((field - np.float32(mean.item())) * scale)


def _point(xy: NDArray[np.float64]) -> tuple[int, int]:
    return int(xy[0]), int(xy[1])


def _float32(values: Any) -> FloatImage:
    result: FloatImage = np.asarray(values, dtype=np.float32)
    return result
