# SPDX-License-Identifier: GPL-3.0-or-later
"""What a collection removes from both kinds of stores, and what it never touches."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from granulo_core.errors import GranuloError, Reason
from granulo_core.gc import sweep
from granulo_core.gc.__main__ import main
from granulo_core.gc.sweep import DAY_S, Kind, Rules, collect
from granulo_core.operations import record as records
from granulo_core.operations.record import OperationRecord, State
from granulo_core.store import LocalStore, ObjectStore, open_store, verify
from granulo_core.store import manifest as manifests
from granulo_core.store.manifest import Manifest, ManifestInput
from granulo_core.store.tenants import tenant_url

NOW = Rules(older_than_s=0)


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    found: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return found


def upload(store: ObjectStore, data: bytes) -> str:
    key = f"uploads/{hashlib.sha256(data).hexdigest()}"
    store.put(key, data)
    return key


def make(store: ObjectStore, name: str, *inputs: str, request: str = "") -> None:
    """A thing with an object that its manifest lists, and one that it does not."""
    listed = store.put(f"{name}/images/0.tif", b"image")
    store.put(f"{name}/checkpoints/1/weights.npz", b"weights")
    made_from = tuple(ManifestInput(key, store.stat(key).digest) for key in inputs)
    producer = manifests.producer("test", 0)
    manifests.commit(
        store, name, Manifest(name, "Test", (listed,), made_from, producer, {"file": request})
    )


def operate(store: ObjectStore, identifier: str, state: State, **fields: object) -> None:
    record = OperationRecord(
        f"operations/render/{identifier}", "Make", "datasets/none", b"", "", state=state,
        create_time=records.now(), update_time=records.now(),
    )  # fmt: skip
    records.save(store, replace(record, **fields))  # type: ignore[arg-type]
    for folder in ("shards", "progress"):
        store.put(f"{record.name}/{folder}/scenes-000000.json", b"{}")


def age(store: LocalStore, key: str) -> None:
    """Make an object as old as can be."""
    os.utime(Path(store.url.removeprefix("file://")) / key, (0, 0))


def keys(store: ObjectStore) -> set[str]:
    return set(store.list(""))


def test_what_nothing_refers_to_goes_and_all_else_stays(store: ObjectStore) -> None:
    named = [upload(store, name) for name in (b"input", b"mesh", b"asked", b"answer")]
    make(store, "datasets/ds-1", named[0], request=named[1])
    make(store, "models/m/versions/2")
    store.put("refs/models/m.json", b'{"prefix": "serving/m/1"}')
    for version in (1, 2, 3):
        store.put(f"serving/m/{version}/saved_model.pb", b"graph")
    operate(store, "a", State.RUNNING, target="datasets/ds-2", request=named[2].encode())
    operate(store, "b", State.SUCCEEDED, response=named[3].encode())
    operate(store, "c", State.FAILED, target="datasets/ds-3")
    store.put("datasets/ds-2/images/0.tif", b"being made")
    store.put("notes/readme.txt", b"somebody's own")
    needed = keys(store)

    store.put("datasets/ds-3/images/0.tif", b"of the failed one")
    store.put("pending/xyz", b"never taken in")
    upload(store, b"nobody's")
    store.put("operations/render/d/shards/scenes-000000.json", b"no record")
    garbage = keys(store) - needed
    garbage |= {"serving/m/3/saved_model.pb", "operations/render/b/progress/scenes-000000.json"}

    before = keys(store)
    dry = collect(store, NOW, delete=False)
    assert keys(store) == before
    done = collect(store, NOW, delete=True)
    assert before - keys(store) == garbage
    assert dry.garbage == done.garbage
    assert {kind: tally.objects for kind, tally in done.garbage.items()} == {
        Kind.UNFINISHED: 2, Kind.PENDING: 1, Kind.UPLOAD: 1, Kind.SERVING: 1, Kind.PROGRESS: 1,
    }  # fmt: skip
    assert done.kept.objects == len(keys(store)) - 1
    assert {name: tally.objects for name, tally in done.unknown.items()} == {"notes": 1}
    assert not collect(store, NOW, delete=True).garbage
    manifests.verify(store, manifests.load(store, "datasets/ds-1"))


def test_what_is_young_stays(store: ObjectStore) -> None:
    store.put("pending/xyz", b"just sent")
    assert not collect(store, Rules(), delete=True).garbage
    assert keys(store) == {"pending/xyz"}


def test_finished_operations_go_after_their_retention_only(store: ObjectStore) -> None:
    operate(store, "old", State.FAILED, update_time="2020-01-01T00:00:00.000000Z")
    operate(store, "new", State.FAILED)
    operate(store, "live", State.QUEUED, update_time="2020-01-01T00:00:00.000000Z")
    collect(store, NOW, delete=True)
    assert any(key.startswith("operations/render/old/") for key in keys(store))
    collect(store, replace(NOW, keep_operations_s=90 * DAY_S), delete=True)
    assert {key.split("/")[2] for key in keys(store)} == {"new", "live"}


def test_every_tenant_has_its_own_roots(store: ObjectStore) -> None:
    tenant = open_store(tenant_url(store.url, "anna"))
    named = upload(store, b"the same bytes")
    assert upload(tenant, b"the same bytes") == named
    make(store, "datasets/ds-1", named)
    kept = keys(store) - {f"tenants/anna/{named}"}
    collect(store, NOW, delete=True)
    assert keys(store) == kept


@pytest.mark.parametrize(
    "key",
    ["datasets/ds-1/manifest.json", "refs/models/m.json", "operations/render/x/operation.json"],
)
def test_what_is_damaged_stops_it_before_anything_goes(store: ObjectStore, key: str) -> None:
    store.put("pending/xyz", b"garbage")
    store.put(f"tenants/anna/{key}", b"{torn")
    with pytest.raises(GranuloError) as caught:
        collect(store, NOW, delete=True)
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert key.removesuffix("/manifest.json") in caught.value.message
    assert "pending/xyz" in keys(store)


def before_each_look(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Let something happen right before the collection looks again; told how often it looked."""
    look, looks = sweep.look, count()

    def looked(*given: Any) -> None:
        act(next(looks))
        look(*given)

    monkeypatch.setattr(sweep, "look", looked)


