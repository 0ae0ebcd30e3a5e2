# SPDX-License-Identifier: GPL-3.0-or-later
import subprocess
import sys

import cv2
import numpy as np
import pytest
from scipy import ndimage

from granulo_core.imaging.appearance import Layers
from granulo_trainer.domain.config import TrainingConfig, preset_config
from granulo_trainer.domain.job import StoredImage, TrainingJob, ValidationPair
from granulo_trainer.unet import overlays, views
from granulo_trainer.unet.data import CachedScenes, PatchStream
from granulo_trainer.unet.targets import eroded_mask, instance_targets


def touching_squares() -> np.ndarray:
    labels = np.zeros((40, 60), np.uint16)
    labels[10:30, 10:30] = 1
    labels[10:30, 30:50] = 2
    return labels


def scene(labels: np.ndarray | None = None) -> views.Scene:
    labels = touching_squares() if labels is None else labels
    layers = Layers(
        occlusion=np.full(labels.shape, 255, np.uint8),
        normals=np.tile(np.array([127, 0, 0], np.int8), (*labels.shape, 1)),
        height_nm=np.zeros(labels.shape, np.float16),
        instances=labels,
        pixel_size_nm=2.0,
    )
    return views.Scene(labels, layers, None, None, views.median_diameter_px(labels))


def tiny(**changes: object) -> TrainingConfig:
    values = {
        "filters": (4, 6), "patch_px": 32, "batch_size": 2, "epochs": 2, "steps_per_epoch": 3,
        "patches_per_block": 4,
    }  # fmt: skip
    return preset_config("small", **{**values, **changes})


def test_distance_target_is_one_in_the_middle_of_every_particle_whatever_its_size() -> None:
    labels = np.zeros((120, 120), np.uint16)
    y, x = np.mgrid[:120, :120]
    for number, (row, radius) in enumerate([(20, 6), (75, 35)], start=1):
        labels[(y - row) ** 2 + (x - 60) ** 2 <= radius**2] = number
    target = instance_targets(labels)
    assert target[20, 60, 1] == target[75, 60, 1] == 255
    assert not target[..., 1][labels == 0].any()
    assert np.array_equal(target[..., 0] > 0, labels > 0)


def test_distance_target_falls_between_touching_particles() -> None:
    target = instance_targets(touching_squares())
    assert target[20, 29, 1] == target[20, 30, 1] == 0
    assert target[20, 20, 1] > 230


def test_contacts_are_marked_and_free_outlines_are_not() -> None:
    contacts = instance_targets(touching_squares())[..., 2]
    assert contacts[20, 29] == contacts[20, 30] == 255
    assert contacts[20, 10] == contacts[11, 20] == 0


def test_the_frame_is_no_outline() -> None:
    labels = np.zeros((40, 40), np.uint16)
    labels[:, :20] = 1
    distance = instance_targets(labels)[..., 1]
    assert distance[0, 0] > 200
    assert instance_targets(np.ones((8, 8), np.uint16))[..., 1].min() == 255


def test_eroded_mask_parts_touching_particles() -> None:
    mask = eroded_mask(touching_squares())
    assert ndimage.label(mask)[1] == 2
    assert set(np.unique(mask)) == {0, 255}


def test_normals_turn_with_the_view() -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        part, view = views.random_view(scene(), 64, rng)
        warped = view.layers(part.layers)
        expected = view.matrix[:, 0] / view.scale
        assert warped.normals[32, 32, :2] / 127 == pytest.approx(expected, abs=0.02)
        assert warped.shape == (64, 64)
        assert warped.pixel_size_nm == pytest.approx(2.0 / view.scale)


def test_views_scale_particles_into_the_trained_range() -> None:
    rng = np.random.default_rng(1)
    base = scene()
    sizes = [base.median_diameter_px * views.random_view(base, 64, rng)[1].scale for _ in range(60)]
    assert min(sizes) > views.MIN_DIAMETER_PX - 1
    assert max(sizes) <= views.MAX_DIAMETER_PX


def test_only_what_the_scene_shows_is_known() -> None:
    base = scene()
    shares = []
    for seed in range(40):
        part, view = views.random_view(base, 64, np.random.default_rng(seed))
        inside = view.inside(part.instances.shape)
        corners = np.array([(0, 0, 1), (63, 0, 1), (0, 63, 1), (63, 63, 1)], np.float64)
        turned = cv2.invertAffineTransform(view.matrix) @ corners.T
        far = np.array(part.instances.shape[::-1])[:, None] - 0.5
        expected = ((turned > -0.5) & (turned < far)).all(axis=0)
        assert np.array_equal(inside[[0, 0, 63, 63], [0, 63, 0, 63]], expected)
        shares.append(inside.mean())
    assert min(shares) < 0.9 < max(shares)


def test_boxes_become_background_and_never_new_particles() -> None:
    labels = np.ones((96, 96), np.uint16)
    image = np.full((96, 96), 90, np.uint8)
    covered = 0
    for seed in range(20):
        burnt, left = overlays.burn_overlays(image, labels, np.random.default_rng(seed))
        assert set(np.unique(left)) <= {0, 1}
        assert burnt.shape == image.shape
        covered += int((left == 0).any())
    assert covered > 5
    assert (labels == 1).all()


def test_patches_do_not_depend_on_threads_or_on_the_step_begun_with() -> None:
    source = CachedScenes(2, lambda index: scene())
    config = tiny()

    def batches(first: int, count: int, threads: int) -> list[tuple[np.ndarray, np.ndarray]]:
        stream = PatchStream(source, config, first, threads)
        try:
            iterator = iter(stream)
            return [next(iterator) for _ in range(count)]
        finally:
            stream.close()

    whole, resumed = batches(0, 9, 1), batches(5, 4, 3)
    for (image, target), (other_image, other_target) in zip(whole[5:], resumed, strict=True):
        assert np.array_equal(image, other_image)
        assert np.array_equal(target, other_target)
    assert whole[0][0].shape == (2, 32, 32, 1)
    assert not np.array_equal(whole[0][0], whole[1][0])


def test_paper_preset_has_the_papers_settings() -> None:
    config = preset_config("paper")
    assert (config.patch_px, config.batch_size) == (400, 2)
    assert (config.steps_per_epoch, config.epochs) == (150, 500)
    assert config.learning_rate == 0.001
    assert config.filters == (64, 128, 256, 512, 1024)
    assert config.convention.clahe_clip_limit > 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"patch_px": 250}, "patch_px must be a multiple of 32"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate"),
    ],
)
def test_untrainable_settings_are_refused_by_name(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        preset_config("small", **changes)


def test_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="small, base, paper"):
        preset_config("huge")


def test_jobs_survive_their_bytes() -> None:
    pair = ValidationPair(StoredImage("uploads/a", "", "a.tif"), None)
    job = TrainingJob("models/m/versions/1", ("datasets/d",), tiny(), (pair,))
    assert TrainingJob.from_bytes(job.to_bytes()) == job


def test_importing_the_servicer_does_not_import_tensorflow() -> None:
    code = "import sys, granulo_trainer.servicer; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
