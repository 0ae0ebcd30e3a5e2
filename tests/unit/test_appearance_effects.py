# SPDX-License-Identifier: GPL-3.0-or-later
import sys
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from granulo_core.imaging.appearance import Layers, Look
from granulo_core.imaging.shading import cast_shadow

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from two_balls import PLAIN, SIDE, balls, picture

BUSY = replace(
    PLAIN,
    particle_spread=0.1,
    bright_fraction=0.5,
    height_gain=0.2,
    thickness_contrast=0.3,
    detector_strength=0.2,
    surface_texture=0.1,
    occlusion_strength=0.5,
    shadow_strength=0.5,
    substrate_texture=0.1,
    gradient_strength=0.2,
    ridge_strength=0.5,
    crack_strength=0.3,
    scratches=30.0,
    specks=60.0,
    curls=60.0,
    dirt_strength=0.2,
    dirt_coverage=0.6,
    dirt_smear_px=9.0,
    halo_strength=0.1,
    streak_strength=0.2,
    bloom_strength=0.2,
    defocus_px_per_um=5.0,
    focus_height=0.5,
    psf_sigma_px=0.7,
    scan_drift_px=1.0,
    scan_jitter_px=0.3,
    drift_strength=0.1,
    dose=400.0,
    gaussian_noise=0.02,
    noise_correlation_px=0.6,
    line_noise=0.02,
    saturation=0.7,
    data_bar=0.12,
    scale_bar=1.0,
)
EXTREME = {
    "upsampling": 3.0,
    "data_bar": 0.2,
    "scale_bar": 0.0,
    "focus_height": 0.9,
    "saturation": 0.4,
}


@pytest.mark.parametrize("name", [item.name for item in fields(Look)])
def test_every_parameter_changes_the_picture(name: str) -> None:
    metadata = next(item for item in fields(Look) if item.name == name).metadata
    value = EXTREME.get(name, 0.5 * (metadata["low"] + metadata["high"]))
    if value == getattr(BUSY, name):
        value = metadata["high"]
    if name.endswith("azimuth_rad"):
        value = 1.0
    assert not np.array_equal(picture(BUSY), picture(replace(BUSY, **{name: value})))


@pytest.mark.parametrize(
    "effect",
    [
        "shadow_strength",
        "gradient_strength",
        "dirt_strength",
        "streak_strength",
        "defocus_px_per_um",
        "scan_drift_px",
        "scan_jitter_px",
        "vignetting",
        "inverted",
        "data_bar",
        "scale_bar",
        "saturation",
        "thickness_contrast",
    ],
)
def test_new_effects_are_off_by_default(effect: str) -> None:
    assert getattr(Look(), effect) == 0.0


@pytest.mark.parametrize(
    "effect",
    [
        {"dirt_strength": 0.1, "dirt_smear_px": 5.0},
        {"ridge_strength": 0.3},
        {"scratches": 20.0},
        {"curls": 20.0},
        {"streak_strength": 0.05},
        {"surface_texture": 0.05},
        {"drift_strength": 0.05},
        {"scan_drift_px": 2.0, "scan_jitter_px": 0.5},
        {"bright_fraction": 0.5, "bright_gain": 1.1},
    ],
)
def test_an_effect_leaves_the_random_numbers_of_others_alone(effect: dict[str, float]) -> None:
    noisy = replace(PLAIN, gaussian_noise=0.01, line_noise=0.0, tilt_darkening=0.0)
    quiet = replace(noisy, gaussian_noise=0.0)
    noise = picture(noisy) - picture(quiet)
    inside = noise[4:-4, 4:-4]
    other = (picture(replace(noisy, **effect)) - picture(replace(quiet, **effect)))[4:-4, 4:-4]
    assert noise.std() == pytest.approx(0.01, rel=0.1)
    assert np.median(np.abs(other - inside)) < 1e-6


def test_shadows_fall_away_from_the_detector() -> None:
    for azimuth, lit, dark in [
        (0.0, (40, 58), (40, 14)),
        (np.pi, (40, 14), (40, 58)),
        (np.pi / 2, (62, 36), (18, 36)),
    ]:
        shadow = cast_shadow(balls(), azimuth, 1.5)
        assert shadow[lit] < 0.02, azimuth
        assert shadow[dark] > 0.2, azimuth
    assert 0.0 <= shadow.min() <= shadow.max() <= 1.0