def test_what_is_named_or_taken_up_meanwhile_stays(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = upload(store, b"about to be named")
    store.put("datasets/ds-2/images/0.tif", b"of an attempt that is repeated")
    store.put("datasets/ds-3/images/0.tif", b"of an attempt that ended")
    store.put("models/m/versions/3/claim.json", b"{}")
    upload(store, b"nobody's")
    before = keys(store)

    def act(looks: int) -> None:
        if looks == 1:
            make(store, "datasets/ds-1", named)
            operate(store, "again", State.RUNNING, target="datasets/ds-2")
            make(store, "datasets/ds-3")
            operate(store, "train", State.QUEUED, target="models/m")

    before_each_look(monkeypatch, act)
    assert list(collect(store, NOW, delete=True).garbage) == [Kind.UPLOAD]
    assert len(before - keys(store)) == 1
    assert store.exists(named)
    manifests.verify(store, manifests.load(store, "datasets/ds-3"))


def test_an_operation_that_ends_while_it_is_looked_at_keeps_its_parts(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    operate(store, "a", State.RUNNING, target="datasets/ds-1")
    store.put("datasets/ds-1/images/1.tif", b"not listed by its manifest")
    resources = manifests.all_resources

    def ended(found: ObjectStore) -> Iterator[str]:
        names = list(resources(found))  # as it was when the listing passed by
        if not names:
            make(store, "datasets/ds-1")
            operate(store, "a", State.SUCCEEDED, target="datasets/ds-1")
        return iter(names)

    monkeypatch.setattr(manifests, "all_resources", ended)
    assert Kind.UNFINISHED not in collect(store, NOW, delete=True).garbage
    assert store.exists("datasets/ds-1/images/1.tif")


def test_a_dry_run_tells_what_goes_with_the_operations(store: ObjectStore) -> None:
    named = upload(store, b"only an old operation names it")
    operate(store, "old", State.SUCCEEDED, request=named.encode(),
            update_time="2020-01-01T00:00:00.000000Z")  # fmt: skip
    rules = replace(NOW, keep_operations_s=90 * DAY_S)
    dry = collect(store, rules, delete=False)
    assert {kind: tally.objects for kind, tally in dry.garbage.items()} == {
        Kind.OPERATION: 4, Kind.UPLOAD: 1,
    }  # fmt: skip
    assert collect(store, rules, delete=True).garbage == dry.garbage
    assert keys(store) == set()


def test_a_manifest_of_somebody_elses_is_left_alone(store: ObjectStore) -> None:
    store.put("website/app/manifest.json", b"no manifest of ours")
    make(store, "datasets/ds-1")
    assert not collect(store, NOW, delete=True).garbage
    assert manifests.referrers(store, "datasets/ds-1") == []


def test_a_collection_that_is_cut_off_says_what_went(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("granulo_core.gc.__main__.configure_logging", lambda _: None)
    monkeypatch.setenv("GRANULO_STORE_URL", local_store.url)
    monkeypatch.setattr(sweep, "_BATCH", 2)
    for number in range(5):
        local_store.put(f"pending/{number}", b"never taken in")
        age(local_store, f"pending/{number}")

    def act(looks: int) -> None:
        if looks == 2:
            raise GranuloError(Reason.STORE_UNAVAILABLE, "The store is away.")

    before_each_look(monkeypatch, act)
    assert main(["--delete"]) == 1
    said = capsys.readouterr().out
    assert "The store is away." in said
    assert len(list(local_store.list("pending/"))) == 3


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 7))), max_size=6),
    st.sets(st.integers(0, 7)),
)
def test_exactly_what_is_reachable_stays(
    tmp_path_factory: pytest.TempPathFactory,
    things: list[tuple[bool, set[int]]],
    asked: set[int],
) -> None:
    store = LocalStore(tmp_path_factory.mktemp("gc"))
    sent = [upload(store, str(number).encode()) for number in range(8)]
    reachable: set[int] = set(asked)
    for number, (is_finished, inputs) in enumerate(things):
        name = f"datasets/ds-{number}"
        if is_finished:
            make(store, name, *(sent[each] for each in inputs))
            reachable |= inputs
        else:
            store.put(f"{name}/images/0.tif", b"half")
    request = b" ".join(sent[each].encode() for each in sorted(asked))
    operate(store, "live", State.QUEUED, request=request)
    collect(store, NOW, delete=True)
    assert {key for key in sent if store.exists(key)} == {sent[each] for each in reachable}
    finished = {f"ds-{number}" for number, (is_finished, _) in enumerate(things) if is_finished}
    assert set(store.children("datasets/")) == finished


