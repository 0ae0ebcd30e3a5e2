# SPDX-License-Identifier: GPL-3.0-or-later
from typing import get_args

import numpy as np
import pytest

from granulo_core.imaging.appearance import Look, ModalityName, random_look
from granulo_render.domain.look import choose_look
from granulo_render.domain.recipe import (
    Imaging,
    Modality,
    ParticleClass,
    Recipe,
    Sphere,
    Uniform,
    Value,
)

NAMES = get_args(ModalityName)


def looks(modality: ModalityName, count: int = 60) -> list[Look]:
    rng = np.random.default_rng(1)
    return [random_look(rng, modality=modality) for _ in range(count)]


def mean(values: list[Look], name: str) -> float:
    return float(np.mean([getattr(look, name) for look in values]))


def test_recipes_know_the_same_modalities() -> None:
    assert sorted(item.value for item in Modality) == sorted(NAMES)


@pytest.mark.parametrize("modality", NAMES)
def test_looks_vary_but_never_carry_writing(modality: ModalityName) -> None:
    drawn = looks(modality)
    assert len(set(drawn)) == len(drawn)
    assert all(look.data_bar == 0.0 and look.scale_bar == 0.0 for look in drawn)
    assert drawn == looks(modality)


def test_detectors_in_the_lens_see_all_sides_alike() -> None:
    for look in looks("sem_in_lens"):
        assert look.detector_strength == look.shadow_strength == look.inverted == 0.0
        assert look.rim_strength > 0.3


def test_side_detectors_light_one_side_and_leave_shadows() -> None:
    for look in looks("sem_side_detector"):
        assert look.detector_strength > 0.0
        assert look.shadow_strength > 0.0
        assert look.gradient_azimuth_rad == look.detector_azimuth_rad


def test_helium_ions_give_strong_rims_in_focus_without_charging() -> None:
    helium, side = looks("him"), looks("sem_side_detector")
    assert mean(helium, "rim_strength") > 2 * mean(side, "rim_strength")
    assert mean(helium, "psf_sigma_px") < mean(side, "psf_sigma_px")
    assert mean(helium, "dose") < mean(side, "dose")
    assert all(look.defocus_px_per_um == look.halo_strength == 0.0 for look in helium)


def test_transmission_is_inverted_and_shows_thickness() -> None:
    for look in looks("tem"):
        assert look.inverted == 1.0
        assert look.thickness_contrast >= 0.5
        assert look.rim_strength == look.detector_strength == look.occlusion_strength == 0.0
        assert look.particle_level > look.substrate_level


def test_any_microscope_has_every_effect_now_and_then() -> None:
    drawn = looks("any", 400)
    for name in (
        "shadow_strength",
        "gradient_strength",
        "streak_strength",
        "defocus_px_per_um",
        "scan_drift_px",
        "vignetting",
        "saturation",
        "dirt_smear_px",
        "crack_strength",
        "inverted",
    ):
        share = np.mean([getattr(look, name) != 0.0 for look in drawn])
        assert 0.01 < share < 0.5, name


def recipe(**parts: object) -> Recipe:
    kind = ParticleClass(shape=Sphere(), diameter_nm=Value(100.0))
    return Recipe(classes=(kind,), imaging=Imaging(pixel_size_nm=Value(2.0)), **parts)  # type: ignore[arg-type]


def test_recipes_choose_the_modality() -> None:
    assert choose_look(recipe(modality=Modality.TEM), 1, 0, 1).inverted == 1.0
    assert choose_look(recipe(modality=Modality.HIM), 1, 0, 1).inverted == 0.0


def test_a_parameter_of_a_recipe_leaves_the_other_ones_alone() -> None:
    one = choose_look(recipe(appearance={"gamma": Uniform(0.8, 1.2)}), 5, 3, 2)
    two = choose_look(
        recipe(appearance={"brightness": Uniform(0.0, 0.1), "gamma": Uniform(0.8, 1.2)}), 5, 3, 2
    )
    plain = choose_look(recipe(), 5, 3, 2)
    assert one.gamma == two.gamma != plain.gamma
    assert one.upsampling == 2.0
    differing = {name for name in vars(two) if getattr(two, name) != getattr(plain, name)}
    assert differing == {"brightness", "gamma"}