def test_shadows_are_as_long_as_asked() -> None:
    def reach(length: float) -> int:
        # A wall of 10 px: its shadow falls to the left, because the detector is at the right.
        wall = np.zeros((64, 200), np.uint16)
        wall[:, 150:160] = 1
        flat = np.zeros((64, 200, 3), np.int8)
        flat[..., 2] = 127
        layers = Layers(
            occlusion=np.full((64, 200), 255, np.uint8),
            normals=flat,
            height_nm=(wall * 50).astype(np.float16),
            instances=wall,
            pixel_size_nm=5.0,
        )
        row = cast_shadow(layers, 0.0, length)[32, :150]
        return int((row > 0.1).sum())

    assert reach(2.0) == pytest.approx(20, abs=5)
    assert reach(8.0) == pytest.approx(80, abs=12)


def test_shadows_darken_the_picture() -> None:
    shaded = picture(replace(PLAIN, shadow_strength=0.8, shadow_length=1.5))
    assert shaded[40, 14] < picture(PLAIN)[40, 14] - 0.05
    assert shaded[6, 90] == picture(PLAIN)[6, 90]


def test_streaks_trail_behind_particles_along_the_scan() -> None:
    bright = picture(replace(PLAIN, streak_strength=0.5, streak_length_px=20.0))
    change = bright - picture(PLAIN)
    assert change[34:46, 54:60].mean() > 0.02
    assert np.abs(change[:, :18]).max() == 0.0
    assert np.abs(change[59:65]).max() == 0.0
    dark = picture(replace(PLAIN, streak_strength=-0.5, streak_length_px=20.0))
    assert (dark - picture(PLAIN))[34:46, 54:60].mean() < -0.02


def test_focus_is_sharp_at_its_height_only() -> None:
    def edge(look: Look) -> float:
        return float(np.abs(np.diff(picture(look)[40, 44:60])).max())

    def grain(look: Look) -> float:
        return float(np.abs(np.diff(picture(look)[66:, :50])).mean())

    look = replace(PLAIN, substrate_texture=0.3, substrate_beta=0.5, defocus_px_per_um=30.0)
    top, ground = replace(look, focus_height=1.0), replace(look, focus_height=0.0)
    assert grain(ground) > 3 * grain(top)
    assert grain(ground) == pytest.approx(grain(replace(look, defocus_px_per_um=0.0)), rel=1e-3)
    flat = replace(look, substrate_texture=0.0, rim_strength=1.0)
    assert edge(replace(flat, focus_height=0.5)) > edge(replace(flat, focus_height=0.0))


def test_lines_wander_by_no_more_than_asked() -> None:
    layers = balls()
    stripe = np.zeros_like(layers.instances)
    stripe[:, 40:56] = 1
    layers = replace(layers, instances=stripe, height_nm=np.zeros_like(layers.height_nm))
    look = replace(PLAIN, rim_strength=0.0, tilt_darkening=0.0, substrate_level=0.0)
    moved = picture(replace(look, scan_drift_px=2.0), layers)
    centre = (moved * np.arange(SIDE)).sum(axis=1) / moved.sum(axis=1)
    assert np.ptp(centre - 47.5) > 1.5
    assert np.abs(centre - 47.5).max() <= 2.05
    assert np.abs(np.diff(centre)).max() < 0.5
    trembling = picture(replace(look, scan_jitter_px=0.5), layers)
    centre = (trembling * np.arange(SIDE)).sum(axis=1) / trembling.sum(axis=1)
    assert centre.std() == pytest.approx(0.5, rel=0.3)


def test_vignetting_darkens_the_corners() -> None:
    dimmed = picture(replace(PLAIN, vignetting=0.5)) / picture(PLAIN)
    assert dimmed[48, 48] == pytest.approx(1.0, abs=0.01)
    assert dimmed[0, 0] == pytest.approx(0.5, abs=0.01)
    assert dimmed[-1, -1] == pytest.approx(0.5, abs=0.01)


