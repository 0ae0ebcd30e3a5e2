# SPDX-License-Identifier: GPL-3.0-or-later
"""Which version is served: promotion, the way back, and the packaged network in the registry."""

import contextlib
import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from granulo_core.errors import Code, GranuloError, Reason
from granulo_core.store import LocalStore
from granulo_core.store import manifest as manifests
from granulo_segmenter.predictor import versions as segmenter_versions
from granulo_trainer import packaged, promotion, registry
from granulo_trainer.domain.config import METADATA_NAME
from granulo_trainer.settings import TrainerSettings
from granulo_trainer.workflow import create_version


def make_version(store: LocalStore, number: int, model: str = "m") -> registry.VersionName:
    """A finished version as training leaves it, without the training."""
    version = registry.claim(store, model, f"sha256:{number}")
    assert version.number == number
    objects = [
        store.put(f"{version}/saved_model/saved_model.pb", b"graph"),
        store.put(f"{version}/saved_model/variables/variables.data", b"weights %d" % number),
        store.put(f"{version}/saved_model/{METADATA_NAME}", b"{}"),
        store.put(f"{version}/MODEL_CARD.md", b"# card"),
    ]
    manifests.commit(
        store,
        str(version),
        manifests.Manifest(
            resource=str(version),
            kind="ModelVersion",
            objects=tuple(objects),
            inputs=(),
            producer=manifests.producer("trainer", 0),
            request={},
        ),
    )
    return version


def served_weights(store: LocalStore, number: int) -> bytes:
    return store.get(f"serving/m/{number}/variables/variables.data")


def pointer(store: LocalStore) -> dict[str, object]:
    content: dict[str, object] = json.loads(store.get("refs/models/m.json"))
    return content


def test_rolling_back_goes_further_back_each_time_and_ends_with_a_remedy(
    local_store: LocalStore,
) -> None:
    first, second, third = (make_version(local_store, number) for number in (1, 2, 3))
    for version in (first, second, third, second):
        promotion.promote(local_store, version)
    assert promotion.serving_version(local_store, "m") == second
    assert promotion.roll_back(local_store, "m") == third
    assert promotion.roll_back(local_store, "m") == second
    assert promotion.roll_back(local_store, "m") == first
    with pytest.raises(GranuloError, match="granulo models promote m/VERSION") as caught:
        promotion.roll_back(local_store, "m")
    assert caught.value.reason is Reason.NO_EARLIER_VERSION
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert promotion.serving_version(local_store, "m") == first


def test_after_a_rollback_promotion_goes_on_from_what_is_served(local_store: LocalStore) -> None:
    first, second, third = (make_version(local_store, number) for number in (1, 2, 3))
    promotion.promote(local_store, first)
    promotion.promote(local_store, second)
    promotion.roll_back(local_store, "m")
    promotion.promote(local_store, third)
    assert promotion.roll_back(local_store, "m") == first


def test_promoting_what_is_served_is_no_step_of_the_history(local_store: LocalStore) -> None:
    first, second = make_version(local_store, 1), make_version(local_store, 2)
    for version in (first, second, second, second):
        promotion.promote(local_store, version)
    assert promotion.roll_back(local_store, "m") == first


def test_a_rollback_copies_to_serving_again_what_is_gone_there(local_store: LocalStore) -> None:
    first, second = make_version(local_store, 1), make_version(local_store, 2)
    promotion.promote(local_store, first)
    promotion.promote(local_store, second)
    for key in list(local_store.list("serving/m/1/")):
        local_store.delete(key)
    promotion.roll_back(local_store, "m")
    assert served_weights(local_store, 1) == b"weights 1"
    named = [item["key"] for item in pointer(local_store)["objects"]]  # type: ignore[attr-defined]
    assert sorted(named) == sorted(local_store.list("serving/m/1/"))


def test_a_damaged_version_is_not_gone_back_to_and_nothing_changes(local_store: LocalStore) -> None:
    first, second = make_version(local_store, 1), make_version(local_store, 2)
    promotion.promote(local_store, first)
    promotion.promote(local_store, second)
    before = local_store.get("refs/models/m.json")
    local_store.put(f"{first}/saved_model/variables/variables.data", b"flipped bits")
    with pytest.raises(GranuloError) as caught:
        promotion.roll_back(local_store, "m")
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert local_store.get("refs/models/m.json") == before
    # Another manifest in its place is not the version that was served.
    text = local_store.get(f"{second}/manifest.json").replace(b"versions/2", b"versions/1")
    local_store.put(f"{first}/manifest.json", text)
    with pytest.raises(GranuloError) as caught:
        promotion.roll_back(local_store, "m")
    assert caught.value.reason is Reason.DIGEST_MISMATCH


def test_pointers_of_before_there_was_a_history_are_read_and_go_into_it(
    local_store: LocalStore,
) -> None:
    first, second = make_version(local_store, 1), make_version(local_store, 2)
    promotion.promote(local_store, first)
    old = pointer(local_store)
    del old["history"]
    local_store.put("refs/models/m.json", json.dumps(old).encode())
    assert promotion.serving_version(local_store, "m") == first
    with pytest.raises(GranuloError, match="nothing before"):
        promotion.roll_back(local_store, "m")
    promotion.promote(local_store, second)
    assert promotion.roll_back(local_store, "m") == first


def test_promoting_mends_a_damaged_pointer(local_store: LocalStore) -> None:
    version = make_version(local_store, 1)
    local_store.put("refs/models/m.json", b'{"version": ')
    with pytest.raises(GranuloError, match="damaged"):
        promotion.roll_back(local_store, "m")
    promotion.promote(local_store, version)
    assert promotion.serving_version(local_store, "m") == version


