# SPDX-License-Identifier: GPL-3.0-or-later
"""Which scenes are drawn, held out and left out: mixtures, weights and folds."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo_core.errors import GranuloError
from granulo_core.imaging.appearance import Layers, ModalityName
from granulo_core.store import LocalStore
from granulo_core.store import manifest as manifests
from granulo_trainer import convert
from granulo_trainer.datasets import SceneObjects, list_scenes, split_held_out
from granulo_trainer.domain.config import preset_config
from granulo_trainer.domain.cross_validation import (
    FoldJob,
    assign_folds,
    best_epoch,
    means_and_deviations,
)
from granulo_trainer.domain.mixture import Mixture
from granulo_trainer.unet import views
from granulo_trainer.unet.data import CachedScenes, PatchStream, draw_patch

_WEIGHTS = st.one_of(st.just(0.0), st.floats(1e-3, 1e3))
_DATASETS = st.lists(st.tuples(st.integers(1, 40), _WEIGHTS), min_size=1, max_size=6).filter(
    lambda datasets: any(weight for _, weight in datasets)
)


@settings(max_examples=30, deadline=None)
@given(_DATASETS, st.integers(0, 2**31))
def test_drawn_shares_follow_the_weights(datasets: list[tuple[int, float]], seed: int) -> None:
    counts, weights = zip(*datasets, strict=True)
    mixture = Mixture(counts, weights)
    rng = np.random.default_rng(seed)
    drawn = np.array([mixture.draw(rng) for _ in range(2000)])

    owners = np.repeat(np.arange(len(counts)), counts)[drawn]
    shares = np.bincount(owners, minlength=len(counts)) / len(drawn)
    expected = np.array(weights) / sum(weights)
    # Six standard deviations of a binomial share, and ten draws where rare ones are expected.
    tolerance = 6 * np.sqrt(expected * (1 - expected) / len(drawn)) + 10 / len(drawn)
    assert (np.abs(shares - expected) <= tolerance).all()
    assert not shares[expected == 0].any()


@settings(max_examples=40, deadline=None)
@given(_DATASETS, st.integers(0, 2**31))
def test_a_second_choice_stays_within_the_dataset(
    datasets: list[tuple[int, float]], seed: int
) -> None:
    counts, weights = zip(*datasets, strict=True)
    owners = np.repeat(np.arange(len(counts)), counts)
    mixture, rng = Mixture(counts, weights), np.random.default_rng(seed)
    for scene in range(len(owners)):
        assert owners[mixture.draw_beside(scene, rng)] == owners[scene]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.integers(0, 2**31))
def test_without_weights_the_draw_is_that_of_one_large_dataset(
    counts: list[int], seed: int
) -> None:
    rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
    assert Mixture.in_proportion(counts).draw(rng) == other.integers(sum(counts))


@pytest.mark.parametrize(
    ("counts", "weights", "said"),
    [
        ((2,), (math.nan,), "0 or more"),
        ((2, 2), (1.0, -1.0), "0 or more"),
        ((2, 2), (0.0, 0.0), "all weights are 0"),
        ((2, 0), (1.0, 1.0), "without a scene"),
        ((2, 2), (1.0,), "one each"),
    ],
)
def test_mixtures_of_nothing_are_refused(
    counts: tuple[int, ...], weights: tuple[float, ...], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Mixture(counts, weights)


def test_patches_of_a_mixture_do_not_depend_on_threads_or_on_the_step_begun_with() -> None:
    config = preset_config(
        "small", filters=(4, 6), patch_px=32, batch_size=2, patches_per_block=8, seed=3
    )
    source = CachedScenes(6, _scene, Mixture((2, 3, 1), (1.0, 0.0, 3.0)))

    def batches(first: int, count: int, threads: int) -> list[np.ndarray]:
        stream = PatchStream(source, config, first, threads)
        try:
            iterator = iter(stream)
            return [next(iterator)[0] for _ in range(count)]
        finally:
            stream.close()

    whole, resumed = batches(0, 12, 1), batches(7, 5, 4)
    assert all(np.array_equal(a, b) for a, b in zip(whole[7:], resumed, strict=True))


@pytest.mark.parametrize("preset", ["small", "base", "paper"])
def test_every_preset_draws_from_layers_and_from_images(preset: str) -> None:
    config = preset_config(preset, patch_px=64)
    shares = []
    for number in range(6):
        source = CachedScenes(1, lambda _, number=number: _scene(number, side=96))
        image, target = draw_patch(source, config, np.random.default_rng(number))
        assert image.shape == (64, 64)
        assert image.dtype == target.dtype == np.uint8
        assert target.shape[2] == (1 if preset == "paper" else 4)
        assert image.std() > 3
        shares.append(float((target[..., 0] > 0).mean()))
    # One patch in ten may show the substrate alone, or the inside of a particle.
    assert sum(0 < share < 1 for share in shares) >= 4


def test_patches_look_as_the_recipes_microscope_does() -> None:
    def share_of_dark_particles(modality: ModalityName) -> float:
        scene = replace(_scene(0, side=128), modality=modality)
        source = CachedScenes(1, lambda _: scene)
        config = preset_config("small", patch_px=96)
        dark = []
        for seed in range(20):
            image, target = draw_patch(source, config, np.random.default_rng(seed))
            inside = target[..., 0] > 0
            if 0.02 < inside.mean() < 0.9:
                dark.append(np.median(image[inside]) < np.median(image[~inside]))
        assert len(dark) > 10
        return float(np.mean(dark))

    assert share_of_dark_particles("tem") == 1.0
    assert share_of_dark_particles("sem_in_lens") < 0.3


@pytest.mark.parametrize(
    ("recipe", "modality"),
    [
        ({"modality": "MODALITY_TEM"}, "tem"),
        ({"modality": "MODALITY_SEM_IN_LENS"}, "sem_in_lens"),
        ({"modality": "MODALITY_UNSPECIFIED"}, "any"),
        ({}, "any"),
        (None, "any"),
    ],
)
def test_scenes_know_their_recipes_modality(
    recipe: dict[str, str] | None, modality: str, local_store: LocalStore
) -> None:
    stored = local_store.put("datasets/a/layers/000000.npz", b"layers")
    facts = {} if recipe is None else {"recipe": recipe}
    producer = manifests.producer("render", 0)
    manifest = manifests.Manifest("datasets/a", "Dataset", (stored,), (), producer, {}, facts=facts)
    manifests.commit(local_store, "datasets/a", manifest)
    assert [scene.modality for scene in list_scenes(local_store, ["datasets/a"])] == [modality]


def test_a_bounded_cache_counts_every_layer() -> None:
    loaded: list[int] = []

    def load(index: int) -> views.Scene:
        loaded.append(index)
        return _scene(0)

    source = CachedScenes(2, load)
    for index in (0, 1, 0, 1):
        source.load(index)
    assert loaded == [0, 1]
    layers = _scene(0).layers
    assert layers is not None
    parts = (layers.occlusion, layers.normals, layers.height_nm, layers.instances, layers.contrast)
    assert source._bytes == 2 * sum(part.nbytes for part in parts if part is not None)


def test_every_rendered_dataset_gives_its_share_and_annotated_images_give_none() -> None:
    scenes = [
        SceneObjects(f"{name}/{number:06d}", {})
        for name, count in (
            ("datasets/a", 64), ("annotated/real", 40), ("datasets/b", 10), ("datasets/c", 3),
        )
        for number in range(count)
    ]  # fmt: skip
    training, held_out = split_held_out(scenes)

    by_dataset = [scene.dataset for scene in held_out]
    assert by_dataset == ["datasets/a"] * 3 + ["datasets/b"]
    assert [scene for scene in scenes if scene in training or scene in held_out] == scenes
    assert len(training) + len(held_out) == len(scenes)


def test_few_rendered_scenes_are_all_trained_on() -> None:
    scenes = [SceneObjects(f"datasets/a/{n:06d}", {}) for n in range(15)]
    scenes += [SceneObjects(f"annotated/r/{n:06d}", {}) for n in range(30)]
    assert split_held_out(scenes) == (scenes, [])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.data())
def test_every_image_is_left_out_once(count: int, data: st.DataObject) -> None:
    folds = data.draw(st.one_of(st.just(0), st.integers(2, count)))
    seed = data.draw(st.integers(0, 2**31 - 1))
    assigned = assign_folds(count, folds, seed)
    assert sorted(image for fold in assigned for image in fold) == list(range(count))
    assert len(assigned) == (folds or count)
    sizes = [len(fold) for fold in assigned]
    assert max(sizes) - min(sizes) <= 1
    assert assigned == assign_folds(count, folds, seed)


def test_the_best_epoch_has_the_lowest_loss_on_the_images_left_out() -> None:
    history = [
        {"loss": 0.1, "validation_loss": 0.9},
        {"loss": 0.9, "validation_loss": 0.4},
        {"loss": 0.05, "validation_loss": 0.4},
        {"loss": 0.01, "validation_loss": math.nan},
    ]
    assert best_epoch(history) == 2
    with pytest.raises(ValueError, match="no epoch"):
        best_epoch([{"loss": 1.0}])


def test_deviations_are_those_of_a_sample() -> None:
    found = means_and_deviations([{"dsc": 0.5}, {"dsc": 0.7}])
    assert found == pytest.approx({"dsc": 0.6, "dsc_stddev": math.sqrt(0.02)})
    assert means_and_deviations([{"dsc": 0.5}])["dsc_stddev"] == 0.0


def test_a_fold_survives_its_bytes() -> None:
    job = FoldJob(
        name="cross-validations/cv-1", fold=2, folds=3, dataset="annotated/a",
        left_out=("000001", "000004"), config=preset_config("paper"), datasets=("datasets/b",),
        weights=(1.0, 2.0),
    )  # fmt: skip
    assert FoldJob.from_bytes(job.to_bytes()) == job


def test_weights_of_a_request_are_told_all_at_once() -> None:
    config = pb.TrainingConfig(
        datasets=["datasets/a", "annotated/b"],
        weights={"datasets/a": -1.0, "annotated/b": math.nan, "datasets/c": 1.0},
    )
    with pytest.raises(GranuloError) as caught:
        convert.training_weights(config, list(config.datasets))
    assert [violation.field for violation in caught.value.violations] == [
        f"model_version.config.weights[{name}]"
        for name in ("annotated/b", "datasets/a", "datasets/c")
    ]


def test_a_dataset_without_a_weight_has_one() -> None:
    config = pb.TrainingConfig(datasets=["datasets/a", "annotated/b"], weights={"datasets/a": 3.0})
    assert convert.training_weights(config, list(config.datasets)) == (3.0, 1.0)
    assert convert.training_weights(pb.TrainingConfig(), ["datasets/a"]) == ()


def _scene(number: int, side: int = 48) -> views.Scene:
    """A disc on a substrate: every second scene as layers, the others as an image."""
    y, x = np.mgrid[:side, :side]
    ids = ((y - side / 2) ** 2 + (x - side / 2) ** 2 < (side / 4) ** 2).astype(np.uint16)
    diameter = views.median_diameter_px(ids)
    if number % 2:
        rng = np.random.default_rng(number)
        image = np.where(ids > 0, 170, 60 + 10 * number) + rng.integers(0, 20, ids.shape)
        return views.Scene(ids, None, image.astype(np.uint8), None, diameter)
    layers = Layers(
        occlusion=np.full(ids.shape, 255, np.uint8),
        normals=np.tile(np.array([0, 0, 127], np.int8), (side, side, 1)),
        height_nm=(ids * 20).astype(np.float16),
        instances=ids,
        pixel_size_nm=2.0,
        contrast=np.ones(ids.shape, np.float16),
    )
    return views.Scene(ids, layers, None, None, diameter)
