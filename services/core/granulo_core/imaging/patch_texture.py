# SPDX-License-Identifier: GPL-3.0-or-later
"""What patches of micrographs look like, as numbers, and how far two sets of them are apart."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

FloatArray = NDArray[np.float64]

PATCH_PX = 144
"""Side of a patch in the paper (M11)."""
_LEAST_PATCH_PX = 24
_FEWEST_PATCHES = 8  # of one set: a covariance needs some
_MOST_PATCHES = 400  # of one set: more cost time and tell nothing new
_MOST_SPLITS = 10
_WAVELENGTHS_PX = (3.0, 6.0, 12.0, 24.0, 48.0)
_ORIENTATIONS = 4
_RELATIVE_BANDWIDTH = 0.65  # of a log-Gabor filter: about one octave
_LEVELS = (5.0, 50.0, 95.0)
_QUANTISATION = 1 / 255 / np.sqrt(12)  # RMS of what rounding to 8 bit adds, in shares of full range
# Differences that nobody sees. They keep directions in which a set does not vary at all from
# making the smallest difference infinite.
_TOLERANCE_ENERGY = 0.1  # e-folds
_TOLERANCE_LEVEL = 0.01  # of the full range
_TOLERANCE_SKEWNESS = 0.2


def patch_side(*sets: Sequence[NDArray[Any]]) -> int:
    """Side of the patches in pixels that suits all images of all sets.

    `PATCH_PX`, or the shortest side of any image where that is less; halved while a set would
    give fewer than 8 patches, as long as 24 px remain.
    """
    side = min(PATCH_PX, *(min(image.shape) for images in sets for image in images))
    while side // 2 >= _LEAST_PATCH_PX and any(
        sum(len(patch_corners(image.shape, side)) for image in images) < _FEWEST_PATCHES
        for images in sets
    ):
        side //= 2
    return side


def cut_patches(image: NDArray[Any], side_px: int) -> NDArray[np.float32]:
    """Cut an image into patches that do not overlap, row by row.

    Parameters
    ----------
    image : (H, W) float
        Grey levels 0 to 1.
    side_px : int
        At most the image's shorter side.

    Returns
    -------
    (N, side_px, side_px) float32
        As many as fit side by side, spread evenly from edge to edge.
    """
    corners = patch_corners(image.shape, side_px)
    return np.stack(
        [image[y : y + side_px, x : x + side_px].astype(np.float32) for y, x in corners]
    )


def patch_corners(shape: tuple[int, ...], side_px: int) -> list[tuple[int, int]]:
    """Upper left corners (y, x) of the patches of an image; see `cut_patches`."""
    rows, columns = (
        np.linspace(0, length - side_px, max(1, length // side_px)).astype(int) for length in shape
    )
    return [(int(y), int(x)) for y in rows for x in columns]


def texture_features(patches: NDArray[np.float32]) -> FloatArray:
    """Describe patches by the energies of oriented filters and by their grey levels.

    For each octave with wavelengths from 3 to 48 px (those of which a patch holds three): the
    natural logarithm of the RMS response of log-Gabor filters in 4 orientations (Field 1987,
    J. Opt. Soc. Am. A 4, 2379), and of the kurtosis of the octave's response, which tells lines
    and edges from noise of the same energy (Simoncelli and Olshausen 2001, Annu. Rev. Neurosci.
    24, 1193). Then the grey levels' 5th, 50th and 95th percentile, standard deviation and
    skewness. No network and no random number is involved.

    Parameters
    ----------
    patches : (N, S, S) float32
        Grey levels 0 to 1.

    Returns
    -------
    (N, F) float64
        In units of a difference that can just be seen (0.1 e-folds of energy, 0.01 of the grey
        range, 0.2 of skewness).
    """
    octaves = _octaves(patches.shape[-1])
    return np.concatenate([_describe(patch[None], octaves) for patch in patches])


def _describe(patches: NDArray[np.float32], octaves: list[NDArray[np.float32]]) -> FloatArray:
    side = patches.shape[-1]
    taper = np.hanning(side + 2)[1:-1].astype(np.float32)
    window = taper[:, None] * taper
    weight = float(np.mean(window**2))
    level = np.mean(patches, axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    spectrum = fft.fft2((patches - level) * window)
    power = np.abs(spectrum) ** 2
    columns: list[FloatArray] = []
    for lobes in octaves:
        # Parseval: the mean square of a response is the filtered power.
        energies = np.einsum("nij,kij->nk", power, lobes**2, dtype=np.float64)
        rms = np.sqrt(energies / side**4 / weight)
        columns.extend(np.log(rms + _QUANTISATION).T / _TOLERANCE_ENERGY)
        columns.append(_log_kurtosis(fft.ifft2(spectrum * lobes.sum(axis=0)).real, window))
    flat = patches.reshape(len(patches), -1).astype(np.float64)
    deviation = flat - flat.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.mean(deviation**2, axis=1))
    skewness = np.mean(deviation**3, axis=1) / (spread + _QUANTISATION) ** 3
    columns.extend(np.percentile(flat, _LEVELS, axis=1) / _TOLERANCE_LEVEL)
    columns += [spread / _TOLERANCE_LEVEL, skewness / _TOLERANCE_SKEWNESS]
    return np.stack(columns, axis=1)


def _log_kurtosis(response: NDArray[np.float32], window: NDArray[np.float32]) -> FloatArray:
    """Logarithm of the kurtosis relative to the normal distribution's, 0 where nothing is."""
    seen = window > 0.1
    power = np.square(response[:, seen] / window[seen], dtype=np.float64)
    square = np.mean(power, axis=1) + _QUANTISATION**2
    fourth = np.mean(power**2, axis=1) + 3 * _QUANTISATION**4
    return np.asarray(np.log(fourth / (3 * square**2)) / _TOLERANCE_ENERGY)


