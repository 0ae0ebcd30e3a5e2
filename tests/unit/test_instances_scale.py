# SPDX-License-Identifier: GPL-3.0-or-later
import numpy as np
import pytest

from granulo_core.imaging.instances import InstanceParams
from granulo_core.imaging.read import Micrograph
from granulo_core.imaging.scale import ScaleParams, fitting_scale, predict_adaptively
from granulo_segmenter.domain.model import ModelFacts
from granulo_segmenter.domain.segmentation import segment


def squares(side: int, count: int = 4) -> np.ndarray:
    labels = np.zeros((200, 200), np.int32)
    for number in range(count):
        row, column = divmod(number, 4)
        labels[row * 50 : row * 50 + side, column * 50 : column * 50 + side] = number + 1
    return labels


def test_small_particles_ask_for_enlargement_and_large_ones_for_reduction() -> None:
    params = ScaleParams(target_diameter_px=30)
    assert fitting_scale(squares(20), params) == pytest.approx(30 / (20 * 2 / np.sqrt(np.pi)))
    assert fitting_scale(squares(45), params) < 1


def test_sizes_that_fit_and_empty_images_are_left_alone() -> None:
    assert fitting_scale(squares(26), ScaleParams(target_diameter_px=30)) == 1.0
    assert fitting_scale(squares(20, 0), ScaleParams()) == 1.0


def test_enlargement_is_bounded_by_factor_and_by_pixels() -> None:
    assert fitting_scale(squares(5), ScaleParams(max_scale=2.0)) == 2.0
    few = ScaleParams(max_enlarged_px=200 * 200 * 2)
    assert fitting_scale(squares(5), few) == pytest.approx(np.sqrt(2))


def test_outputs_of_a_rescaled_image_lie_where_the_particles_are() -> None:
    truth = squares(16)
    image = np.where(truth > 0, 255, 0).astype(np.uint8)
    sizes = []

    def predict(pixels: np.ndarray) -> np.ndarray:
        sizes.append(pixels.shape)
        foreground = pixels.astype(np.float32) / 255
        return np.dstack([foreground, foreground])

    outputs, scale = predict_adaptively(image, predict, InstanceParams(), ScaleParams())
    assert scale == 2.0
    assert sizes == [(200, 200), (400, 400)]
    assert outputs.shape == (200, 200, 2)
    overlap = (outputs[..., 0] > 0.5) & (truth > 0)
    assert overlap.sum() / ((outputs[..., 0] > 0.5) | (truth > 0)).sum() > 0.97


def test_impossible_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="min_scale"):
        ScaleParams(min_scale=2.0)
    with pytest.raises(ValueError, match="newer version"):
        ScaleParams.from_json({"zoom": 2})


def test_the_segmenter_predicts_again_at_the_scale_that_the_model_likes() -> None:
    truth = squares(16)
    micrograph = Micrograph(np.where(truth > 0, 255, 0).astype(np.uint8), None, 200, "test")
    widths = []

    def predict_tiles(tiles, names):
        for tile in tiles:
            widths.append(tile.shape[1])
            yield {name: tile.astype(np.float32) / 255 for name in names}

    found = segment(micrograph, ModelFacts(stride=32, scale=ScaleParams()), predict_tiles)
    assert found.labels.shape == truth.shape
    assert found.particle_count == 4
    assert max(widths) >= 400
    widths.clear()
    segment(micrograph, ModelFacts(stride=32), predict_tiles)
    assert max(widths) < 400


def test_the_liked_scale_survives_the_models_metadata() -> None:
    facts = ModelFacts(scale=ScaleParams(target_diameter_px=50))
    assert ModelFacts.from_json(facts.to_json()) == facts