@pytest.mark.parametrize("failed", [True, False])
def test_unfinished_and_failed_versions_are_not_promoted(
    local_store: LocalStore, failed: bool
) -> None:
    version = registry.claim(local_store, "m", "sha256:0")
    if failed:
        registry.mark_failed(local_store, version, "the loss became nan")
    with pytest.raises(GranuloError, match="train again" if failed else "wait for") as caught:
        promotion.promote(local_store, version)
    assert caught.value.reason is Reason.RESOURCE_NOT_READY
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert list(local_store.list("serving/")) == []
    with pytest.raises(GranuloError) as caught:
        promotion.promote(local_store, registry.VersionName("m", 7))
    assert caught.value.reason is Reason.RESOURCE_NOT_FOUND


def test_promotions_and_rollbacks_at_the_same_time_leave_a_whole_pointer(
    local_store: LocalStore,
) -> None:
    made = [make_version(local_store, number) for number in (1, 2, 3)]
    promotion.promote(local_store, made[0])
    barrier = threading.Barrier(6)

    def work(turn: int) -> int:
        barrier.wait()
        if turn % 2:
            promotion.promote(local_store, made[turn % 3])
            return 1
        with contextlib.suppress(GranuloError):  # where nothing was promoted yet
            promotion.roll_back(local_store, "m")
        return 0

    with ThreadPoolExecutor(6) as pool:
        steps = list(pool.map(work, range(6)))
    history = pointer(local_store)["history"]
    assert isinstance(history, list)
    assert 0 <= len(history) <= sum(steps)  # each promotion adds a step at most
    numbers = [entry["version"] for entry in history] + [pointer(local_store)["version"]]
    assert all(a != b for a, b in itertools.pairwise(numbers))
    serving = promotion.serving_version(local_store, "m")
    assert serving is not None
    assert served_weights(local_store, serving.number) == b"weights %d" % serving.number
    [reference], _ = segmenter_versions.promoted(local_store)
    for key, digest in reference.objects:
        local_store.get(key, digest)


def packaged_settings(folder: Path) -> TrainerSettings:
    return TrainerSettings.load(
        packaged_model=str(folder), packaged_name="models/packaged-default/versions/12"
    )


@pytest.fixture
def packaged_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "default" / "1"
    (folder / "variables").mkdir(parents=True)
    (folder / "assets.extra").mkdir()
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.data-00000-of-00001").write_bytes(b"weights")
    metadata = {"preset": "small", "instances": {"marker_depth": 0.25}}
    (folder / METADATA_NAME).write_text(json.dumps(metadata))
    (folder.parent / "MODEL_CARD.md").write_text("# The packaged model")
    return folder


def test_the_packaged_network_is_a_version_that_can_be_shown(
    local_store: LocalStore, packaged_folder: Path
) -> None:
    settings = packaged_settings(packaged_folder)
    packaged.enter(local_store, settings)
    keys = list(local_store.list("models/"))
    packaged.enter(local_store, settings)  # at the next start
    assert list(local_store.list("models/")) == keys
    name = packaged.packaged_version(settings)
    assert name is not None
    manifests.verify(local_store, manifests.load(local_store, str(name)))
    shown = create_version.get_version(local_store, name)
    assert shown.config.preset == "small"
    assert shown.weights_digest.startswith("sha256:")
    assert local_store.get(shown.model_card.uri) == b"# The packaged model"

    assert packaged.model_names(local_store, name) == ["default", "packaged-default"]
    assert packaged.served(local_store, "default", name) == name
    assert packaged.versions(local_store, "default", name) == [name]
    assert packaged.served(local_store, "other", name) is None


def test_a_promoted_default_takes_the_place_of_the_packaged_network(
    local_store: LocalStore, packaged_folder: Path
) -> None:
    settings = packaged_settings(packaged_folder)
    packaged.enter(local_store, settings)
    name = packaged.packaged_version(settings)
    own = make_version(local_store, 1, "default")
    assert packaged.served(local_store, "default", name) == name
    assert packaged.versions(local_store, "default", name) == [own]
    promotion.promote(local_store, own)
    assert packaged.served(local_store, "default", name) == own


def test_no_packaged_network_and_a_broken_one_stop_nothing(
    local_store: LocalStore, tmp_path: Path
) -> None:
    packaged.enter(local_store, TrainerSettings.load())
    packaged.enter(local_store, packaged_settings(tmp_path / "missing"))
    assert list(local_store.list("")) == []
    assert packaged.model_names(local_store, None) == []


def test_default_means_what_is_served_under_this_name(
    local_store: LocalStore, packaged_folder: Path
) -> None:
    settings = packaged_settings(packaged_folder)
    packaged.enter(local_store, settings)
    name = packaged.packaged_version(settings)

    def meant(text: str) -> str:
        return packaged.meant(local_store, text, name)

    assert meant("models/default") == meant("models/default/versions/1") == str(name)
    assert meant("models/packaged-default") == meant(str(name)) == str(name)
    for unknown in ("models/none", "models/none/versions/1", "models/default/versions/2", ""):
        assert meant(unknown) == unknown
    assert packaged.meant(local_store, "models/default", None) == "models/default"
    own = make_version(local_store, 1, "default")
    assert meant("models/default") == str(name)
    assert meant("models/default/versions/1") == str(own)
    promotion.promote(local_store, own)
    assert meant("models/default") == str(own)
