# SPDX-License-Identifier: GPL-3.0-or-later
"""Patches from finished images: annotated micrographs, and renders without layers."""

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.appearance import Look
from granulo_core.imaging.detector import detect
from granulo_core.imaging.normalise import to_network_input
from granulo_core.imaging.streams import Streams
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.unet import targets, views

_UNTOUCHED_SHARE = 0.15
"""How often an image keeps the focus, the noise and the exposure that it has."""
_BLACK, _WHITE = 0.05, 0.8
"""Signal of an image's darkest and brightest parts before it is taken once more."""
_ZOOM = (0.8, 1.25)
_MAX_NOISE_LEVELS = 8.0


def mask_patch(
    scene: views.Scene, config: TrainingConfig, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a patch for the paper's network: exactly M14 and M16, with zoom and Gaussian noise.

    Rotations by 90 degrees, flips and intensity are drawn anew at each use of a patch.

    Parameters
    ----------
    scene : Scene
        With an image.
    config : TrainingConfig
    rng : numpy.random.Generator

    Returns
    -------
    image : (P, P) uint8
        Network input: the convention (M13) is applied to the whole image, as in prediction.
    target : (P, P, 1) uint8
    """
    if scene.image is None:
        raise ValueError("the scene has no image to take a patch from")
    image = scene.image if scene.prepared else to_network_input(scene.image, config.convention)
    mask = targets.eroded_mask(scene.instances) if scene.mask is None else scene.mask
    size = config.patch_px
    side = max(8, round(size / rng.uniform(*_ZOOM)))
    height, width = image.shape
    top = int(rng.integers(max(0, height - side) + 1))
    left = int(rng.integers(max(0, width - side) + 1))
    window = np.s_[top : top + side, left : left + side]
    image, mask = _whole(image[window], side), _whole(mask[window], side)
    patch = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    target = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST)
    level = rng.uniform(0.0, _MAX_NOISE_LEVELS)
    noise = rng.standard_normal(patch.shape, dtype=np.float32) * np.float32(level)
    patch = np.clip(np.rint(patch.astype(np.float32) + noise), 0, 255).astype(np.uint8)
    return patch, targets.mask_target(target)


def degraded(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Take a finished image once more, with another beam, detector and display.

    Parameters
    ----------
    image : (H, W) uint8
    rng : numpy.random.Generator

    Returns
    -------
    (H, W) uint8
        Uneven brightness, blur, coarser sampling, shot, Gaussian, correlated and line noise,
        sharpening, over- and underexposure and gamma, each by the core's model of a detector and
        now and then. The image has its own blur and noise, so that what is added is weaker than
        what a look adds to noiseless layers.
    """
    if rng.random() < _UNTOUCHED_SHARE:
        return image
    camera = _camera(rng)
    # Noise and offsets are measured by the contrast that the image has, not by 8 bits.
    low, high = np.percentile(image, (0.5, 99.5))
    signal = (image.astype(np.float32) - np.float32(low)) / np.float32(max(high - low, 1.0))
    signal = np.maximum(np.float32(_BLACK) + np.float32(_WHITE - _BLACK) * signal, 0.0)
    flat = np.zeros(image.shape, dtype=np.float16)
    taken = detect(signal, flat, camera, Streams(rng))
    result: NDArray[np.uint8] = np.rint(taken * np.float32(255.0)).astype(np.uint8)
    return result


def _camera(rng: np.random.Generator) -> Look:
    """A look of which only what comes after the specimen's signal counts."""

    def maybe(probability: float, low: float, high: float) -> float:
        value = rng.uniform(low, high)
        return float(value) if rng.random() < probability else 0.0

    return Look(
        drift_strength=maybe(0.5, 0.02, 0.15),
        vignetting=maybe(0.3, 0.05, 0.35),
        exposure=rng.uniform(0.8, 1.15),
        psf_sigma_px=maybe(0.4, 0.3, 1.2),
        upsampling=float(rng.choice([1, 1, 1, 1, 1, 1, 1, 2])),
        scan_jitter_px=maybe(0.1, 0.1, 0.5),
        dose=float(np.exp(rng.uniform(np.log(120.0), np.log(3000.0)))),
        gaussian_noise=maybe(0.6, 0.0, 0.04),
        noise_correlation_px=maybe(0.5, 0.4, 0.9),
        line_noise=maybe(0.3, 0.0, 0.04),
        sharpening=maybe(0.2, 0.2, 0.8),
        contrast=rng.uniform(0.8, 1.15),
        brightness=rng.uniform(-0.06, 0.08),
        gamma=float(np.exp(rng.uniform(np.log(0.6), np.log(1.6)))),
    )


def _whole(part: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Mirror what a small image lacks on its right and lower side."""
    missing = [(0, side - part.shape[0]), (0, side - part.shape[1])]
    if not any(after for _, after in missing):
        return part
    return np.pad(part, missing, mode="reflect")
