# SPDX-License-Identifier: GPL-3.0-or-later
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from granulo_core.imaging.consistency import consistency, relative_distance
from granulo_core.imaging.instances import InstanceParams
from granulo_core.imaging.read import Micrograph
from granulo_core.imaging.scale import ScaleParams, beside, predict_adaptively
from granulo_segmenter.domain.model import ModelFacts
from granulo_segmenter.domain.planes import blocks, whole
from granulo_segmenter.domain.segmentation import segment

SIDE_PX = 20
"""Of the squares that `understood` has learnt."""
ITS_OWN = ScaleParams(enlarge_below_px=18)


def squares(side: int, count: int = 4) -> np.ndarray:
    labels = np.zeros((200, 200), np.int32)
    for number in range(count):
        row, column = (50 * place + 1 for place in divmod(number, 4))
        labels[row : row + side, column : column + side] = number + 1
    return labels


def micrograph_of(labels: np.ndarray) -> np.ndarray:
    return np.where(labels > 0, 255, 0).astype(np.uint8)


def understood(pixels: np.ndarray) -> np.ndarray:
    """Outputs of a network that knows squares of `SIDE_PX`, and guesses the more others differ."""
    foreground = (pixels > 127).astype(np.float32)
    labels = ndimage.label(foreground)[0]
    sides = np.sqrt(np.bincount(labels.ravel())[1:]) if labels.any() else np.array([SIDE_PX])
    off = abs(np.log(float(np.median(sides)) / SIDE_PX))
    rng = np.random.default_rng(0)
    noise = 0.6 * off * rng.uniform(-1, 1, pixels.shape).astype(np.float32)
    return np.dstack([foreground, np.clip(relative_distance(labels) + noise * foreground, 0, 1)])


@pytest.mark.parametrize(("side", "scale"), [(20, 1.0), (29, 11 / 16), (40, 0.5), (14, 1.5)])
def test_the_scale_is_taken_at_which_the_network_agrees_with_itself(
    side: int, scale: float
) -> None:
    image = micrograph_of(squares(side))
    outputs, chosen = predict_adaptively(image, understood, InstanceParams(), ITS_OWN)
    assert chosen == scale
    assert outputs.shape == (200, 200, 2)
    overlap = (outputs[..., 0] > 0.5) & (image > 0)
    assert overlap.sum() / ((outputs[..., 0] > 0.5) | (image > 0)).sum() > 0.9


def test_empty_images_are_left_alone() -> None:
    image = np.zeros((64, 64), np.uint8)
    assert predict_adaptively(image, understood, InstanceParams(), ScaleParams())[1] == 1.0


def test_scales_stay_within_their_bounds() -> None:
    def chosen(side: int, params: ScaleParams) -> float:
        image = micrograph_of(squares(side))
        return predict_adaptively(image, understood, InstanceParams(), params)[1]

    assert chosen(40, replace(ITS_OWN, min_scale=0.6)) == 11 / 16
    assert chosen(40, ScaleParams(enlarge_below_px=28)) == 11 / 16  # 45 px * 11/16 = 31 px
    assert chosen(40, ScaleParams(enlarge_below_px=36)) == 1.0
    assert chosen(14, ScaleParams(max_scale=1.4)) == 1.0
    assert chosen(14, ScaleParams(enlarge_below_px=10)) == 1.0
    assert chosen(14, ScaleParams(max_enlarged_px=200 * 200 * 2)) == 1.0


@pytest.mark.parametrize(
    ("factor", "diameter_px", "expected"),
    [
        (1, 50, Fraction(11, 16)),
        (1, 39, None),
        ("1/2", 100, Fraction(5, 16)),
        ("1/2", 79, None),
        ("5/16", 500, None),
        ("3/2", 35, None),
    ],
)
def test_outputs_of_large_particles_are_averaged_with_those_of_the_next_smaller_scale(
    factor: str, diameter_px: float, expected: Fraction | None
) -> None:
    assert beside(Fraction(factor), diameter_px, ScaleParams()) == expected
    assert beside(Fraction(factor), diameter_px, ScaleParams(average_from_px=0)) is None
    assert beside(Fraction(1), 50, ScaleParams(min_scale=0.7)) is None


