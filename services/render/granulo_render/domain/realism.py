# SPDX-License-Identifier: GPL-3.0-or-later
"""How alike rendered and reference micrographs are: curves to look at, distances to go by.

All images are grey levels 0 to 1, without data bars. Lengths are pixels, so that the recipe's
pixel size should be that of the references.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from granulo_core.imaging.patch_texture import feature_distance_ratio, image_features, patch_side
from granulo_core.imaging.profiles import Line, line_profile

FloatArray = NDArray[np.float64]
Images = Sequence[NDArray[Any]]

_BINS = 256
_BANDS_PER_OCTAVE = 4
_LOWEST_WAVES = 4  # per image side: with fewer, window and sample size decide the spectrum
_QUANTISATION = 1 / 255**2 / 12  # variance that rounding to 8 bit adds: less is nothing


@dataclass(frozen=True, eq=False)
class Curve:
    """Something to plot."""

    label: str
    """``references`` and ``rendered`` are the sets, ``reference 1``, ``rendered 1`` images."""
    x: FloatArray
    y: FloatArray


@dataclass(frozen=True, eq=False)
class Comparison:
    """Reference and rendered micrographs side by side; every distance is 0 for equal sets."""

    grey_level_distance: float
    """Wasserstein distance of the grey levels, in shares of the full range."""
    spectrum_distance_db: float
    """Root mean square difference of the radial power spectra."""
    feature_distance: float
    """Frechet distance of the texture features."""
    feature_distance_ratio: float
    """Divided by that between two halves of the references."""
    patch_px: int
    """Side of the patches whose texture was compared: 144, less where an image is smaller."""
    line: Line | None
    """Where the profiles were taken; none means each image's horizontal middle line."""
    profiles: tuple[Curve, ...]
    """Of every image: intensity (0 to 1) by distance in pixels."""
    grey_levels: tuple[Curve, ...]
    """Of every image and set: probability density by grey level (0 to 1)."""
    spectra: tuple[Curve, ...]
    """Of every image and set: power in dB by spatial frequency in cycles per pixel."""


def compare(references: Images, rendered: Images, line: Line | None = None) -> Comparison:
    """Compare rendered micrographs with reference micrographs.

    Parameters
    ----------
    references, rendered : sequence of (H, W) float
        Grey levels 0 to 1; sizes may differ.
    line : tuple of float, optional
        Line of the intensity profiles; the horizontal middle line when left out.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        When a set is empty, an image is too small or not finite, or the line leaves an image.
    """
    sets = {
        "reference": _checked(references, "reference"),
        "rendered": _checked(rendered, "rendered"),
    }
    images = {
        f"{name} {number}": image
        for name, members in sets.items()
        for number, image in enumerate(members, start=1)
    }
    profiles = tuple(
        Curve(label, *_labelled_profile(label, image, line)) for label, image in images.items()
    )
    edges = spectrum_edges(list(images.values()))
    grey_levels: list[Curve] = []
    spectra: list[Curve] = []
    for name, members in sets.items():
        labels = [f"{name} {number}" for number in range(1, len(members) + 1)]
        densities = [grey_level_density([image]) for image in members]
        levels = [radial_spectrum_db(image, edges) for image in members]
        whole = "references" if name == "reference" else name
        grey_levels.append(Curve(whole, *_mean(densities)))
        spectra.append(Curve(whole, *_mean(levels)))
        grey_levels += [Curve(label, *xy) for label, xy in zip(labels, densities, strict=True)]
        spectra += [Curve(label, *xy) for label, xy in zip(labels, levels, strict=True)]
    side_px = patch_side(sets["reference"], sets["rendered"])
    distance, ratio = feature_distance_ratio(
        image_features(sets["reference"], side_px), image_features(sets["rendered"], side_px)
    )
    return Comparison(
        grey_level_distance=grey_level_distance(sets["reference"], sets["rendered"]),
        spectrum_distance_db=spectrum_distance_db(sets["reference"], sets["rendered"]),
        feature_distance=distance,
        feature_distance_ratio=ratio,
        patch_px=side_px,
        line=line,
        profiles=profiles,
        grey_levels=tuple(grey_levels),
        spectra=tuple(spectra),
    )


def grey_level_density(images: Images) -> tuple[FloatArray, FloatArray]:
    """Probability density of the grey levels; every image weighs the same, whatever its size.

    Returns
    -------
    level, density : (256,) float64
        Middle of each grey level, 0 to 1, and density (its integral is 1).
    """
    share = np.mean(
        [
            np.bincount(np.clip(np.rint(image * (_BINS - 1)), 0, _BINS - 1).astype(int).ravel(),
                        minlength=_BINS) / image.size
            for image in images
        ],
        axis=0,
    )  # fmt: skip
    return np.arange(_BINS) / (_BINS - 1), share * (_BINS - 1)


