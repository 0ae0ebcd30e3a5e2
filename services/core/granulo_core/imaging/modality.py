# SPDX-License-Identifier: GPL-3.0-or-later
"""Domain randomisation: looks as they come from each kind of microscope."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from granulo_core.imaging.look import Look

Family = Literal["any", "spheres", "agglomerates"]
ModalityName = Literal["any", "sem_in_lens", "sem_side_detector", "him", "tem"]

_TEM_SHARE = 0.04
"""Share of "any" that is drawn in transmission: rare among micrographs of particles."""


def random_look(
    rng: np.random.Generator, *, family: Family = "any", modality: ModalityName = "any"
) -> Look:
    """Draw a look as it may come from a kind of microscope.

    Every modality starts from the widest distribution and narrows what its physics settles. Data
    bars and scale bars are never drawn here: a recipe has to ask for them.

    Parameters
    ----------
    rng : numpy.random.Generator
    family : {"any", "spheres", "agglomerates"}
        Spheres have an even brightness and more often a bright substrate; agglomerates differ from
        particle to particle.
    modality : {"any", "sem_in_lens", "sem_side_detector", "him", "tem"}
        - any: any microscope, with every effect now and then.
        - sem_in_lens: the detector in the lens sees all sides alike, so there is neither a lit side
          nor a shadow and rims are even; its slow electrons show charging most.
        - sem_side_detector: the Everhart-Thornley detector stands at the side, so that surfaces
          facing it are brighter, particles cast soft shadows away from it and the ground is graded
          towards it; backscattered electrons in its signal weaken the rims.
        - him: helium ions make few, slow electrons from a shallow depth: strong, thin rims; the
          beam is narrow with a great depth of focus; currents below a picoampere leave shot noise;
          a flood gun takes the charge away.
        - tem: the beam passes through: dark particles on bright ground, darker with thickness and
          with the orientation of a crystal; no detector's side, no rims, no gaps in shadow.

    Returns
    -------
    Look
    """
    look = _any_microscope(rng, family)
    rare = rng.random() < _TEM_SHARE
    if modality == "any":
        return replace(look, **_tem(rng)) if rare else look
    return replace(look, **_MODALITIES[modality](rng))


def _any_microscope(rng: np.random.Generator, family: Family) -> Look:
    if family == "any":
        family = "spheres" if rng.random() < 0.4 else "agglomerates"
    spheres = family == "spheres"
    particle = rng.uniform(0.25, 0.75)
    ratio = np.exp(rng.uniform(np.log(0.05), np.log(0.9 if spheres else 0.8)))
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
        surface_texture=_maybe(rng, 0.6, 0.0, 0.24),
        surface_beta=rng.uniform(0.8, 2.8),
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
        gradient_strength=_maybe(rng, 0.2, 0.05, 0.4),
        gradient_azimuth_rad=_direction(rng),
        dirt_coverage=rng.uniform(0.05, 0.7) if rng.random() < 0.4 else 1.0,
        dirt_smear_px=_maybe(rng, 0.15, 4.0, 40.0),
        dirt_smear_azimuth_rad=_direction(rng),
        shadow_strength=_maybe(rng, 0.2, 0.1, 0.6),
        shadow_length=rng.uniform(0.5, 2.5),
        streak_strength=_maybe(rng, 0.12, -0.25, 0.25),
        streak_length_px=rng.uniform(15.0, 80.0),
        defocus_px_per_um=_maybe(rng, 0.15, 0.5, 5.0),
        focus_height=rng.uniform(0.3, 1.0),
        scan_drift_px=_maybe(rng, 0.15, 0.2, 1.0),
        scan_jitter_px=_maybe(rng, 0.15, 0.05, 0.3),
        vignetting=_maybe(rng, 0.2, 0.03, 0.3),
        exposure=rng.uniform(0.8, 1.25) if rng.random() < 0.3 else 1.0,
        saturation=_maybe(rng, 0.1, 0.8, 1.2),
        crack_strength=_maybe(rng, 0.2, 0.1, 0.7),
        crack_grain_px=_log_uniform(rng, 3.0, 20.0),
    )


def _sem_in_lens(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "detector_strength": 0.0,
        "shadow_strength": 0.0,
        "rim_strength": rng.uniform(0.35, 1.0),
        "rim_power": rng.uniform(0.7, 1.6),
        "rim_cap": rng.uniform(2.5, 6.0),
        "tilt_darkening": rng.uniform(0.0, 0.2),
        "halo_strength": _maybe(rng, 0.45, 0.02, 0.15) * float(rng.choice([-0.5, 1.0])),
        "streak_strength": _maybe(rng, 0.2, -0.25, 0.25),
        "psf_sigma_px": rng.uniform(0.4, 1.3),
        "dose": _log_uniform(rng, 60.0, 1500.0),
        "curls": _few_curls(rng),
        **_well_exposed(rng),
    }


def _sem_side_detector(rng: np.random.Generator) -> dict[str, Any]:
    azimuth = _direction(rng)
    return {
        "detector_strength": rng.uniform(0.2, 0.6),
        "detector_azimuth_rad": azimuth,
        "shadow_strength": rng.uniform(0.2, 0.7),
        "shadow_length": rng.uniform(0.5, 2.0),
        "gradient_strength": _maybe(rng, 0.5, 0.05, 0.3),
        "gradient_azimuth_rad": azimuth,
        "rim_strength": rng.uniform(0.1, 0.5),
        "tilt_darkening": rng.uniform(0.0, 0.3),
        "occlusion_strength": rng.uniform(0.4, 1.0),
        "psf_sigma_px": rng.uniform(0.5, 1.6),
        "dose": _log_uniform(rng, 60.0, 1500.0),
        "curls": _few_curls(rng),
        **_well_exposed(rng),
    }


def _him(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "detector_strength": _maybe(rng, 0.3, 0.0, 0.15),
        "shadow_strength": 0.0,
        "rim_strength": rng.uniform(0.6, 1.4),
        "rim_power": rng.uniform(1.5, 3.0),
        "rim_cap": rng.uniform(5.0, 10.0),
        "tilt_darkening": rng.uniform(0.0, 0.2),
        "occlusion_strength": rng.uniform(0.5, 1.0),
        "halo_strength": 0.0,
        "streak_strength": 0.0,
        "defocus_px_per_um": 0.0,
        "psf_sigma_px": rng.uniform(0.3, 0.7),
        "dose": _log_uniform(rng, 25.0, 250.0),
        "curls": _few_curls(rng),
        **_well_exposed(rng),
        "gaussian_noise": rng.uniform(0.0, 0.03),
        "sharpening": 0.0,
    }


def _tem(rng: np.random.Generator) -> dict[str, Any]:
    # Levels are optical densities here: exp(-0.7) = 0.5 of the beam passes.
    return {
        "inverted": 1.0,
        "particle_level": rng.uniform(0.5, 1.8),
        "particle_spread": float(rng.choice([0.05, 0.15, 0.3])),
        "bright_fraction": _maybe(rng, 0.3, 0.02, 0.12),
        "bright_gain": rng.uniform(1.3, 1.8),
        "height_gain": 0.0,
        "thickness_contrast": rng.uniform(0.5, 1.0),
        "rim_strength": 0.0,
        "tilt_darkening": 0.0,
        "detector_strength": 0.0,
        "shadow_strength": 0.0,
        "occlusion_strength": 0.0,
        "substrate_level": rng.uniform(0.04, 0.25),
        "substrate_texture": rng.uniform(0.05, 0.35),
        "substrate_beta": rng.uniform(0.3, 1.8),
        "gradient_strength": _maybe(rng, 0.2, 0.05, 0.4),
        "ridge_strength": 0.0,
        "crack_strength": 0.0,
        "scratches": 0.0,
        "curls": 0.0,
        "halo_strength": 0.0,
        "streak_strength": 0.0,
        "vignetting": _maybe(rng, 0.4, 0.03, 0.25),
        "scan_drift_px": 0.0,
        "scan_jitter_px": 0.0,
        "line_noise": 0.0,
        "psf_sigma_px": rng.uniform(0.3, 1.2),
        "dose": _log_uniform(rng, 40.0, 800.0),
        "contrast": rng.uniform(0.75, 1.1),
        "brightness": rng.uniform(-0.1, 0.05),
        "gamma": rng.uniform(0.7, 1.3),
    }


_MODALITIES: Mapping[str, Callable[[np.random.Generator], dict[str, Any]]] = {
    "sem_in_lens": _sem_in_lens,
    "sem_side_detector": _sem_side_detector,
    "him": _him,
    "tem": _tem,
}


def _well_exposed(rng: np.random.Generator) -> dict[str, Any]:
    # An operator sets contrast and brightness so that rims, not whole particles, are white.
    return {
        "contrast": rng.uniform(0.5, 0.9),
        "brightness": rng.uniform(-0.02, 0.06),
        "gamma": rng.uniform(0.7, 1.3),
    }


def _few_curls(rng: np.random.Generator) -> float:
    # They warn a network that has to know any substrate; on a known microscope they are rare.
    return _maybe(rng, 0.15, 1.0, 8.0)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _direction(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.0, 2.0 * np.pi))


def _maybe(rng: np.random.Generator, probability: float, low: float, high: float) -> float:
    """A value from [low, high] with the given probability, otherwise 0."""
    value = rng.uniform(low, high)
    return float(value) if rng.random() < probability else 0.0
