# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests: canonical, written once, verified by readers; ids that follow from the content."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granulo_core.errors import GranuloError, Reason
from granulo_core.store import LocalStore, StoredObject, digest_of, manifest
from granulo_core.store.manifest import Manifest, ManifestInput, Producer

PRODUCER = Producer("render", "0.1.0", {"numpy": "1.26.4"}, "abc", 7)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=4)


def make(store: LocalStore, resource: str, *inputs: str, **changes: Any) -> Manifest:
    stored = store.put(f"{resource}/images/000000.tif", resource.encode())
    sources = tuple(
        ManifestInput(name, manifest.manifest_artifact(store, name).digest) for name in inputs
    )
    made = Manifest(resource, "Thing", (stored,), sources, PRODUCER, {"seed": "7"})
    return replace(made, **changes)


def commit(store: LocalStore, resource: str, *inputs: str) -> StoredObject:
    return manifest.commit(store, resource, make(store, resource, *inputs))


def test_a_manifest_comes_back_as_it_was_committed(local_store: LocalStore) -> None:
    made = make(local_store, "datasets/ds-1", facts={"images": 1, "mean": 0.25, "name": "µ"})
    stored = manifest.commit(local_store, made.resource, made)
    assert stored.key == "datasets/ds-1/manifest.json"
    assert stored.media_type == "application/json"
    assert manifest.load(local_store, "datasets/ds-1") == made
    assert manifest.load(local_store, "datasets/ds-1", stored.digest) == made
    assert manifest.manifest_artifact(local_store, "datasets/ds-1") == stored


@given(request=json_objects, facts=json_objects)
def test_every_manifest_survives_its_json_form(
    request: dict[str, Any], facts: dict[str, Any]
) -> None:
    stored = StoredObject("a/b", digest_of(b""), 0, "text/plain")
    source = ManifestInput("datasets/x", digest_of(b"x"))
    made = Manifest("a", "Thing", (stored,), (source,), PRODUCER, request, facts)
    data = manifest.to_json(made)
    assert manifest.from_json(data, "a") == made
    assert manifest.to_json(manifest.from_json(data, "a")) == data


@given(facts=json_objects)
def test_equal_manifests_have_equal_bytes_whatever_the_order_of_their_names(
    facts: dict[str, Any],
) -> None:
    first = Manifest("a", "Thing", (), (), PRODUCER, {}, facts, "2026-01-01T00:00:00.000Z")
    second = replace(first, facts=dict(reversed(facts.items())))
    assert manifest.to_json(first) == manifest.to_json(second)


def test_numbers_that_json_has_not_are_refused_before_anything_is_written(
    local_store: LocalStore,
) -> None:
    made = make(local_store, "datasets/ds-1", facts={"mean": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        manifest.commit(local_store, made.resource, made)
    assert not local_store.exists("datasets/ds-1/manifest.json")


def test_nothing_is_committed_whose_objects_are_gone(local_store: LocalStore) -> None:
    there, gone = (local_store.put(f"datasets/ds-1/images/{n}.tif", b"image") for n in range(2))
    local_store.delete(gone.key)
    producer = manifest.producer("test", 0)
    half = manifest.Manifest("datasets/ds-1", "Dataset", (there, gone), (), producer, {})
    with pytest.raises(GranuloError) as caught:
        manifest.commit(local_store, "datasets/ds-1", half)
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    assert gone.key in caught.value.message
    assert not local_store.exists("datasets/ds-1/manifest.json")
    local_store.put(gone.key, b"image")
    manifest.commit(local_store, "datasets/ds-1", half)


def test_a_committed_manifest_never_changes(local_store: LocalStore) -> None:
    first = commit(local_store, "datasets/ds-1")
    later = make(local_store, "datasets/ds-1", facts={"other": 1})
    assert manifest.commit(local_store, "datasets/ds-1", later) == first
    assert manifest.load(local_store, "datasets/ds-1").facts == {}


def test_a_thing_without_manifest_does_not_exist(local_store: LocalStore) -> None:
    make(local_store, "datasets/half")
    commit(local_store, "datasets/whole")
    assert list(manifest.list_resources(local_store, "datasets")) == ["datasets/whole"]
    for call in (manifest.load, manifest.manifest_artifact, manifest.delete_resource):
        with pytest.raises(GranuloError, match="datasets/half does not exist") as caught:
            call(local_store, "datasets/half")
        assert caught.value.reason is Reason.RESOURCE_NOT_FOUND


def test_collections_below_a_resource_are_listed_by_their_path(local_store: LocalStore) -> None:
    for version in ("1", "2"):
        commit(local_store, f"models/m/versions/{version}")
    assert list(manifest.list_resources(local_store, "models/m/versions")) == [
        "models/m/versions/1",
        "models/m/versions/2",
    ]
    assert list(manifest.list_resources(local_store, "models")) == []


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"[]", b'{"format":1}', b'{"format":1,"objects":[{"x":1}]}', b"\xff"]
)
def test_a_damaged_manifest_is_data_loss_and_named(local_store: LocalStore, damage: bytes) -> None:
    commit(local_store, "datasets/ds-1")
    local_store.put("datasets/ds-1/manifest.json", damage)
    with pytest.raises(GranuloError, match="datasets/ds-1") as caught:
        manifest.load(local_store, "datasets/ds-1")
    assert caught.value.code.name == "DATA_LOSS"