def grey_level_distance(first: Images, second: Images) -> float:
    """Wasserstein distance of the grey levels of two sets, in shares of the full range.

    The mean change of grey level that turns one distribution into the other: in one dimension the
    integral of the difference of the cumulative distributions (Vallender 1974, Theory Probab. Appl.
    18, 784).
    """
    _, a = grey_level_density(first)
    _, b = grey_level_density(second)
    step = 1 / (_BINS - 1)
    return float(np.sum(np.abs(np.cumsum((a - b) * step))) * step)


def radial_spectrum_db(
    image: NDArray[Any], edges: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Power spectral density by spatial frequency, averaged over all directions.

    The image less its mean, under a Hann window (Harris 1978, Proc. IEEE 66, 51), so that its
    borders count for nothing; divided by the window's energy, so that images of different sizes
    compare: white noise of variance v gives 10 log10(v) at every frequency.

    Parameters
    ----------
    image : (H, W) float
    edges : (N + 1,) float64, optional
        Limits of the rings in cycles per pixel; by default rings as wide as one wave per shorter
        image side, from one such wave to 0.5.

    Returns
    -------
    frequency, power_db : (N,) float64
        Middle of each ring in cycles per pixel, and mean power in it in dB of the full grey range
        squared. What rounding to 8 bit adds, -59 dB, is the least.
    """
    height, width = image.shape
    if edges is None:
        side = min(height, width)
        edges = (np.arange(side // 2) + 0.5) / side
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    signal = np.asarray(image, dtype=np.float64)
    power = np.abs(fft.rfft2((signal - signal.mean()) * window)) ** 2 / np.sum(window**2)
    column = fft.rfftfreq(width)
    radius = np.hypot(fft.fftfreq(height)[:, None], column[None, :])
    # Columns between the first and the last stand for two frequencies, f and -f.
    weight = np.broadcast_to(np.where((column > 0) & (column < 0.5), 2.0, 1.0), radius.shape)
    ring = np.searchsorted(edges, radius.ravel(), side="right") - 1
    inside = (ring >= 0) & (ring < len(edges) - 1)
    total, samples = (
        np.bincount(ring[inside], values.ravel()[inside], len(edges) - 1)
        for values in (power * weight, weight)
    )
    mean = total / np.maximum(samples, 1)
    return (edges[1:] + edges[:-1]) / 2, 10 * np.log10(mean + _QUANTISATION)


def spectrum_edges(images: Images) -> FloatArray:
    """Limits of rings, a quarter octave each, that every one of the images can fill, (N + 1,)."""
    lowest = _LOWEST_WAVES / min(min(image.shape) for image in images)
    octaves = np.log2(0.5 / lowest)
    return np.geomspace(lowest, 0.5, max(1, round(octaves * _BANDS_PER_OCTAVE)) + 1)


def spectrum_distance_db(first: Images, second: Images) -> float:
    """Root mean square difference of the radial power spectra of two sets, in dB.

    Over rings of a quarter octave, so that every octave weighs the same; a set's spectrum is the
    mean of its images' in dB, so that no bright image outweighs the others.
    """
    edges = spectrum_edges([*first, *second])
    a, b = (
        np.mean([radial_spectrum_db(image, edges)[1] for image in images], axis=0)
        for images in (first, second)
    )
    return float(np.sqrt(np.mean((a - b) ** 2)))


def _labelled_profile(
    label: str, image: NDArray[Any], line: Line | None
) -> tuple[FloatArray, FloatArray]:
    height, width = image.shape
    try:
        return line_profile(image, line or (0.5, height / 2, width - 0.5, height / 2))
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error


def _mean(curves: list[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    return curves[0][0], np.mean([y for _, y in curves], axis=0)


def _checked(images: Images, name: str) -> list[NDArray[Any]]:
    if not images:
        raise ValueError(f"there is no {name} image; give one or more")
    for number, image in enumerate(images, start=1):
        if image.ndim != 2 or min(image.shape) < 16:
            raise ValueError(
                f"{name} {number} has the shape {image.shape}; "
                "give grey images of 16 x 16 px or more"
            )
        if not np.isfinite(image).all():
            raise ValueError(f"{name} {number} holds values that are not finite")
    return list(images)