def test_the_program_lists_first_and_removes_when_asked(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The log of this process is pytest's; a program has one of its own.
    monkeypatch.setattr("granulo_core.gc.__main__.configure_logging", lambda _: None)
    monkeypatch.setenv("GRANULO_STORE_URL", local_store.url)
    local_store.put("pending/xyz", b"garbage")
    age(local_store, "pending/xyz")
    assert main([]) == 0
    assert "--delete removes" in capsys.readouterr().out
    assert local_store.exists("pending/xyz")
    assert main(["--delete", "--json"]) == 0
    assert '"objects": 1' in capsys.readouterr().out
    assert not local_store.exists("pending/xyz")
    local_store.put("datasets/ds-1/manifest.json", b"{torn")
    assert main(["--delete"]) == 2
    with pytest.raises(SystemExit):
        main(["--delete", "--older-than", "0h"])
    assert "datasets/ds-1" in capsys.readouterr().err


def test_verification_names_what_is_damaged_in_every_tenants_store(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRANULO_STORE_URL", store.url)
    tenant = open_store(tenant_url(store.url, "anna"))
    make(store, "datasets/ds-1")
    make(tenant, "models/m/versions/1")
    assert verify.main() == 0
    damaged = upload(store, b"sent")
    served = store.put("serving/m/1/saved_model.pb", b"graph")
    reference = {"objects": [{"key": served.key, "digest": served.digest}]}
    store.put("refs/models/m.json", json.dumps(reference).encode())
    store.put("refs/models/empty.json", b"{}")
    assert verify.main() == 0
    tenant.put("models/m/versions/1/images/0.tif", b"other bytes")
    store.delete("datasets/ds-1/images/0.tif")
    store.put(damaged, b"not what was sent")
    store.put(served.key, b"another graph")
    assert verify.main() == 1
    said = capsys.readouterr().out
    assert "datasets/ds-1: " in said
    assert "tenants/anna" in said
    assert f"{damaged}: " in said
    assert "refs/models/m.json: " in said
    assert "1 of 5 things are whole" in said
    # What a tenant made from a thing of the same name says nothing of this one.
    assert manifests.referrers(store, "datasets/ds-1") == []
