# SPDX-License-Identifier: GPL-3.0-or-later
"""Thresholds are tuned on held-out renders, and only where that is more than luck."""

from collections.abc import Sequence

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from granulo_core.imaging.instances import InstanceParams
from granulo_core.store import LocalStore
from granulo_core.store import manifest as manifests
from granulo_trainer import thresholds
from granulo_trainer.domain.config import preset_config
from granulo_trainer.domain.tuning import PredictedImage, tune, within_one_standard_error

DEFAULT = InstanceParams()


def predicted(seed: int, peak: float, *, pairs: int = 2, side: int = 112) -> PredictedImage:
    """Pairs of touching discs whose distance map reaches ``peak`` in their middles."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((side, side), np.uint16)
    y, x = np.mgrid[:side, :side]
    for number in range(pairs):
        row = 28 + number * 52 + int(rng.integers(-3, 4))
        column = 36 + int(rng.integers(-3, 4))
        for half in range(2):
            inside = (y - row) ** 2 + (x - column - 28 * half) ** 2 < 14**2
            truth[inside & (truth == 0)] = 1 + 2 * number + half
    distance = np.zeros(truth.shape, np.float32)
    for label in range(1, int(truth.max()) + 1):
        own = cv2.distanceTransform((truth == label).astype(np.uint8), cv2.DIST_L2, 5)
        distance += peak * own / max(1.0, float(own.max()))
    foreground = np.where(truth > 0, 0.95, 0.05).astype(np.float32)
    pixels = np.where(truth > 0, 190, 40).astype(np.uint8)
    return PredictedImage(pixels, np.dstack([foreground, distance]), truth)


def test_thresholds_follow_a_network_whose_middles_are_too_low_for_the_default() -> None:
    scenes = [[predicted(seed, peak=0.45)] for seed in range(4)]
    found = tune(scenes)
    assert found is not None
    assert found.default_ap == 0.0
    assert found.tuned_ap > 0.9
    assert found.params.marker_threshold < 0.45
    assert found.params.foreground_threshold == DEFAULT.foreground_threshold
    assert (found.scenes, found.images) == (4, 4)


def test_the_default_stays_where_it_is_as_good_as_any() -> None:
    found = tune([[predicted(seed, peak=0.95)] for seed in range(3)])
    assert found is not None
    assert found.params == DEFAULT
    assert found.tuned_ap == found.default_ap > 0.9
    assert found.candidates >= 20


def test_one_scene_is_too_few_to_tune_on() -> None:
    assert tune([[predicted(0, peak=0.45)]]) is None


def test_a_gain_on_one_scene_of_many_does_not_move_the_thresholds() -> None:
    scores = [np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.9, 0.45, 0.5, 0.48])]
    assert within_one_standard_error(scores, [0.0, 1.0]) == 0
    steady = [scores[0], np.array([0.6, 0.58, 0.59, 0.6])]
    assert within_one_standard_error(steady, [0.0, 1.0]) == 1


@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(0, 1), min_size=3, max_size=3), st.sampled_from([0.0, 1.0, 2.0])
        ),
        min_size=1,
        max_size=8,
    )
)
def test_the_choice_is_never_farther_from_the_default_than_the_best(
    candidates: Sequence[tuple[list[float], float]],
) -> None:
    scores = [np.array(values) for values, _ in candidates]
    distances = [distance for _, distance in candidates]
    chosen = within_one_standard_error(scores, distances)
    best = max(range(len(scores)), key=lambda i: (float(scores[i].mean()), -distances[i]))
    loss = scores[best] - scores[chosen]
    assert distances[chosen] <= distances[best]
    assert loss.mean() <= loss.std(ddof=1) / np.sqrt(3)


def test_only_kept_back_renders_are_predicted_for_tuning(local_store: LocalStore) -> None:
    predictions: list[np.ndarray] = []

    def predict(image: np.ndarray) -> np.ndarray:
        predictions.append(image)
        return np.zeros((*image.shape, 2), np.float32)

    put_scenes(local_store, "datasets/render", 32, grey=200)
    put_scenes(local_store, "annotated/real", 32, grey=90)
    config = preset_config("small")
    names = ["datasets/render", "annotated/real"]
    found = thresholds.tune_on_renders(local_store, names, config, predict, None)
    assert found is not None
    assert found.scenes == len(predictions) == 2
    assert (
        thresholds.tune_on_renders(local_store, names[1:], config, predict, None)
        is thresholds.tune_on_renders(local_store, names, preset_config("paper"), predict, None)
        is None
    )
    assert len(predictions) == 2


def put_scenes(store: LocalStore, name: str, count: int, grey: int) -> None:
    """A dataset of plain images: squares on a dark ground."""
    labels = np.zeros((64, 64), np.uint16)
    labels[8:28, 8:28], labels[34:58, 34:58] = 1, 2
    image = np.where(labels > 0, grey, 30).astype(np.uint8)
    objects = []
    for number in range(count):
        for kind, array in (("images", image), ("labels", labels)):
            written, data = cv2.imencode(".tif", array)
            assert written
            objects.append(store.put(f"{name}/{kind}/{number:06d}.tif", bytes(data)))
    manifests.commit(
        store,
        name,
        manifests.Manifest(
            resource=name,
            kind="Dataset",
            objects=tuple(objects),
            inputs=(),
            producer=manifests.producer("render", 0),
            request={},
        ),
    )


def test_thresholds_are_not_tuned_on_a_single_render(local_store: LocalStore) -> None:
    put_scenes(local_store, "datasets/few", 20, grey=200)
    config = preset_config("small")

    def never(image: np.ndarray) -> np.ndarray:
        raise AssertionError("one render that was kept back is too few to predict any")

    found = thresholds.tune_on_renders(local_store, ["datasets/few"], config, never, None)
    assert found is None