def test_an_image_is_predicted_with_the_mean_of_two_scales() -> None:
    image = micrograph_of(squares(48))

    def by_size(pixels: np.ndarray) -> np.ndarray:
        foreground = (pixels > 127).astype(np.float32)
        labels = ndimage.label(foreground)[0]
        # Agrees best with itself at the image's own size.
        share = 1.0 if np.bincount(labels.ravel())[1:].max() > 40**2 else 0.9
        return np.dstack([foreground, relative_distance(labels) * share])

    outputs, scale = predict_adaptively(image, by_size, InstanceParams(), ScaleParams())
    assert scale == 1.0
    assert outputs[..., 1].max() == pytest.approx(0.95, abs=0.01)
    alone = ScaleParams(average_from_px=0)
    assert predict_adaptively(image, by_size, InstanceParams(), alone)[0][..., 1].max() == 1.0

    def predict_tiles(tiles, names):
        for tile in tiles:
            outputs = by_size(tile)
            yield {"foreground": outputs[..., 0], "distance": outputs[..., 1]}

    micrograph = Micrograph(image, None, 200, "test")
    found = segment(micrograph, ModelFacts(stride=8, scale=ScaleParams()), predict_tiles)
    everywhere = whole((200, 200))
    assert found.maps.read("distance", everywhere).max() == pytest.approx(0.95, abs=0.01)
    assert found.particle_count == 4
    for block in blocks((200, 200), 64):
        seen = found.maps.read("distance", everywhere)[block.slices]
        assert np.allclose(found.maps.read("distance", block), seen, atol=1e-6)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 10**6))
def test_instances_agree_with_their_own_distance(sides: list[int], seed: int) -> None:
    labels = np.zeros((64, 64), np.int32)
    rng = np.random.default_rng(seed)
    for number, side in enumerate(sides, start=1):
        row, column = rng.integers(0, 64, 2)
        labels[row : row + side, column : column + side] = number
    foreground = (labels > 0).astype(np.float32)
    assert consistency(labels, foreground, relative_distance(labels)).share == 1.0
    assert consistency(labels, foreground, 1.0 - relative_distance(labels)).share < 0.8


def test_divided_particles_do_not_agree_with_the_distance_of_the_whole() -> None:
    whole = squares(40)
    divided = whole * 2
    divided[:, 20:40] -= (divided[:, 20:40] > 0).astype(np.int32)
    foreground, distance = (whole > 0).astype(np.float32), relative_distance(whole)
    assert consistency(divided, foreground, distance).share < 0.95
    assert consistency(whole, foreground, distance).share == 1.0


def test_impossible_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="min_scale"):
        ScaleParams(min_scale=2.0)
    with pytest.raises(ValueError, match="newer version"):
        ScaleParams.from_json({"zoom": 2})


def test_the_segmenter_predicts_again_at_the_scale_that_the_model_likes() -> None:
    truth = squares(40)
    micrograph = Micrograph(micrograph_of(truth), None, 200, "test")
    widths = []

    def predict_tiles(tiles, names):
        for tile in tiles:
            widths.append(tile.shape[1])
            outputs = understood(tile)
            yield {"foreground": outputs[..., 0], "distance": outputs[..., 1]}

    found = segment(micrograph, ModelFacts(stride=32, scale=ITS_OWN), predict_tiles)
    assert found.labels.shape == truth.shape
    assert ((found.labels > 0) & (truth > 0)).sum() > 0.85 * (truth > 0).sum()
    assert found.maps.scale == Fraction(1, 2)
    assert len(set(widths)) == 4
    assert segment(micrograph, ModelFacts(stride=32), predict_tiles).maps.scale == 1


def test_the_liked_scale_survives_the_models_metadata() -> None:
    facts = ModelFacts(scale=ScaleParams(enlarge_below_px=50))
    assert ModelFacts.from_json(facts.to_json()) == facts
    old = {"target_diameter_px": 45.0, "tolerance": 1.25, "min_scale": 0.5, "max_scale": 1.0}
    assert ScaleParams.from_json(old) == ScaleParams(min_scale=0.5, max_scale=1.0)
