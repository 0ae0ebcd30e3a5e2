# SPDX-License-Identifier: GPL-3.0-or-later
"""What every object store must do; each test runs on a folder and on a real S3 service."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from granulo_core.errors import GranuloError, Reason
from granulo_core.store import ObjectStore, StoredObject, digest_of, open_store

MIB = 1 << 20


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    fixture: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return fixture


def reason_of(call: Callable[[], object]) -> Reason:
    with pytest.raises(GranuloError) as caught:
        call()
    return caught.value.reason


def write_file(path: Path, size_bytes: int, seed: int = 1) -> str:
    """Write pseudo-random bytes, so that no part of the file equals another."""
    generator, sha256 = random.Random(seed), hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size_bytes, MIB):
            block = generator.randbytes(min(MIB, size_bytes - start))
            sha256.update(block)
            file.write(block)
    return "sha256:" + sha256.hexdigest()


def test_an_object_comes_back_as_it_was_written(store: ObjectStore) -> None:
    data = bytes(range(256)) * 7
    stored = store.put("datasets/ds-1/images/000001.tif", data)
    assert stored == StoredObject(
        "datasets/ds-1/images/000001.tif", digest_of(data), 1792, "image/tiff"
    )
    assert store.exists(stored.key)
    assert store.stat(stored.key) == stored
    assert store.get(stored.key) == data
    assert store.get(stored.key, stored.digest) == data


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    stored = store.put("a/empty", b"")
    assert (stored.size_bytes, stored.digest) == (0, digest_of(b""))
    assert store.stat("a/empty") == stored
    assert store.get("a/empty", stored.digest) == b""
    assert list(store.read_chunks("a/empty")) == []
    assert list(store.list("")) == ["a/empty"]


def test_putting_again_replaces_the_object(store: ObjectStore) -> None:
    store.put("refs/models/default.json", b'{"version": 1}')
    second = store.put("refs/models/default.json", b'{"version": 22}')
    assert store.get("refs/models/default.json", second.digest) == b'{"version": 22}'
    assert list(store.list("refs/")) == ["refs/models/default.json"]


def test_a_declared_media_type_goes_into_the_receipt(store: ObjectStore) -> None:
    assert store.put("a/x", b"1").media_type == "application/octet-stream"
    assert store.put("a/y", b"1", "image/png").media_type == "image/png"


def test_large_files_go_in_and_out_unchanged(store: ObjectStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "out" / "target"
    target.parent.mkdir()
    digest = write_file(source, 40 * MIB + 17)  # three parts of a multipart upload
    stored = store.put_file("models/m/weights.keras", source)
    assert (stored.digest, stored.size_bytes) == (digest, 40 * MIB + 17)
    assert store.stat(stored.key) == stored
    store.get_file(stored.key, target, digest)
    assert digest_of(target.read_bytes()) == digest
    assert list(target.parent.iterdir()) == [target]


def test_a_file_that_cannot_be_read_is_named(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(GranuloError, match="nowhere") as caught:
        store.put_file("a/b", tmp_path / "nowhere")
    assert caught.value.reason is Reason.FIELD_INVALID
    assert not store.exists("a/b")


def test_chunks_cover_the_object_from_any_offset(store: ObjectStore) -> None:
    data = random.Random(5).randbytes(100_000)
    store.put("a/b", data)
    chunks = list(store.read_chunks("a/b", chunk_size=4096))
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) <= 4096
    assert b"".join(store.read_chunks("a/b", offset=99_990)) == data[99_990:]
    assert list(store.read_chunks("a/b", offset=100_000)) == []
    assert list(store.read_chunks("a/b", offset=10**9)) == []
    assert reason_of(lambda: list(store.read_chunks("a/b", -1))) is Reason.FIELD_INVALID
    assert reason_of(lambda: list(store.read_chunks("a/b", 0, 0))) is Reason.FIELD_INVALID


def test_what_is_missing_is_not_found(store: ObjectStore, tmp_path: Path) -> None:
    store.put("a/b", b"1")
    for key in ("nothing", "a/nothing", "a"):
        assert not store.exists(key)
        assert reason_of(lambda k=key: store.get(k)) is Reason.RESOURCE_NOT_FOUND
        assert reason_of(lambda k=key: store.stat(k)) is Reason.RESOURCE_NOT_FOUND
        assert reason_of(lambda k=key: list(store.read_chunks(k))) is Reason.RESOURCE_NOT_FOUND
        assert (
            reason_of(lambda k=key: store.get_file(k, tmp_path / "out"))
            is Reason.RESOURCE_NOT_FOUND
        )
    assert list(tmp_path.glob("*out*")) == []


def test_other_bytes_than_expected_are_data_loss(store: ObjectStore, tmp_path: Path) -> None:
    store.put("a/b", b"these bytes")
    target = tmp_path / "out"
    target.write_bytes(b"earlier")
    other = digest_of(b"those bytes")
    with pytest.raises(GranuloError, match="a/b") as caught:
        store.get("a/b", other)
    assert caught.value.code.name == "DATA_LOSS"
    assert reason_of(lambda: store.get_file("a/b", target, other)) is Reason.DIGEST_MISMATCH
    assert target.read_bytes() == b"earlier"
    assert list(tmp_path.glob(".*")) == []


def test_keys_are_listed_in_lexicographic_order_by_any_prefix(store: ObjectStore) -> None:
    keys = [
        *("a/x", "a-b/x", "a.b/x", "a=b", "ab", "a/b/c", "a/b.c", "a/b-c/d", "A", "a_", "0/1"),
        *(f"many/{number:04d}" for number in range(20)),
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: store.put(key, b""), keys))
    assert list(store.list("")) == sorted(keys)
    for prefix in ("a", "a/", "a/b", "a/b/", "a-", "many/000", "many/0001", "b", "a/x", "a/x/"):
        assert list(store.list(prefix)) == sorted(key for key in keys if key.startswith(prefix))


def test_more_keys_than_one_page_of_a_listing_are_all_listed(store: ObjectStore) -> None:
    keys = [f"datasets/ds-1/{number:05d}" for number in range(1050)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b""), keys))
    assert list(store.list("datasets/")) == keys


def test_children_are_the_folders_directly_below(store: ObjectStore) -> None:
    for key in ("datasets/b/1/x", "datasets/a/1", "datasets/a/2", "datasets/c", "models/m/x"):
        store.put(key, b"")
    assert list(store.children("")) == ["datasets", "models"]
    assert list(store.children("datasets/")) == ["a", "b"]
    assert list(store.children("datasets/a/")) == []
    assert list(store.children("nothing/")) == []
    assert reason_of(lambda: list(store.children("datasets"))) is Reason.FIELD_INVALID


def test_a_deleted_object_is_gone_and_deleting_it_again_is_no_error(store: ObjectStore) -> None:
    store.put("a/b/c", b"1")
    store.put("a/d", b"1")
    store.delete("a/b/c")
    store.delete("a/b/c")
    store.delete("never/was")
    assert list(store.list("")) == ["a/d"]
    assert list(store.children("a/")) == []


@pytest.mark.parametrize(
    "key",
    [
        *("", "/a", "a/", "a//b", "..", "a/../../b", "a/./b", ".hidden", "a/.b", "a b", "ä"),
        *("a\\b", "a\n", "a\0b", "x" * 201, "/".join(["x" * 99] * 8), "~/a", "a:b", "a?b"),
    ],
)
def test_keys_that_could_leave_the_store_are_refused(store: ObjectStore, key: str) -> None:
    for call in (
        lambda: store.put(key, b"1"),
        lambda: store.get(key),
        lambda: store.exists(key),
        lambda: store.stat(key),
        lambda: store.delete(key),
    ):
        assert reason_of(call) is Reason.FIELD_INVALID


@pytest.mark.parametrize("prefix", ["/", "../", "a/../b", ".tmp", "a//", "ä"])
def test_prefixes_that_no_key_has_are_refused(store: ObjectStore, prefix: str) -> None:
    assert reason_of(lambda: list(store.list(prefix))) is Reason.FIELD_INVALID
    assert reason_of(lambda: list(store.children(prefix))) is Reason.FIELD_INVALID


def test_readers_see_the_old_or_the_new_object_while_it_is_replaced(store: ObjectStore) -> None:
    contents = [bytes([number]) * (700_000 + number) for number in range(4)]
    valid = {digest_of(content) for content in contents}
    store.put("a/b", contents[0])
    stop, seen = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            seen.append(digest_of(store.get("a/b")))
            seen.append(digest_of(b"".join(store.read_chunks("a/b", chunk_size=65_536))))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for turn in range(24):
            store.put("a/b", contents[turn % 4])
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert len(seen) > 20
    assert set(seen) <= valid


def test_writers_of_neighbouring_keys_do_not_disturb_one_another(store: ObjectStore) -> None:
    # Deleting the last object of a folder races with writing a new one into it.
    def work(worker: int) -> None:
        for turn in range(15):
            store.put(f"a/b/{worker}", b"%d" % turn)
            store.delete(f"a/b/{worker}")
        store.put(f"a/b/{worker}", b"last")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert list(store.list("a/")) == [f"a/b/{worker}" for worker in range(6)]
    assert {store.get(key) for key in store.list("a/")} == {b"last"}


def test_another_process_opens_the_same_store_by_its_url(store: ObjectStore) -> None:
    store.put("a/b", b"from here")
    script = (
        "import sys; from granulo_core.store import open_store; store = open_store(sys.argv[1]);"
        "store.put('a/c', store.get('a/b') + b' and there')"
    )
    subprocess.run([sys.executable, "-c", script, store.url], check=True, timeout=60)
    assert store.get("a/c") == b"from here and there"
    assert open_store(store.url).url == store.url


KILLED_WRITER = """
import sys
from pathlib import Path
from granulo_core.store import open_store
store = open_store(sys.argv[1])
for turn in range(1, 10_000):
    store.put_file("a/b", Path(sys.argv[2 + turn % 2]))
    print(turn, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_the_old_or_the_new_object(
    store: ObjectStore, tmp_path: Path
) -> None:
    sources = [tmp_path / "even", tmp_path / "odd"]
    valid = {write_file(path, 24 * MIB, seed) for seed, path in enumerate(sources)}
    store.put_file("a/b", sources[0])
    arguments = [sys.executable, "-c", KILLED_WRITER, store.url, *map(str, sources)]
    for delay_s in (0.0, 0.013, 0.041, 0.087):
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"1\n"
            time.sleep(delay_s)
            os.kill(writer.pid, signal.SIGKILL)
        assert list(store.list("")) == ["a/b"]
        assert store.stat("a/b").digest in valid
        assert digest_of(store.get("a/b")) in valid


def test_the_probe_of_a_writable_store_leaves_nothing(store: ObjectStore) -> None:
    store.check_writable()
    assert list(store.list("")) == []
    assert list(store.children("")) == []
