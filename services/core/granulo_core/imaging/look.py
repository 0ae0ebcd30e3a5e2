# SPDX-License-Identifier: GPL-3.0-or-later
"""The look: every number of one micrograph's appearance."""

from dataclasses import dataclass, field, fields
from typing import Any


def _number(default: float, low: float, high: float, doc: str) -> Any:
    return field(default=default, metadata={"low": low, "high": high, "doc": doc})


@dataclass(frozen=True)
class Look:
    """Every number of one micrograph's appearance, already drawn.

    Grey levels are relative to a signal of 1.0, lengths are pixels of the delivered image, and
    azimuths turn from x (to the right) to y (down). Each field's allowed range and meaning are in
    its metadata (``low``, ``high``, ``doc``).
    """

    # Particles
    particle_level: float = _number(0.5, 0.0, 2.0, "signal of a flat, open particle surface")
    particle_spread: float = _number(
        0.1, 0.0, 1.0, "log-normal spread of the brightness from particle to particle"
    )
    bright_fraction: float = _number(0.0, 0.0, 1.0, "share of outstandingly bright particles")
    bright_gain: float = _number(1.8, 0.2, 4.0, "their brightness relative to the others")
    height_gain: float = _number(0.0, -1.0, 2.0, "brighter with the height of a particle's top")
    thickness_contrast: float = _number(
        0.0, 0.0, 1.0, "share of the particles' signal that grows with the material in the beam"
    )
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
    shadow_strength: float = _number(
        0.0, 0.0, 1.0, "darkness of the shadows that particles cast away from the detector"
    )
    shadow_length: float = _number(1.0, 0.1, 10.0, "length of a shadow relative to the height")

    # Substrate
    substrate_level: float = _number(0.12, 0.0, 2.0, "signal of the substrate")
    substrate_texture: float = _number(0.1, 0.0, 2.0, "contrast of the substrate's fractal noise")
    substrate_beta: float = _number(2.0, 0.0, 4.0, "spectrum of the substrate's noise")
    gradient_strength: float = _number(
        0.0, 0.0, 1.0, "graded substrate: change of its brightness from the middle to one side"
    )
    gradient_azimuth_rad: float = _number(0.0, -7.0, 7.0, "direction in which it gets brighter")
    ridge_strength: float = _number(0.0, 0.0, 5.0, "contrast of one-sided ridges")
    ridge_width_px: float = _number(5.0, 1.0, 60.0, "their width")
    crack_strength: float = _number(
        0.0, 0.0, 2.0, "contrast of the cracks between the grains of a coated substrate"
    )
    crack_grain_px: float = _number(6.0, 1.0, 60.0, "size of these grains")
    scratches: float = _number(0.0, 0.0, 200.0, "number of scratches per 256 x 256 px")
    specks: float = _number(0.0, 0.0, 500.0, "number of dust specks per 256 x 256 px")
    curls: float = _number(0.0, 0.0, 300.0, "number of thin loops of relief per 256 x 256 px")

    # Dirt and charge
    dirt_strength: float = _number(
        0.0, -2.0, 2.0, "contrast of the diamond-square dirt (M4); negative patches are dark"
    )
    dirt_roughness: float = _number(0.55, 0.1, 1.0, "its roughness")
    dirt_coverage: float = _number(1.0, 0.0, 1.0, "share of the area that it covers, in patches")
    dirt_smear_px: float = _number(0.0, 0.0, 200.0, "length over which it is smeared")
    dirt_smear_azimuth_rad: float = _number(0.0, -7.0, 7.0, "direction in which it is smeared")
    halo_strength: float = _number(0.0, -1.0, 1.0, "charging around particles; negative is dark")
    halo_sigma_px: float = _number(10.0, 1.0, 100.0, "its reach")
    streak_strength: float = _number(
        0.0, -1.0, 1.0, "charging: trails behind particles along the scan lines; negative is dark"
    )
    streak_length_px: float = _number(40.0, 1.0, 500.0, "length over which they fade")

    # Beam
    bloom_strength: float = _number(0.0, 0.0, 1.0, "share of the signal that is spread out")
    bloom_sigma_px: float = _number(4.0, 0.5, 50.0, "reach of the spread")
    inverted: float = _number(
        0.0, 0.0, 1.0, "1: dark particles on bright ground, the beam that passes through (TEM)"
    )
    defocus_px_per_um: float = _number(
        0.0, 0.0, 50.0, "depth of focus: blur per micrometre above or below the focus"
    )
    focus_height: float = _number(1.0, 0.0, 1.0, "height in focus, as a share of the highest")
    psf_sigma_px: float = _number(0.7, 0.0, 10.0, "width of the beam's point spread")
    upsampling: float = _number(1.0, 1.0, 4.0, "coarser render, upsampled bilinearly (M9)")
    scan_drift_px: float = _number(0.0, 0.0, 3.0, "lines wander sideways by up to this much")
    scan_jitter_px: float = _number(0.0, 0.0, 3.0, "lines tremble sideways, standard deviation")

    # Detector
    exposure: float = _number(1.0, 0.05, 20.0, "gain of the signal before any noise")
    drift_strength: float = _number(0.0, 0.0, 1.0, "slow change of brightness over the frame")
    vignetting: float = _number(0.0, 0.0, 1.0, "share of the signal that is missing in the corners")
    dose: float = _number(0.0, 0.0, 1e6, "electrons per pixel at signal 1; 0 is noiseless")
    gaussian_noise: float = _number(0.02, 0.0, 1.0, "additive Gaussian noise (M9)")
    noise_correlation_px: float = _number(0.0, 0.0, 5.0, "blur of that noise")
    line_noise: float = _number(0.0, 0.0, 1.0, "brightness differing from scan line to scan line")
    saturation: float = _number(0.0, 0.0, 5.0, "signal that the detector cannot exceed; 0 is none")

    # Display
    sharpening: float = _number(0.0, 0.0, 3.0, "unsharp mask of the scan software")
    contrast: float = _number(1.0, 0.05, 5.0, "gain of the display")
    brightness: float = _number(0.0, -1.0, 1.0, "offset of the display (M5)")
    gamma: float = _number(1.0, 0.2, 5.0, "exponent of the display")
    data_bar: float = _number(
        0.0, 0.0, 0.2, "height of the data bar at the lower edge as a share of the image; 0 is none"
    )
    scale_bar: float = _number(0.0, 0.0, 1.0, "a scale bar is burned in from 0.5 on")

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