def test_a_manifest_of_a_newer_format_asks_for_an_update(local_store: LocalStore) -> None:
    stored = commit(local_store, "datasets/ds-1")
    content = json.loads(local_store.get(stored.key))
    content["format"] = 2
    local_store.put(stored.key, json.dumps(content).encode())
    with pytest.raises(GranuloError, match="Update Granulo"):
        manifest.load(local_store, "datasets/ds-1")


def test_lineage_is_checked_against_the_digest_of_the_input(local_store: LocalStore) -> None:
    commit(local_store, "datasets/ds-1")
    commit(local_store, "models/m/versions/1", "datasets/ds-1")
    (source,) = manifest.load(local_store, "models/m/versions/1").inputs
    assert manifest.load(local_store, source.name, source.digest).resource == "datasets/ds-1"
    local_store.put("datasets/ds-1/manifest.json", b"{}")
    with pytest.raises(GranuloError) as caught:
        manifest.load(local_store, source.name, source.digest)
    assert caught.value.reason is Reason.DIGEST_MISMATCH


def test_verifying_finds_changed_and_missing_objects(local_store: LocalStore) -> None:
    made = make(local_store, "datasets/ds-1")
    manifest.verify(local_store, made)
    local_store.put("datasets/ds-1/images/000000.tif", b"other")
    with pytest.raises(GranuloError) as caught:
        manifest.verify(local_store, made)
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    local_store.delete("datasets/ds-1/images/000000.tif")
    with pytest.raises(GranuloError) as caught:
        manifest.verify(local_store, made)
    assert caught.value.reason is Reason.RESOURCE_NOT_FOUND


def test_objects_are_found_by_their_short_and_their_whole_key(local_store: LocalStore) -> None:
    made = make(local_store, "datasets/ds-1")
    assert made.object("images/000000.tif") is made.objects[0]
    assert made.object("datasets/ds-1/images/000000.tif") is made.objects[0]
    with pytest.raises(GranuloError, match="lists no such object"):
        made.object("images/000001.tif")


def test_what_others_were_made_from_cannot_be_deleted(local_store: LocalStore) -> None:
    commit(local_store, "datasets/ds-1")
    commit(local_store, "datasets/ds-2")
    commit(local_store, "models/m/versions/1", "datasets/ds-1")
    commit(local_store, "segmentations/s-1", "models/m/versions/1")
    # Records of operations and unfinished things refer to nothing.
    local_store.put("operations/render/op-1/operation.json", b"{}")
    make(local_store, "analyses/half", "segmentations/s-1")
    assert manifest.referrers(local_store, "datasets/ds-1") == ["models/m/versions/1"]
    assert manifest.referrers(local_store, "datasets/ds-2") == []
    with pytest.raises(GranuloError, match="models/m/versions/1") as caught:
        manifest.delete_resource(local_store, "datasets/ds-1")
    assert caught.value.reason is Reason.RESOURCE_REFERENCED
    assert manifest.load(local_store, "datasets/ds-1")
    for name in ("segmentations/s-1", "models/m/versions/1", "datasets/ds-1"):
        manifest.delete_resource(local_store, name)
    assert list(local_store.list("datasets/ds-1")) == []
    assert list(manifest.list_resources(local_store, "datasets")) == ["datasets/ds-2"]


parts = st.lists(st.binary(max_size=6) | st.text(max_size=6), max_size=4)


@given(parts=parts)
def test_an_id_follows_from_its_parts_and_is_a_key(parts: list[bytes | str]) -> None:
    first = manifest.content_id("ds", *parts)
    assert first == manifest.content_id("ds", *parts)
    assert re.fullmatch(r"ds-[0-9a-f]{12}", first)


@given(left=parts, right=parts)
def test_different_parts_give_different_ids(
    left: list[bytes | str], right: list[bytes | str]
) -> None:
    def as_bytes(items: list[bytes | str]) -> list[bytes]:
        return [item.encode() if isinstance(item, str) else item for item in items]

    same = as_bytes(left) == as_bytes(right)
    assert (manifest.content_id("ds", *left) == manifest.content_id("ds", *right)) is same


def test_ids_stay_what_they_were_in_earlier_versions() -> None:
    # Another value would make every stored result unreachable by the request that made it.
    assert manifest.content_id("ds", "recipe", b"\x00\x01") == "ds-211ecf9acbf0"


def test_the_producer_says_what_the_result_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANULO_GIT_REVISION", "1234567")
    manifest._git_revision.cache_clear()
    made = manifest.producer("render", seed=5)
    manifest._git_revision.cache_clear()
    assert (made.service, made.seed, made.git_revision) == ("render", 5, "1234567")
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", made.version)
    assert made.packages["numpy"].startswith("1.26")