def test_exposure_is_a_gain_that_lowers_the_noise() -> None:
    look = replace(PLAIN, dose=200.0, particle_level=0.2, substrate_level=0.2, rim_strength=0.0)
    once, twice = picture(look)[60:], picture(replace(look, exposure=4.0))[60:]
    assert twice.mean() == pytest.approx(4 * once.mean(), rel=0.02)
    assert twice.std() / twice.mean() == pytest.approx(0.5 * once.std() / once.mean(), rel=0.1)


def test_saturation_caps_the_signal() -> None:
    assert picture(replace(PLAIN, saturation=0.4)).max() == pytest.approx(0.4, abs=1e-6)


def test_inversion_swaps_the_order_of_grey_levels() -> None:
    bright, dark = picture(PLAIN), picture(replace(PLAIN, inverted=1.0))
    places = [(8, 90), (40, 36), (40, 48), (40, 50)]
    levels = [bright[place] for place in places]
    swapped = [dark[place] for place in places]
    assert np.argsort(levels).tolist() == np.argsort(swapped)[::-1].tolist()
    assert min(swapped) > 0.0


def test_thickness_contrast_follows_the_material_in_the_beam() -> None:
    look = replace(PLAIN, rim_strength=0.0, tilt_darkening=0.0, thickness_contrast=1.0)
    levels = picture(look)
    assert levels[40, 36] > levels[40, 46] > levels[40, 50]
    assert levels[40, 36] > levels[78, 76]


def test_material_contrast_multiplies_the_particles_own_level() -> None:
    layers = balls()
    contrast = np.where(layers.instances == 2, 0.5, 1.0).astype(np.float16)
    look = replace(PLAIN, rim_follows=1.0)
    two = picture(look, replace(layers, contrast=contrast)) / picture(look, layers)
    # Pixels at the particle's edge show both sides of it.
    inside, around = (
        cv2.erode((layers.instances == number).astype(np.uint8), np.ones((3, 3))) > 0
        for number in (2, 0)
    )
    assert two[inside] == pytest.approx(0.5, abs=1e-3)
    assert two[around] == pytest.approx(1.0, abs=1e-6)
    fixed = picture(replace(look, rim_follows=0.0), replace(layers, contrast=contrast))
    assert fixed[78, 84] > 0.5 * picture(replace(look, rim_follows=0.0), layers)[78, 84] + 0.02


def test_shaded_layers_take_the_place_of_shading_and_occlusion() -> None:
    layers = balls()
    ramp = np.tile(np.linspace(0.1, 0.9, SIDE), (SIDE, 1)).astype(np.float16)
    given = replace(layers, shaded=ramp)
    look = replace(PLAIN, rim_strength=1.0, tilt_darkening=0.5, occlusion_strength=1.0)
    look = replace(look, substrate_level=Look().substrate_level)
    assert picture(look, given) == pytest.approx(ramp.astype(float), abs=1e-5)
    textured = picture(replace(look, substrate_texture=0.3), given)
    ground = layers.instances == 0
    assert np.array_equal(textured[~ground], picture(look, given)[~ground])
    assert np.abs(textured - ramp)[ground].mean() > 0.02
    darker = picture(replace(look, substrate_level=0.5 * look.substrate_level), given)
    assert darker[ground] == pytest.approx(0.5 * ramp[ground], abs=1e-5)


def test_optional_layers_survive_saving_cropping_and_old_files() -> None:
    layers = balls()
    extra = np.linspace(0, 2, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.float16)
    full = replace(layers, contrast=extra, shaded=extra[::-1])
    loaded = Layers.load(full.save())
    assert loaded.contrast is not None
    assert np.array_equal(loaded.contrast, extra)
    assert loaded.shaded is not None
    assert np.array_equal(loaded.shaded, extra[::-1])
    part = full.crop(5, 6, 20, 30)
    assert part.contrast is not None
    assert np.array_equal(part.contrast, extra[5:25, 6:36])
    old = Layers.load(layers.save())
    assert old.contrast is None
    assert old.shaded is None
    with pytest.raises(ValueError, match="differ in size"):
        replace(layers, contrast=extra[1:])