def _octaves(side_px: int) -> list[NDArray[np.float32]]:
    """Log-Gabor filters of a patch by octave, each (orientations, S, S) in the Fourier domain."""
    frequency = fft.fftfreq(side_px)
    fy, fx = frequency[:, None], frequency[None, :]
    radius = np.hypot(fx, fy)
    radius[0, 0] = 1.0  # the mean has been taken off
    angle = np.arctan2(fy, fx)
    lobes = np.stack([np.cos(angle - np.pi * k / _ORIENTATIONS) ** 4 for k in range(_ORIENTATIONS)])
    octaves: list[NDArray[np.float32]] = []
    for wavelength in _WAVELENGTHS_PX:
        if 3 * wavelength > side_px and octaves:
            break
        ring = np.exp(-0.5 * (np.log(radius * wavelength) / np.log(_RELATIVE_BANDWIDTH)) ** 2)
        octaves.append((ring * lobes).astype(np.float32))
    return octaves


def image_features(images: Sequence[NDArray[Any]], side_px: int) -> list[FloatArray]:
    """Features of all patches, image by image; 400 patches spread evenly where there are more.

    Returns
    -------
    list of (N, F) float64
        At least one patch of every image.
    """
    total = sum(len(patch_corners(image.shape, side_px)) for image in images)
    features = []
    for image in images:
        patches = cut_patches(image, side_px)
        count = max(1, min(len(patches), len(patches) * _MOST_PATCHES // total))
        chosen = (np.arange(count) * len(patches)) // count
        features.append(texture_features(patches[chosen]))
    return features


def feature_distance(first: FloatArray, second: FloatArray) -> float:
    """Frechet distance of two sets of features, in the spread within a set.

    Each set counts as a normal distribution (Dowson and Landau 1982, J. Multivar. Anal. 12, 450):
    the square root of |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), as in the Frechet inception
    distance, which leaves out the root. The features are decorrelated first, so that the mean of
    both covariances, with one just visible difference added in every direction, is the unit
    matrix. Covariances are shrunk (Ledoit and Wolf 2004, J. Multivar. Anal. 88, 365): patches are
    few.

    Parameters
    ----------
    first, second : (N, F), (M, F) float64
        From `texture_features`.

    Returns
    -------
    float
        0 for equal sets; the same in both directions.
    """
    return _frechet(first, second, _decorrelation(first, second))


def feature_distance_ratio(
    references: Sequence[FloatArray], rendered: Sequence[FloatArray]
) -> tuple[float, float]:
    """Distance of two sets of images, alone and in units of the distance among the references.

    Parameters
    ----------
    references, rendered : sequence of (N, F) float64
        Features by image, from `image_features`.

    Returns
    -------
    distance : float
        As of `feature_distance`.
    ratio : float
        Divided by the mean distance between two halves of the references (up to 10 ways to halve
        them; a single image is halved by its patches, upper against lower). 1 or less: rendered
        and real differ no more than real images do. Infinite when the references are all alike
        and the rendered ones are not.
    """
    first, second = np.concatenate(references), np.concatenate(rendered)
    decorrelation = _decorrelation(first, second)
    distance = _frechet(first, second, decorrelation)
    halves = [_frechet(a, b, decorrelation) for a, b in _halves(references)]
    null = float(np.mean(halves)) if halves else 0.0
    if null > 0:
        return distance, distance / null
    return distance, float("inf") if distance > 0 else 0.0


def _halves(references: Sequence[FloatArray]) -> list[tuple[FloatArray, FloatArray]]:
    if len(references) == 1:
        features = references[0]
        middle = len(features) // 2
        return [(features[:middle], features[middle:])] if middle else []
    indices = range(len(references))
    ways = list(combinations(indices, len(references) // 2))
    if len(references) % 2 == 0:
        ways = ways[: len(ways) // 2]  # the others are the same halves exchanged
    chosen = np.linspace(0, len(ways) - 1, min(len(ways), _MOST_SPLITS)).astype(int)
    return [
        (
            np.concatenate([references[i] for i in ways[way]]),
            np.concatenate([references[i] for i in indices if i not in ways[way]]),
        )
        for way in chosen
    ]


def _decorrelation(first: FloatArray, second: FloatArray) -> FloatArray:
    """Inverse square root of the mean covariance within the sets, widened by the tolerances."""
    within = (_covariance(first) + _covariance(second)) / 2 + np.eye(first.shape[1])
    values, vectors = np.linalg.eigh(within)
    return np.asarray(vectors / np.sqrt(values) @ vectors.T)


def _frechet(first: FloatArray, second: FloatArray, decorrelation: FloatArray) -> float:
    offset = decorrelation @ (first.mean(axis=0) - second.mean(axis=0))
    a = decorrelation @ _covariance(first) @ decorrelation
    b = decorrelation @ _covariance(second) @ decorrelation
    # tr (A B)^(1/2) is the sum of the singular values of A^(1/2) B^(1/2).
    product = np.linalg.svd(_root(a) @ _root(b), compute_uv=False)
    square = float(np.sum(offset**2) + np.trace(a) + np.trace(b) - 2 * np.sum(product))
    # What is left of the subtraction in equal sets is rounding.
    rounding = 1e-12 * float(np.trace(a) + np.trace(b))
    return float(np.sqrt(square)) if square > rounding else 0.0


def _root(matrix: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray(vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T)


def _covariance(features: FloatArray) -> FloatArray:
    """Covariance shrunk towards a multiple of the unit matrix (Ledoit and Wolf 2004), (F, F)."""
    count, size = features.shape
    centred = features - features.mean(axis=0)
    sample: FloatArray = centred.T @ centred / count
    mean_variance = np.trace(sample) / size
    target = mean_variance * np.eye(size)
    spread = float(np.sum((sample - target) ** 2))
    if spread == 0:
        return sample
    fourth = float(np.sum(np.sum(centred**2, axis=1) ** 2))
    error = (fourth / count - float(np.sum(sample**2))) / count
    share = min(1.0, max(0.0, error / spread))
    return np.asarray(share * target + (1 - share) * sample)
