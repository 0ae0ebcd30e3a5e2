# SPDX-License-Identifier: GPL-3.0-or-later
"""Model sync and model names: complete, verified versions only, and clear refusals."""

import json
import shutil
from pathlib import Path

import pytest

from granulo_core.errors import Code, GranuloError, Reason
from granulo_core.store import LocalStore
from granulo_segmenter.predictor.sync import Keeping, sync_once
from granulo_segmenter.predictor.versions import PACKAGED, packaged_version, resolve

FACTS = {
    "format": 1, "preset": "small", "stride": 16, "tile_px": 512,
    "outputs": ["foreground", "distance"], "input": {}, "instances": {},
}  # fmt: skip


def promote(store: LocalStore, model: str, version: int, weights: bytes = b"weights") -> None:
    """What the trainer writes when it promotes a version."""
    files = {
        "saved_model.pb": b"graph",
        "variables/variables.data-00000-of-00001": weights,
        "assets.extra/granulo.json": json.dumps(FACTS).encode(),
    }
    prefix = f"serving/{model}/{version}"
    stored = [store.put(f"{prefix}/{name}", data, "x/y") for name, data in files.items()]
    reference = {
        "model": f"models/{model}",
        "version": version,
        "objects": [{"key": s.key, "digest": s.digest, "size_bytes": s.size_bytes} for s in stored],
    }
    store.put(f"refs/models/{model}.json", json.dumps(reference).encode(), "application/json")


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    folder = tmp_path / "packaged"
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "assets.extra" / "granulo.json").write_text(json.dumps(FACTS))
    return folder


def served(root: Path) -> set[str]:
    return {str(p.parent.relative_to(root)) for p in root.glob("*/*/saved_model.pb")}


def test_promoted_versions_appear_whole(local_store: LocalStore, tmp_path: Path) -> None:
    promote(local_store, "default", 3)
    promote(local_store, "rods", 1)
    root = tmp_path / "root"
    assert set(sync_once(local_store, root).added) == {"default/3", "rods/1"}
    assert served(root) == {"default/3", "rods/1"}
    weights = root / "default/3/variables/variables.data-00000-of-00001"
    assert weights.read_bytes() == b"weights"
    again = sync_once(local_store, root)
    assert (again.added, again.removed, again.failed) == ((), (), ())


def test_a_damaged_object_is_never_served_and_does_not_stop_the_others(
    local_store: LocalStore, tmp_path: Path
) -> None:
    promote(local_store, "bad", 1)
    promote(local_store, "good", 1)
    local_store.put("serving/bad/1/saved_model.pb", b"other bytes", "x/y")
    root = tmp_path / "root"
    report = sync_once(local_store, root)
    assert served(root) == {"good/1"}
    assert len(report.failed) == 1
    assert "bad/1" in report.failed[0]
    assert not list(root.glob(".incoming-*"))


def test_a_few_older_versions_stay_for_running_jobs(
    local_store: LocalStore, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    for version in range(1, 6):
        promote(local_store, "default", version)
        sync_once(local_store, root, keeping=Keeping(older=2, for_s=0))
    assert served(root) == {"default/3", "default/4", "default/5"}


def test_promoting_an_older_version_serves_it_again(
    local_store: LocalStore, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    for version in (1, 2, 3, 4, 1):
        promote(local_store, "default", version)
        sync_once(local_store, root)
    assert "default/1" in served(root)
    assert resolve(local_store, "models/default").resource == "models/default/versions/1"


def test_the_packaged_network_stands_in_until_a_default_is_promoted(
    local_store: LocalStore, tmp_path: Path, packaged: Path
) -> None:
    root = tmp_path / "root"
    sync_once(local_store, root, packaged)
    version = packaged_version(packaged)
    assert served(root) == {f"{PACKAGED}/{version}"}
    for name in ("", "models/default"):
        found = resolve(local_store, name, packaged)
        assert found.resource == f"models/{PACKAGED}/versions/{version}"
        assert found.facts.tile_px == 512
    promote(local_store, "default", 1)
    assert resolve(local_store, "", packaged).resource == "models/default/versions/1"
    # A job that began with the packaged network goes on with it.
    assert (
        resolve(local_store, f"models/{PACKAGED}/versions/{version}", packaged).facts.tile_px == 512
    )


def test_another_packaged_network_is_served_beside_the_old_one(
    local_store: LocalStore, tmp_path: Path, packaged: Path
) -> None:
    root, upgraded = tmp_path / "root", tmp_path / "upgraded"
    sync_once(local_store, root, packaged)
    shutil.copytree(packaged, upgraded)
    (upgraded / "saved_model.pb").write_bytes(b"another network")
    before, after = packaged_version(packaged), packaged_version(upgraded)

    sync_once(local_store, root, upgraded)

    assert served(root) == {f"{PACKAGED}/{before}", f"{PACKAGED}/{after}"}
    assert resolve(local_store, "", upgraded).served.version == after
    data = (root / PACKAGED / str(after) / "saved_model.pb").read_bytes()
    assert data == b"another network"


def test_a_reference_that_leaves_its_folder_is_refused(
    local_store: LocalStore, tmp_path: Path
) -> None:
    promote(local_store, "evil", 1)
    stored = local_store.put("serving/other/1/x", b"x", "x/y")
    reference = {
        "version": 1, "objects": [{"key": stored.key, "digest": stored.digest}]
    }  # fmt: skip
    local_store.put("refs/models/evil.json", json.dumps(reference).encode(), "application/json")
    assert "not below" in sync_once(local_store, tmp_path / "root").failed[0]


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("models/nobody", Reason.RESOURCE_NOT_FOUND, "models/nobody does not exist"),
        ("nobody", Reason.FIELD_INVALID, "models/<model>"),
        ("models/../x", Reason.FIELD_INVALID, "models/<model>"),
        ("models/trained", Reason.RESOURCE_NOT_READY, "granulo models promote"),
        ("models/default/versions/7", Reason.RESOURCE_NOT_FOUND, "serves version 2"),
        ("models/default/versions/3", Reason.RESOURCE_NOT_READY, "not promoted"),
    ],
)
def test_models_that_cannot_be_used_are_refused(
    local_store: LocalStore, name: str, reason: Reason, words: str
) -> None:
    promote(local_store, "default", 1)
    promote(local_store, "default", 2)
    local_store.put("models/trained/versions/1/claim.json", b"{}", "application/json")
    local_store.put("models/default/versions/3/manifest.json", b"{}", "application/json")
    with pytest.raises(GranuloError, match=words) as caught:
        resolve(local_store, name)
    assert caught.value.reason is reason


def test_an_older_version_that_was_promoted_once_can_be_named(local_store: LocalStore) -> None:
    promote(local_store, "default", 1, b"old")
    old = resolve(local_store, "models/default")
    promote(local_store, "default", 2, b"new")
    assert resolve(local_store, "models/default/versions/1") == old
    assert resolve(local_store, "models/default").digest != old.digest


def test_without_any_default_the_remedy_is_told(local_store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(GranuloError, match="Train and promote") as caught:
        resolve(local_store, "", tmp_path / "nothing")
    assert caught.value.code is Code.NOT_FOUND


def test_a_model_of_a_newer_format_is_refused(local_store: LocalStore, packaged: Path) -> None:
    newer = packaged.parent / "newer"
    packaged.rename(newer)
    (newer / "assets.extra" / "granulo.json").write_text(json.dumps({**FACTS, "format": 2}))
    with pytest.raises(GranuloError, match="format must be 1") as caught:
        resolve(local_store, "", newer)
    assert caught.value.reason is Reason.MODEL_SIGNATURE_MISMATCH
