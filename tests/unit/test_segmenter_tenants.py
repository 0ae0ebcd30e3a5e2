# SPDX-License-Identifier: GPL-3.0-or-later
"""Models of tenants stand beside one another on one model server, and none sees another's."""

import json
from pathlib import Path

import pytest

from granulo_core.errors import GranuloError, Reason
from granulo_core.store import LocalStore, ObjectStore, open_store
from granulo_core.store.tenants import tenant_url
from granulo_segmenter.domain.model import ResolvedModel
from granulo_segmenter.predictor.sync import ModelSync, sync_once
from granulo_segmenter.predictor.versions import PACKAGED, packaged_version, resolve

FACTS = {
    "format": 1, "stride": 16, "tile_px": 512, "outputs": ["foreground"], "input": {},
    "instances": {},
}  # fmt: skip


def promote(store: ObjectStore, model: str, version: int, graph: bytes) -> None:
    """What the trainer writes when it promotes a version."""
    files = {"saved_model.pb": graph, "assets.extra/granulo.json": json.dumps(FACTS).encode()}
    stored = [store.put(f"serving/{model}/{version}/{name}", d) for name, d in files.items()]
    objects = [{"key": item.key, "digest": item.digest} for item in stored]
    reference = {"model": f"models/{model}", "version": version, "objects": objects}
    store.put(f"refs/models/{model}.json", json.dumps(reference).encode())


@pytest.fixture
def tenants(local_store: LocalStore) -> tuple[ObjectStore, ObjectStore]:
    acme, rival = (open_store(tenant_url(local_store.url, name)) for name in ("acme", "rival"))
    promote(local_store, "sio2", 1, b"of the root")
    promote(acme, "sio2", 1, b"of acme")
    promote(rival, "rods", 4, b"of rival")
    return acme, rival


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    folder = tmp_path / "packaged"
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"packaged")
    (folder / "assets.extra" / "granulo.json").write_text(json.dumps(FACTS))
    return folder


@pytest.mark.usefixtures("tenants")
def test_every_tenants_models_are_served_under_names_of_their_own(
    local_store: LocalStore, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    assert set(sync_once(local_store, root).added) == {"sio2/1", "acme.sio2/1", "rival.rods/4"}
    graphs = {str(p.parent.relative_to(root)): p.read_bytes() for p in root.glob("*/*/*.pb")}
    assert graphs == {
        "sio2/1": b"of the root", "acme.sio2/1": b"of acme", "rival.rods/4": b"of rival",
    }  # fmt: skip


def test_a_tenant_who_comes_later_is_found(local_store: LocalStore, tmp_path: Path) -> None:
    sync = ModelSync(local_store, tmp_path / "root")
    assert sync.round().added == ()
    promote(open_store(tenant_url(local_store.url, "late")), "sio2", 2, b"x")
    assert sync.round().added == ("late.sio2/2",)


def test_the_same_name_means_each_tenants_own(
    local_store: LocalStore, tenants: tuple[ObjectStore, ObjectStore]
) -> None:
    acme, rival = tenants
    found = [resolve(store, "models/sio2") for store in (local_store, acme)]
    assert [each.served.server_name for each in found] == ["sio2", "acme.sio2"]
    assert {each.resource for each in found} == {"models/sio2/versions/1"}
    with pytest.raises(GranuloError) as caught:
        resolve(rival, "models/sio2")
    assert caught.value.reason is Reason.RESOURCE_NOT_FOUND
    # A dot would name another tenant's on the server.
    with pytest.raises(GranuloError) as caught:
        resolve(local_store, "models/acme.sio2")
    assert caught.value.reason is Reason.FIELD_INVALID


def test_a_job_keeps_its_tenant_on_the_way_to_a_worker(
    tenants: tuple[ObjectStore, ObjectStore],
) -> None:
    found = resolve(tenants[0], "models/sio2")
    assert ResolvedModel.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_packaged_network_stays_while_any_tenant_needs_it(
    local_store: LocalStore, tmp_path: Path, packaged: Path
) -> None:
    acme = open_store(tenant_url(local_store.url, "acme"))
    acme.put("uploads/x", b"x")
    promote(local_store, "default", 1, b"of the root")
    added = sync_once(local_store, tmp_path / "root", packaged).added
    assert set(added) == {"default/1", f"{PACKAGED}/{packaged_version(packaged)}"}
    assert resolve(acme, "", packaged).served.name == PACKAGED
