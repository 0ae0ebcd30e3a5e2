# SPDX-License-Identifier: GPL-3.0-or-later
"""Annotated images: what is taken in, how it is kept, and what patches of it look like."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from granulo_core.errors import GranuloError, Reason
from granulo_core.imaging.labels import encode_tiff
from granulo_core.store import LocalStore
from granulo_trainer import annotated, datasets
from granulo_trainer.domain.annotation import (
    ImportPlan,
    SourcePair,
    UnusablePairError,
    fit_labels,
    stored_grey,
)
from granulo_trainer.domain.config import preset_config
from granulo_trainer.domain.job import StoredImage
from granulo_trainer.domain.run import Checkpoint
from granulo_trainer.fold_checkpoints import FoldCheckpoints, drop_states
from granulo_trainer.unet import plain
from granulo_trainer.unet.targets import instance_targets

_MAX_PX = 1 << 24


def test_ids_are_numbered_and_cut_at_the_data_bar() -> None:
    labels = np.zeros((40, 30), np.uint32)
    labels[2:8, 2:8], labels[10:20, 10:20], labels[12:14, 2:4] = 4_000_000_000, 7, 7
    fitted = fit_labels((40, 30), labels, content_height_px=0, found_height_px=32)
    assert fitted.shape == (32, 30)
    assert fitted.dtype == np.uint16
    assert fitted[3, 3] == 2
    # One id in two places is one particle that is partly hidden.
    assert fitted[15, 15] == fitted[12, 2] == 1


def test_a_found_data_bar_gives_way_to_labels_and_a_given_one_does_not() -> None:
    labels = np.zeros((40, 30), np.uint32)
    labels[2:8, 2:8], labels[35:38, 5:9] = 1, 2
    fitted = fit_labels((40, 30), labels, content_height_px=0, found_height_px=32)
    assert len(fitted) == 40
    fitted = fit_labels((40, 30), labels, content_height_px=32, found_height_px=40)
    assert len(fitted) == 32
    assert fitted.max() == 1


@pytest.mark.parametrize(
    ("labels", "height", "part", "said"),
    [
        (np.ones((40, 31), np.uint32), 0, "labels", "31 × 40 pixels and the image has 30 × 40"),
        (np.zeros((40, 30), np.uint32), 0, "labels", "no particle"),
        (np.full((40, 30), 5, np.uint32), 0, "labels", "no background"),
        (np.eye(40, 30, dtype=np.uint32), 41, "image", "40 rows"),
        (np.eye(40, 30, dtype=np.uint32), 8, "image", "at least 16"),
    ],
)
def test_a_pair_that_teaches_nothing_is_refused(
    labels: np.ndarray, height: int, part: str, said: str
) -> None:
    with pytest.raises(UnusablePairError, match=said) as caught:
        fit_labels((40, 30), labels, content_height_px=height, found_height_px=40)
    assert caught.value.part == part


def test_grey_levels_of_other_types_are_stretched_to_sixteen_bits() -> None:
    values = np.array([[-1.0, 0.0], [0.5, 3.0]], np.float32)
    stored = stored_grey(values)
    assert stored.dtype == np.uint16
    assert stored.tolist() == [[0, 16384], [24576, 65535]]
    assert stored_grey(np.full((2, 2), 7.0, np.float32)).tolist() == [[0, 0], [0, 0]]
    assert stored_grey(np.eye(2, dtype=np.uint8)).dtype == np.uint8


def test_an_import_meets_itself_and_never_changes(local_store: LocalStore) -> None:
    plan = _import(local_store, _plan(local_store, 2))
    name = annotated.resource_name(plan)
    before = {key: local_store.get(key) for key in local_store.list(f"{name}/")}
    assert set(before) == {
        f"{name}/{key}"
        for key in (
            "manifest.json", "images/000000.tif", "images/000001.tif", "labels/000000.tif",
            "labels/000001.tif",
        )
    }  # fmt: skip
    assert annotated.find(local_store, plan) is not None
    other = annotated.with_digests(local_store, _plan(local_store, 1, name.split("/")[1]))
    with pytest.raises(GranuloError) as caught:
        annotated.find(local_store, other)
    assert caught.value.reason is Reason.RESOURCE_EXISTS


def test_images_of_a_dataset_carry_their_pixel_size_and_their_names(
    local_store: LocalStore,
) -> None:
    name = annotated.resource_name(_import(local_store, _plan(local_store, 2, "mine")))
    manifest = annotated.manifests.load(local_store, name)
    images = annotated.images_of(manifest)
    assert [(i.name, i.labels_name, i.particle_count) for i in images] == [
        ("a0.tif", "a0_m.tif", 4),
        ("a1.tif", "a1_m.tif", 4),
    ]
    assert [tuple(i.pixel_size_nm or ()) for i in images] == [(2.5, 2.5)] * 2
    assert len(manifest.inputs) == 4


def test_what_a_killed_import_left_is_not_part_of_the_next(local_store: LocalStore) -> None:
    local_store.put("annotated/mine/images/000007.tif", b"half an import")
    _import(local_store, _plan(local_store, 1, "mine"))
    assert "annotated/mine/images/000007.tif" not in set(local_store.list("annotated/"))


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_annotated_images_are_read_as_scenes(preset: str, local_store: LocalStore) -> None:
    name = annotated.resource_name(_import(local_store, _plan(local_store, 2)))
    config = preset_config(preset, patch_px=64)
    scenes = datasets.list_scenes(local_store, [name])
    scene = datasets.load_scene(local_store, scenes[0], config)
    assert scene.image is not None
    assert scene.image.dtype == np.uint8
    assert scene.instances.max() == 4
    assert (scene.mask is None) == (preset == "small")
    assert scene.prepared == (preset == "paper")


def test_a_damaged_image_is_found_when_it_is_needed(local_store: LocalStore) -> None:
    name = annotated.resource_name(_import(local_store, _plan(local_store, 1)))
    local_store.put(f"{name}/labels/000000.tif", b"something else")
    scenes = datasets.list_scenes(local_store, [name])
    with pytest.raises(GranuloError) as caught:
        datasets.load_scene(local_store, scenes[0], preset_config("small"))
    assert caught.value.reason is Reason.DIGEST_MISMATCH


def test_outliers_do_not_take_the_contrast_of_sixteen_bits(local_store: LocalStore) -> None:
    image = np.full((100, 100), 3000, np.uint16)
    image[20:40, 20:40] = 3400
    image[0, 0] = 65535
    labels = np.zeros(image.shape, np.uint16)
    labels[20:40, 20:40] = 1
    plan = _import(local_store, _plan_of(local_store, [(image, labels)]))
    scenes = datasets.list_scenes(local_store, [annotated.resource_name(plan)])
    scene = datasets.load_scene(local_store, scenes[0], preset_config("small"))
    assert scene.image is not None
    assert int(scene.image[30, 30]) - int(scene.image[60, 60]) > 200


def test_degraded_images_stay_recognisable() -> None:
    rng = np.random.default_rng(4)
    clear = np.where(_labels(96) > 0, 150, 90).astype(np.uint8)
    inside = _labels(96) > 0
    changed = 0
    for _ in range(40):
        image = plain.degraded(clear, rng)
        changed += not np.array_equal(image, clear)
        difference = image[inside].mean() - image[~inside].mean()
        noise = max(image[inside].std(), image[~inside].std(), 1.0)
        assert difference > 1.5 * noise
    assert 25 < changed < 40


def test_particles_drawn_with_a_gap_between_them_meet_as_well() -> None:
    labels = np.zeros((30, 40), np.uint16)
    labels[5:25, 5:19], labels[5:25, 21:35] = 1, 2
    contacts = instance_targets(labels)[..., 2]
    assert contacts[15, 18] == contacts[15, 21] == 255
    assert contacts[15, 19] == contacts[15, 5] == contacts[15, 12] == 0


def test_a_fold_keeps_its_last_state_and_its_best_weights(local_store: LocalStore) -> None:
    kept = FoldCheckpoints(local_store, "cross-validations/cv/folds/000")
    assert kept.latest() is None
    for epoch, loss in enumerate((0.9, 0.2, 0.5, 0.4), start=1):
        figures = {"loss": 1.0, "validation_loss": loss}
        kept.save(Checkpoint(epoch, b"w%d" % epoch, b"o%d" % epoch, figures, {"a.tif": b"png"}))
    latest = kept.latest()
    assert latest is not None
    assert (latest.epoch, latest.weights, latest.optimizer) == (4, b"w4", b"o4")
    assert kept.weights(2) == b"w2"
    assert [figures["validation_loss"] for figures in kept.history()] == [0.9, 0.2, 0.5, 0.4]
    stored = list(local_store.list("cross-validations/"))
    assert sum(key.endswith("/weights") for key in stored) == 2
    assert sum(key.endswith("/optimizer") for key in stored) == 1

    local_store.put("cross-validations/cv/folds/000/history.json", b"[]")
    drop_states(local_store, "cross-validations/cv")
    assert list(local_store.list("cross-validations/")) == [
        "cross-validations/cv/folds/000/history.json"
    ]


def test_vendors_masks_are_one_particle_a_component(
    local_store: LocalStore, shared_micrographs: Path
) -> None:
    folder = shared_micrographs / "tio2_sem"
    files = sorted(path for path in folder.glob("*.tif") if not path.stem.endswith("_m"))
    pairs = [_stored_pair(local_store, path, folder / f"{path.stem}_m.tif") for path in files]
    plan = annotated.with_digests(local_store, ImportPlan("", tuple(pairs), None, 0))
    images = annotated.check(local_store, plan, _MAX_PX)
    assert [image.particle_count for image in images] == [36, 57, 65]
    assert {(image.height_px, image.width_px) for image in images} == {(712, 1024)}
    assert all(tuple(image.pixel_size_nm or ()) == (7.344, 7.344) for image in images)


def _labels(side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    step = side // 2
    ids = (y % step - step // 2) ** 2 + (x % step - step // 2) ** 2 < (side // 6) ** 2
    return ids * (1 + y // step * 2 + x // step).astype(np.uint16)


def _plan(store: LocalStore, count: int, dataset_id: str = "") -> ImportPlan:
    rng = np.random.default_rng(count)
    labels = _labels(96)
    images = [
        (np.where(labels > 0, 160, 40) + rng.integers(0, 30, labels.shape)).astype(np.uint8)
        for _ in range(count)
    ]
    masks = [np.where(labels > 0, 255, 0).astype(np.uint8)] * count
    return _plan_of(store, list(zip(images, masks, strict=True)), dataset_id)


def _plan_of(
    store: LocalStore, pairs: list[tuple[np.ndarray, np.ndarray]], dataset_id: str = ""
) -> ImportPlan:
    folder = store.root.parent / "files"
    folder.mkdir(exist_ok=True)
    found = []
    for number, (image, labels) in enumerate(pairs):
        picture, truth = folder / f"a{number}.tif", folder / f"a{number}_m.tif"
        picture.write_bytes(encode_tiff(image, (2.5, 2.5), kind="micrograph"))
        tifffile.imwrite(truth, labels)
        found.append(_stored_pair(store, picture, truth))
    return ImportPlan(dataset_id, tuple(found), None, 0)


def _stored_pair(store: LocalStore, image: Path, labels: Path) -> SourcePair:
    files = []
    for path in (image, labels):
        data = path.read_bytes()
        digest = annotated.digest_of(data)
        stored = store.put(f"uploads/{digest.removeprefix('sha256:')}", data)
        files.append(StoredImage(stored.key, "", path.name))
    return SourcePair(*files)


def _import(store: LocalStore, plan: ImportPlan) -> ImportPlan:
    plan = annotated.with_digests(store, plan)
    images = annotated.check(store, plan, _MAX_PX)
    annotated.commit(store, plan, images, annotated.write(store, plan, _MAX_PX), {})
    return plan
