# SPDX-License-Identifier: GPL-3.0-or-later
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from granulo_core.imaging import texture
from granulo_core.imaging.appearance import Layers, Look, draw, random_look

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from two_balls import QUIET


def sphere_layers(side: int = 96, radius: float = 30.0) -> Layers:
    """One analytic sphere on a flat substrate."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    u, v = (x - side / 2) / radius, (y - side / 2) / radius
    inside = u**2 + v**2 < 1
    up = np.sqrt(np.clip(1 - u**2 - v**2, 0, None))
    normals = np.where(inside[..., None], np.dstack([u, v, up]), [0.0, 0.0, 1.0])
    return Layers(
        occlusion=np.full((side, side), 255, np.uint8),
        normals=np.rint(normals * 127).astype(np.int8),
        height_nm=(up * radius * 5 * inside).astype(np.float16),
        instances=inside.astype(np.uint16),
        pixel_size_nm=5.0,
    )


def test_same_arguments_give_the_same_picture() -> None:
    layers = sphere_layers()
    look = random_look(np.random.default_rng(4))
    first = draw(layers, look, np.random.default_rng(9))
    assert np.array_equal(first, draw(layers, look, np.random.default_rng(9)))
    assert not np.array_equal(first, draw(layers, look, np.random.default_rng(10)))


def test_every_random_look_is_drawable_and_in_range() -> None:
    layers = sphere_layers(64, 20)
    rng = np.random.default_rng(0)
    for _ in range(40):
        picture = draw(layers, random_look(rng), rng)
        assert picture.dtype == np.float32
        assert picture.shape == (64, 64)
        assert np.isfinite(picture).all()
        assert 0.0 <= picture.min() <= picture.max() <= 1.0


def test_edges_are_bright() -> None:
    picture = draw(sphere_layers(), QUIET, np.random.default_rng(0))
    assert picture[48, 48 + 27] > picture[48, 48] + 0.1


def test_detector_side_is_brighter() -> None:
    look = replace(QUIET, detector_strength=0.5, detector_azimuth_rad=0.0)
    picture = draw(sphere_layers(), look, np.random.default_rng(0))
    assert picture[48, 48 + 20] > picture[48, 48 - 20] + 0.05
    turned = draw(
        sphere_layers(), replace(look, detector_azimuth_rad=np.pi), np.random.default_rng(0)
    )
    assert turned[48, 48 - 20] > turned[48, 48 + 20] + 0.05


def test_occlusion_darkens() -> None:
    layers = sphere_layers()
    shaded = replace(layers, occlusion=np.full((96, 96), 100, np.uint8))
    look = replace(QUIET, occlusion_strength=0.8)
    open_picture = draw(layers, look, np.random.default_rng(0))
    assert draw(shaded, look, np.random.default_rng(0)).mean() < 0.7 * open_picture.mean()


def test_upsampling_removes_detail_but_keeps_brightness() -> None:
    layers = sphere_layers()
    fine = draw(layers, QUIET, np.random.default_rng(0))
    coarse = draw(layers, replace(QUIET, upsampling=4.0), np.random.default_rng(0))
    assert abs(float(fine.mean()) - float(coarse.mean())) < 0.01
    assert np.abs(np.diff(coarse)).max() < 0.6 * np.abs(np.diff(fine)).max()


def test_noise_follows_the_dose() -> None:
    layers = sphere_layers()

    def spread(dose: float) -> float:
        picture = draw(layers, replace(QUIET, dose=dose), np.random.default_rng(1))
        return float(picture[40:56, 40:56].std())

    assert spread(50) / spread(800) == pytest.approx(4.0, rel=0.3)


def test_layers_survive_saving_byte_for_byte() -> None:
    layers = sphere_layers()
    data = layers.save()
    assert data == sphere_layers().save()
    loaded = Layers.load(data)
    assert loaded.pixel_size_nm == 5.0
    for item in fields(Layers)[:4]:
        assert np.array_equal(getattr(loaded, item.name), getattr(layers, item.name))
        assert getattr(loaded, item.name).dtype == getattr(layers, item.name).dtype


def test_damaged_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="not the layers"):
        Layers.load(sphere_layers().save()[:200])
    with pytest.raises(ValueError, match="differ in size"):
        replace(sphere_layers(), occlusion=np.zeros((3, 3), np.uint8))


def test_crop_is_the_same_part_of_every_layer() -> None:
    layers = sphere_layers()
    part = layers.crop(10, 20, 30, 40)
    assert part.shape == (30, 40)
    assert np.array_equal(part.normals, layers.normals[10:40, 20:60])
    assert np.array_equal(part.instances, layers.instances[10:40, 20:60])


@pytest.mark.parametrize(
    ("name", "value"), [("dose", float("nan")), ("psf_sigma_px", -1.0), ("upsampling", 2.5)]
)
def test_looks_outside_of_their_range_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Look(**{name: value})


def test_dirt_is_rough_at_every_scale_and_of_the_asked_size() -> None:
    rng = np.random.default_rng(0)
    dirt = texture.diamond_square(rng, (100, 130), 0.6)
    assert dirt.shape == (100, 130)
    assert dirt.mean() == pytest.approx(0, abs=1e-4)
    assert dirt.std() == pytest.approx(1, abs=1e-3)
    near = np.abs(dirt[:, 1:] - dirt[:, :-1]).mean()
    far = np.abs(dirt[:, 50:] - dirt[:, :-50]).mean()
    assert 0.01 < near < 0.5 * far


def test_fractal_noise_gets_smoother_with_beta() -> None:
    def roughness(beta: float) -> float:
        noise = texture.fractal_noise(np.random.default_rng(2), (128, 128), beta)
        return float(np.abs(np.diff(noise)).mean())

    assert roughness(0.0) > 1.5 * roughness(2.0) > 3 * roughness(3.5)
