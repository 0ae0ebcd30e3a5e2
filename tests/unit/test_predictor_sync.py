# SPDX-License-Identifier: GPL-3.0-or-later
"""Model sync and model names: complete, verified versions only, and clear refusals."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from granulo_core.errors import Code, GranuloError, Reason
from granulo_core.store import LocalStore
from granulo_segmenter.predictor import sidecar
from granulo_segmenter.predictor.sync import CONFIG_FILE, Keeping, ModelSync, SyncReport, sync_once
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


def test_what_was_promoted_recently_stays_however_much_came_after_it(
    local_store: LocalStore, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    sync = ModelSync(local_store, root, keeping=Keeping(older=0, for_s=600))
    for version in (1, 2, 3):
        promote(local_store, "default", version)
        sync.round()
    assert served(root) == {"default/1", "default/2", "default/3"}
    # What counts is when a version was the promoted one, not when it was copied.
    for version, age_s in ((1, 700), (2, 500), (3, 900)):
        past_s = time.time() - age_s
        os.utime(root / "default" / str(version), (past_s, past_s))
    assert sync.round().removed == ("default/1",)
    assert served(root) == {"default/2", "default/3"}


@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "half-copied"])
def test_a_version_that_is_not_whole_is_copied_again(
    local_store: LocalStore, tmp_path: Path, damage: str
) -> None:
    promote(local_store, "default", 1)
    root = tmp_path / "root"
    if damage == "half-copied":
        # By another tool, without a rename at the end.
        (root / "default" / "1" / "variables").mkdir(parents=True)
        (root / "default" / "1" / "saved_model.pb").write_bytes(b"gra")
    sync = ModelSync(local_store, root)
    sync.round()
    weights = root / "default/1/variables/variables.data-00000-of-00001"
    if damage == "missing":
        weights.unlink()
    elif damage != "half-copied":
        weights.write_bytes(b"weighty" if damage == "changed" else b"wei")
    report = sync.round()
    assert bool(report.added) == (damage != "half-copied")
    assert weights.read_bytes() == b"weights"
    assert (root / "default/1/saved_model.pb").read_bytes() == b"graph"
    assert not list(root.glob(".*ing-*"))
    assert sync.round() == SyncReport()


def test_what_a_killed_sync_left_is_removed_at_once(
    local_store: LocalStore, tmp_path: Path
) -> None:
    promote(local_store, "default", 1)
    root = tmp_path / "root"
    for name in (".incoming-dead", ".outgoing-dead"):
        (root / name / "variables").mkdir(parents=True)
    sync_once(local_store, root)
    assert sorted(item.name for item in root.iterdir()) == [".sync.lock", "default"]


def test_two_syncs_on_one_folder_take_turns(local_store: LocalStore, tmp_path: Path) -> None:
    promote(local_store, "default", 1, bytes(3_000_000))
    root = tmp_path / "root"
    reports: list[SyncReport] = []
    threads = [
        threading.Thread(target=lambda: reports.append(sync_once(local_store, root)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.added for report in reports) == [()] * 5 + [("default/1",)]
    assert not any(report.failed for report in reports)


def test_a_damaged_reference_does_not_stop_the_other_models(
    local_store: LocalStore, tmp_path: Path
) -> None:
    promote(local_store, "good", 1)
    local_store.put("refs/models/bad.json", b"no JSON", "application/json")
    report = sync_once(local_store, tmp_path / "root")
    assert report.added == ("good/1",)
    assert "refs/models/bad.json is damaged" in report.failed[0]


class Failing(LocalStore):
    """A store that does not answer for a while."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.is_down = False
        self.asked = 0

    def list(self, prefix: str) -> "object":
        self.asked += 1
        if self.is_down:
            raise GranuloError(Reason.STORE_UNAVAILABLE, "the store does not answer")
        return super().list(prefix)


def test_a_store_that_is_down_is_asked_less_and_less_and_what_is_served_stays(
    tmp_path: Path,
) -> None:
    store, root = Failing(tmp_path / "store"), tmp_path / "root"
    promote(store, "default", 1)
    sync = ModelSync(store, root, interval_s=0.01)
    stop, reports = threading.Event(), []
    thread = threading.Thread(target=sync.run, args=(stop, reports.append))
    thread.start()

    def rounds(count: int) -> None:
        end_s = time.monotonic() + 30
        wanted = len(reports) + count
        while len(reports) < wanted:
            assert time.monotonic() < end_s
            time.sleep(0.005)

    try:
        rounds(2)
        store.is_down = True
        started_s = time.monotonic()
        rounds(6)
        # 0.02 + 0.04 + … + 0.32 s at least 0.7 times.
        assert time.monotonic() - started_s > 0.3
        assert "does not answer" in reports[-1].failed[0]
        assert served(root) == {"default/1"}
        promote(store, "default", 2)
        store.is_down = False
        end_s = time.monotonic() + 30
        while "default/2" not in served(root):
            assert time.monotonic() < end_s
            time.sleep(0.01)
    finally:
        stop.set()
        thread.join()


def test_tensorflow_serving_s_configuration_lists_what_is_there(
    local_store: LocalStore, tmp_path: Path
) -> None:
    promote(local_store, "default", 3)
    promote(local_store, "rods", 1)
    promote(local_store, "bad", 1)
    local_store.put("serving/bad/1/saved_model.pb", b"other bytes", "x/y")
    root = tmp_path / "root"
    sync = ModelSync(local_store, root, serving_root="/models/")
    sync.round()
    text = (root / CONFIG_FILE).read_text()
    assert 'base_path: "/models/default"' in text
    # A model without a version would make the server wait for it at every reload.
    assert [line.split('"')[1] for line in text.splitlines() if " name:" in line] == [
        "default", "rods"
    ]  # fmt: skip
    assert text.count("all {}") == 2
    before = (root / CONFIG_FILE).stat().st_ino
    sync.round()
    assert (root / CONFIG_FILE).stat().st_ino == before, "an unchanged file must not be replaced"


def test_the_probe_says_ready_once_everything_was_in_place() -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    probe = sidecar.HealthProbe("127.0.0.1:0")
    with grpc.insecure_channel(probe.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def state(service: str) -> str:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

        assert (state(""), state(sidecar.SERVICE)) == ("SERVING", "NOT_SERVING")
        probe.tell(SyncReport(failed=("the store does not answer",)))
        assert state(sidecar.SERVICE) == "NOT_SERVING"
        probe.tell(SyncReport())
        probe.tell(SyncReport(failed=("the store does not answer",)))
        assert state(sidecar.SERVICE) == "SERVING"
    probe.close()


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({}, "GRANULO_SYNC_ROOT"),
        ({"GRANULO_SYNC_ROOT": "r", "GRANULO_SYNC_HEALTH": "nowhere:x"}, "GRANULO_SYNC_HEALTH"),
        ({"GRANULO_SYNC_ROOT": "r", "GRANULO_SYNC_INTERVAL_S": "-1"}, "GRANULO_SYNC_INTERVAL_S"),
    ],
)
def test_a_sidecar_with_wrong_settings_says_which_and_ends(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    word: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sidecar.signal, "signal", lambda *_: None)
    monkeypatch.setenv("GRANULO_STORE_URL", str(tmp_path / "store"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert sidecar.main([]) == 2
    assert word in capsys.readouterr().err


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
    # A job that began with the packaged network goes on with it, on a new server too.
    sync_once(local_store, tmp_path / "new", packaged)
    assert served(tmp_path / "new") == {f"{PACKAGED}/{version}", "default/1"}
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
