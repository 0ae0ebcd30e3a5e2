# SPDX-License-Identifier: GPL-3.0-or-later
"""The appearance model: draws a micrograph from rendered geometry layers and a look.

Blender renders a scene's geometry once (:class:`Layers`); a :class:`Look` holds every number of one
micrograph's appearance; :func:`draw` combines the two with numpy and OpenCV in a few hundredths of
a second. So one scene gives any number of micrographs with the same, error-free labels.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging import texture
from granulo_core.imaging.layers import NORMAL_SCALE, Layers

__all__ = ["Family", "Layers", "Look", "draw", "draw_annotated", "random_look"]

Family = Literal["any", "spheres", "agglomerates"]
FloatImage = NDArray[np.float32]


def _number(default: float, low: float, high: float, doc: str) -> Any:
    return field(default=default, metadata={"low": low, "high": high, "doc": doc})


@dataclass(frozen=True)
class Look:
    """Every number of one micrograph's appearance, already drawn.

    Grey levels are relative to a signal of 1.0, lengths are pixels of the delivered image. Each
    field's allowed range and meaning are in its metadata (``low``, ``high``, ``doc``).
    """

    particle_level: float = _number(0.5, 0.0, 2.0, "signal of a flat, open particle surface")
    particle_spread: float = _number(
        0.1, 0.0, 1.0, "log-normal spread of the brightness from particle to particle"
    )
    bright_fraction: float = _number(0.0, 0.0, 1.0, "share of outstandingly bright particles")
    bright_gain: float = _number(1.8, 0.2, 4.0, "their brightness relative to the others")
    height_gain: float = _number(0.0, -1.0, 2.0, "brighter with the height of a particle's top")
    rim_strength: float = _number(0.5, 0.0, 3.0, "edge effect: signal added at steep edges (M6)")
    rim_power: float = _number(1.2, 0.2, 4.0, "edge effect: exponent of 1 / cos(tilt)")
    rim_cap: float = _number(4.0, 1.1, 12.0, "edge effect: the ratio at which it saturates")
    rim_follows: float = _number(
        0.5, 0.0, 1.0, "share of the edge effect that scales with the particle's own brightness"
    )
    tilt_darkening: float = _number(0.1, 0.0, 1.0, "darker with the tilt of the surface")
    detector_strength: float = _number(0.0, 0.0, 1.5, "light from the detector's side")
    detector_azimuth_rad: float = _number(0.0, -7.0, 7.0, "direction of the detector, x to y")
    surface_texture: float = _number(0.0, 0.0, 1.0, "contrast of the particles' own texture")
    surface_beta: float = _number(2.0, 0.0, 4.0, "its spectrum: 0 is grainy, 3 is cloudy")
    occlusion_strength: float = _number(0.6, 0.0, 1.0, "how much narrow gaps are darkened")
    occlusion_power: float = _number(1.0, 0.2, 4.0, "exponent of the openness")
    substrate_level: float = _number(0.12, 0.0, 2.0, "signal of the substrate")
    substrate_texture: float = _number(0.1, 0.0, 2.0, "contrast of the substrate's fractal noise")
    substrate_beta: float = _number(2.0, 0.0, 4.0, "spectrum of the substrate's noise")
    ridge_strength: float = _number(0.0, 0.0, 5.0, "contrast of one-sided ridges")
    ridge_width_px: float = _number(5.0, 1.0, 60.0, "their width")
    scratches: float = _number(0.0, 0.0, 200.0, "number of scratches per 256 x 256 px")
    specks: float = _number(0.0, 0.0, 500.0, "number of dust specks per 256 x 256 px")
    curls: float = _number(0.0, 0.0, 300.0, "number of thin loops of relief per 256 x 256 px")
    dirt_strength: float = _number(0.0, 0.0, 2.0, "contrast of the diamond-square dirt (M4)")
    dirt_roughness: float = _number(0.55, 0.1, 1.0, "its roughness")
    halo_strength: float = _number(0.0, -1.0, 1.0, "charging around particles; negative is dark")
    halo_sigma_px: float = _number(10.0, 1.0, 100.0, "its reach")
    bloom_strength: float = _number(0.0, 0.0, 1.0, "share of the signal that is spread out")
    bloom_sigma_px: float = _number(4.0, 0.5, 50.0, "reach of the spread")
    drift_strength: float = _number(0.0, 0.0, 1.0, "slow change of brightness over the frame")
    psf_sigma_px: float = _number(0.7, 0.0, 10.0, "width of the beam's point spread")
    upsampling: float = _number(1.0, 1.0, 4.0, "coarser render, upsampled bilinearly (M9)")
    dose: float = _number(0.0, 0.0, 1e6, "electrons per pixel at signal 1; 0 is noiseless")
    gaussian_noise: float = _number(0.02, 0.0, 1.0, "additive Gaussian noise (M9)")
    noise_correlation_px: float = _number(0.0, 0.0, 5.0, "blur of that noise")
    line_noise: float = _number(0.0, 0.0, 1.0, "brightness differing from scan line to scan line")
    sharpening: float = _number(0.0, 0.0, 3.0, "unsharp mask of the scan software")
    contrast: float = _number(1.0, 0.05, 5.0, "gain of the display")
    brightness: float = _number(0.0, -1.0, 1.0, "offset of the display (M5)")
    gamma: float = _number(1.0, 0.2, 5.0, "exponent of the display")

    def __post_init__(self) -> None:
        """Refuse numbers outside of their documented range, by name."""
        for item in fields(self):
            value = getattr(self, item.name)
            low, high = item.metadata["low"], item.metadata["high"]
            if not (low <= value <= high):
                raise ValueError(
                    f"{item.name} must lie between {low:g} and {high:g} "
                    f"({item.metadata['doc']}), got {value!r}"
                )
        if self.upsampling != int(self.upsampling):
            raise ValueError(f"upsampling must be a whole number, got {self.upsampling!r}")


def draw(layers: Layers, look: Look, rng: np.random.Generator) -> FloatImage:
    """Draw the micrograph of a scene.

    Parameters
    ----------
    layers : Layers
        Geometry at the size of the micrograph.
    look : Look
    rng : numpy.random.Generator
        Source of the brightness of each particle, the textures and the noise.

    Returns
    -------
    (H, W) float32 in [0, 1]
        Deterministic from the arguments (and the state of ``rng``).
    """
    return draw_annotated(layers, look, rng)[0]


def draw_annotated(
    layers: Layers, look: Look, rng: np.random.Generator
) -> tuple[FloatImage, NDArray[np.bool_]]:
    """Draw the micrograph of a scene, and say what its data bar and scale bar hide.

    Returns
    -------
    image : (H, W) float32 in [0, 1]
        As :func:`draw` gives it.
    covered : (H, W) bool
        Pixels that show writing instead of the specimen: labels have to be cleared there.
    """
    signal = _shade(layers, look, rng)
    if look.upsampling > 1:
        signal = _coarsen(signal, int(look.upsampling))
    return _detect(signal, look, rng), np.zeros(layers.shape, dtype=np.bool_)


def _shade(layers: Layers, look: Look, rng: np.random.Generator) -> FloatImage:
    """The noiseless secondary-electron signal, about 0 to 1.5."""
    instances, shape = layers.instances, layers.shape
    particles = instances > 0
    normals = layers.normals.astype(np.float32) / np.float32(NORMAL_SCALE)
    cosine = np.clip(np.abs(normals[..., 2]), 0.02, 1.0)

    own_level = _particle_levels(layers, look, rng)[instances]
    edge = (np.minimum(cosine**-look.rim_power, look.rim_cap) - 1.0) / (look.rim_cap - 1.0)
    relative = own_level / max(look.particle_level, 1e-3)
    rim = look.rim_strength * (1.0 - look.rim_follows + look.rim_follows * relative) * edge
    surface = own_level * (1.0 - look.tilt_darkening * (1.0 - cosine)) + rim
    if look.detector_strength:
        azimuth = look.detector_azimuth_rad
        facing = normals[..., 0] * np.cos(azimuth) + normals[..., 1] * np.sin(azimuth)
        surface = surface * np.maximum(0.0, 1.0 + look.detector_strength * facing)
    if look.surface_texture:
        noise = texture.fractal_noise(rng, shape, look.surface_beta)
        surface = surface * np.maximum(0.0, 1.0 + look.surface_texture * noise)

    signal = np.where(particles, surface, _substrate(shape, look, rng)).astype(np.float32)
    if look.occlusion_strength:
        openness = (layers.occlusion.astype(np.float32) / 255.0) ** look.occlusion_power
        signal *= 1.0 - look.occlusion_strength * (1.0 - openness)
    if look.halo_strength:
        halo = texture.blur(particles.astype(np.float32), look.halo_sigma_px)
        signal += np.where(particles, 0.0, look.halo_strength * halo)
    if look.dirt_strength:
        dirt = texture.diamond_square(rng, shape, look.dirt_roughness)
        signal *= np.maximum(0.0, 1.0 + look.dirt_strength * dirt)
    if look.bloom_strength:
        signal += look.bloom_strength * (texture.blur(signal, look.bloom_sigma_px) - signal)
    result: FloatImage = np.maximum(signal, 0.0).astype(np.float32)
    return result


def _particle_levels(layers: Layers, look: Look, rng: np.random.Generator) -> NDArray[np.float32]:
    """Brightness of each instance id; id 0 (substrate) is included and never used."""
    count = int(layers.instances.max(initial=0)) + 1
    levels = look.particle_level * np.exp(rng.normal(0.0, look.particle_spread, count))
    if look.height_gain:
        tops = np.zeros(count, dtype=np.float32)
        np.maximum.at(tops, layers.instances.ravel(), layers.height_nm.ravel().astype(np.float32))
        present = tops[1:][tops[1:] > 0]
        typical = float(np.median(present)) if present.size else 1.0
        excess = np.clip(tops / max(typical, 1e-3) - 1.0, -0.5, 2.0)
        levels = levels * np.maximum(0.1, 1.0 + look.height_gain * excess)
    outstanding = rng.random(count) < look.bright_fraction
    levels = np.where(outstanding, levels * look.bright_gain, levels)
    result: NDArray[np.float32] = levels.astype(np.float32)
    return result


def _substrate(shape: tuple[int, int], look: Look, rng: np.random.Generator) -> FloatImage:
    relief = np.zeros(shape, dtype=np.float32)
    if look.substrate_texture:
        relief += look.substrate_texture * texture.fractal_noise(rng, shape, look.substrate_beta)
    if look.ridge_strength:
        relief += look.ridge_strength * texture.ridges(rng, shape, look.ridge_width_px)
    share = shape[0] * shape[1] / 65536.0
    scratches = int(rng.poisson(look.scratches * share)) if look.scratches else 0
    if scratches:
        relief += 0.3 * texture.scratches(rng, shape, scratches)
    specks = int(rng.poisson(look.specks * share)) if look.specks else 0
    if specks:
        relief += 0.5 * texture.specks(rng, shape, specks)
    level = np.maximum(0.0, look.substrate_level * (1.0 + relief))
    curls = int(rng.poisson(look.curls * share)) if look.curls else 0
    if curls:
        # As bright as faint particles, however dark the substrate is.
        level = level + 0.4 * look.particle_level * texture.curls(rng, shape, curls)
    result: FloatImage = level.astype(np.float32)
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


def _detect(signal: FloatImage, look: Look, rng: np.random.Generator) -> FloatImage:
    """What beam, detector and display make of the signal."""
    shape = (signal.shape[0], signal.shape[1])
    if look.drift_strength:
        signal = signal * (1.0 + look.drift_strength * texture.smooth_field(rng, shape))
    signal = texture.blur(signal.astype(np.float32), look.psf_sigma_px)
    if look.line_noise:
        lines = rng.standard_normal((shape[0], 1), dtype=np.float32)
        signal = signal * (1.0 + look.line_noise * lines)
    if look.dose > 0:
        # Gaussian approximation of the shot noise: ten times as fast, and equal from a few
        # electrons on.
        shot = rng.standard_normal(shape, dtype=np.float32)
        signal = signal + shot * np.sqrt(np.maximum(signal, 0.0) / np.float32(look.dose))
    if look.gaussian_noise:
        noise = rng.standard_normal(shape, dtype=np.float32)
        if look.noise_correlation_px > 0:
            noise = texture.blur(noise, look.noise_correlation_px)
            noise /= float(noise.std()) + 1e-9
        signal = signal + np.float32(look.gaussian_noise) * noise
    signal = signal.astype(np.float32)
    if look.sharpening:
        signal = signal + np.float32(look.sharpening) * (signal - texture.blur(signal, 1.5))
    displayed = np.clip(signal * look.contrast + look.brightness, 0.0, 1.0)
    result: FloatImage = np.power(displayed, look.gamma).astype(np.float32)
    return result


def random_look(rng: np.random.Generator, *, family: Family = "any") -> Look:
    """The widest domain randomisation: a look as it may come from any microscope.

    Parameters
    ----------
    rng : numpy.random.Generator
    family : {"any", "spheres", "agglomerates"}
        Spheres have an even brightness and more often a bright substrate; agglomerates differ from
        particle to particle.

    Returns
    -------
    Look
    """
    if family == "any":
        family = "spheres" if rng.random() < 0.4 else "agglomerates"
    spheres = family == "spheres"
    particle = rng.uniform(0.25, 0.75)
    ratio = np.exp(rng.uniform(np.log(0.05), np.log(0.9 if spheres else 0.65)))
    rim = rng.uniform(0.1, 1.0) if rng.random() < 0.92 else 0.0
    if ratio > 0.55:
        # A substrate as bright as the particles: only their edges tell them apart.
        rim = max(rim, rng.uniform(0.3, 0.9))
    spread = rng.choice([0.02, 0.06, 0.15] if spheres else [0.03, 0.12, 0.25, 0.4])
    return Look(
        particle_level=particle,
        particle_spread=float(spread),
        bright_fraction=_maybe(rng, 0.3, 0.02, 0.12),
        bright_gain=rng.uniform(1.5, 2.5),
        height_gain=_maybe(rng, 0.3 if spheres else 0.55, 0.0, 0.6),
        rim_strength=rim,
        rim_power=rng.uniform(0.6, 2.2),
        rim_cap=rng.uniform(2.0, 6.0),
        rim_follows=float(rng.integers(0, 2)),
        tilt_darkening=rng.uniform(0.0, 0.5 if spheres else 0.35),
        detector_strength=_maybe(rng, 0.6, 0.0, 0.45),
        detector_azimuth_rad=rng.uniform(0.0, 2.0 * np.pi),
        surface_texture=_maybe(rng, 0.6, 0.0, 0.18),
        surface_beta=rng.uniform(1.0, 2.8),
        occlusion_strength=rng.uniform(0.2, 1.0),
        occlusion_power=rng.uniform(0.6, 1.8),
        substrate_level=particle * float(ratio),
        substrate_texture=rng.uniform(0.01, 0.3),
        substrate_beta=rng.uniform(1.0, 3.0),
        ridge_strength=_maybe(rng, 0.6, 0.2, 3.0),
        ridge_width_px=float(np.exp(rng.uniform(np.log(1.5), np.log(14.0)))),
        scratches=_maybe(rng, 0.25, 0.5, 3.0),
        specks=_maybe(rng, 0.35, 0.5, 12.0),
        curls=_maybe(rng, 0.6, 2.0, 60.0),
        dirt_strength=_maybe(rng, 0.3, 0.02, 0.15),
        dirt_roughness=rng.uniform(0.4, 0.7),
        halo_strength=_maybe(rng, 0.35, 0.02, 0.15) * float(rng.choice([-0.5, 1.0])),
        halo_sigma_px=rng.uniform(4.0, 25.0),
        bloom_strength=_maybe(rng, 0.25, 0.1, 0.35),
        bloom_sigma_px=rng.uniform(2.0, 6.0),
        drift_strength=_maybe(rng, 0.7, 0.0, 0.12),
        psf_sigma_px=rng.uniform(0.3, 1.5) if rng.random() < 0.88 else rng.uniform(1.5, 2.6),
        upsampling=float(rng.choice([1, 1, 1, 1, 2, 2, 3, 4])),
        dose=float(np.exp(rng.uniform(np.log(25.0), np.log(1500.0)))),
        gaussian_noise=rng.uniform(0.0, 0.05),
        noise_correlation_px=_maybe(rng, 0.5, 0.4, 0.9),
        line_noise=_maybe(rng, 0.45, 0.0, 0.05),
        sharpening=_maybe(rng, 0.3, 0.2, 1.0),
        contrast=rng.uniform(0.5, 1.2),
        brightness=rng.uniform(-0.02, 0.08),
        gamma=rng.uniform(0.6, 1.5),
    )


def _maybe(rng: np.random.Generator, probability: float, low: float, high: float) -> float:
    """A value from [low, high] with the given probability, otherwise 0."""
    value = rng.uniform(low, high)
    return float(value) if rng.random() < probability else 0.0
