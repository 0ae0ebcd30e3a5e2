# SPDX-License-Identifier: GPL-3.0-or-later
"""What the S3 store owes beyond the conformance suite: wrong keys, dead servers, foreign data."""

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest
from minio import Minio

from granulo_core.errors import GranuloError, Reason
from granulo_core.store import ObjectStore, digest_of, open_store


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANULO_S3_ACCESS_KEY", "someone")
    monkeypatch.setenv("GRANULO_S3_SECRET_KEY", "something")


@pytest.fixture
def bare_client(s3_server: Any) -> Minio:
    return Minio(
        endpoint=urlsplit(s3_server.endpoint).netloc,
        access_key=s3_server.key,
        secret_key=s3_server.key,
        secure=False,
    )


def error_of(store: ObjectStore) -> GranuloError:
    with pytest.raises(GranuloError) as caught:
        store.put("a/b", b"1")
    return caught.value


@pytest.mark.parametrize("variable", ["GRANULO_S3_ACCESS_KEY", "GRANULO_S3_SECRET_KEY"])
def test_a_wrong_key_is_refused_by_the_server_and_named(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "wrong-one")
    error = error_of(open_store(s3_url))
    assert error.reason is Reason.STORE_NOT_WRITABLE
    assert variable in error.message
    assert "wrong-one" not in error.message
    with pytest.raises(GranuloError) as caught:
        open_store(s3_url).exists("a/b")
    assert caught.value.reason is Reason.STORE_NOT_WRITABLE


def test_a_missing_bucket_is_named(s3_url: str) -> None:
    store = open_store(s3_url.replace("s3://granulo/", "s3://not-there/"))
    error = error_of(store)
    assert error.reason is Reason.STORE_NOT_WRITABLE
    assert "not-there" in error.message
    with pytest.raises(GranuloError, match="not-there"):
        store.check_writable()


@pytest.mark.usefixtures("keys")
def test_a_server_that_is_down_is_unavailable_within_seconds(free_port: int) -> None:
    store = open_store(f"s3://granulo?endpoint=http://127.0.0.1:{free_port}")
    start = time.monotonic()
    error = error_of(store)
    assert time.monotonic() - start < 10
    assert error.reason is Reason.STORE_UNAVAILABLE
    assert f"127.0.0.1:{free_port}" in error.message
    assert error.retry_after_s
    for call in (
        lambda: store.get("a/b"),
        lambda: store.exists("a/b"),
        lambda: list(store.list("a/")),
        lambda: list(store.children("")),
        lambda: store.delete("a/b"),
        store.check_writable,
    ):
        with pytest.raises(GranuloError) as caught:
            call()
        assert caught.value.reason is Reason.STORE_UNAVAILABLE


@pytest.fixture
def breaking_server() -> Iterator[int]:
    """Promises 1000 bytes for any request, sends 10 and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with closing(connection):
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789")

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.mark.usefixtures("keys")
def test_a_connection_that_breaks_during_a_read_is_unavailable_and_no_short_object(
    breaking_server: int,
) -> None:
    store = open_store(f"s3://granulo?endpoint=http://127.0.0.1:{breaking_server}")
    for call in (lambda: store.get("a/b"), lambda: list(store.read_chunks("a/b"))):
        with pytest.raises(GranuloError) as caught:
            call()
        assert caught.value.reason is Reason.STORE_UNAVAILABLE


def test_an_object_of_another_program_has_a_digest_too(
    s3_store: ObjectStore, s3_url: str, bare_client: Minio
) -> None:
    bucket, name = urlsplit(s3_url).netloc, urlsplit(s3_url).path.strip("/") + "/a/b.png"
    bare_client.put_object(bucket, name, io.BytesIO(b"foreign"), 7, "image/png")
    assert s3_store.stat("a/b.png").digest == digest_of(b"foreign")
    assert s3_store.get("a/b.png", digest_of(b"foreign")) == b"foreign"


def test_bytes_that_differ_from_the_digest_beside_them_are_data_loss(
    s3_store: ObjectStore, s3_url: str, bare_client: Minio
) -> None:
    bucket, name = urlsplit(s3_url).netloc, urlsplit(s3_url).path.strip("/") + "/a/b"
    metadata = {"x-amz-meta-granulo-digest": digest_of(b"written")}
    bare_client.put_object(bucket, name, io.BytesIO(b"damaged"), 7, metadata=dict(metadata))
    with pytest.raises(GranuloError) as caught:
        s3_store.get("a/b")
    assert caught.value.reason is Reason.DIGEST_MISMATCH


def test_stores_with_different_prefixes_share_a_bucket_without_meeting(
    s3_store: ObjectStore, s3_server: Any, s3_url: str
) -> None:
    prefix = urlsplit(s3_url).path.strip("/")
    longer, below = (open_store(s3_server.url(prefix + end)) for end in ("0", "/sub"))
    s3_store.put("a/b", b"1")
    longer.put("a/c", b"2")
    assert list(s3_store.list("")) == ["a/b"]
    assert list(longer.list("")) == ["a/c"]
    assert list(below.list("")) == []


def test_a_repeated_use_of_one_store_by_many_threads_is_safe(s3_store: ObjectStore) -> None:
    failures: list[Exception] = []

    def work(worker: int) -> None:
        try:
            for turn in range(5):
                stored = s3_store.put(f"a/{worker}/{turn}", b"%d" % (worker * turn))
                assert s3_store.get(stored.key, stored.digest) == b"%d" % (worker * turn)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list(s3_store.list("a/"))) == 40


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("s3://granulo", "needs an endpoint"),
        ("s3://granulo?endpoint=127.0.0.1:80", "needs an endpoint"),
        ("s3://granulo?endpoint=http://host/path", "needs an endpoint"),
        ("s3://?endpoint=http://host", "must have the form"),
        ("s3://key:secret@granulo?endpoint=http://host", "must have the form"),
        ("s3://granulo?endpoint=http://host&secret_key=x", "must have the form"),
        ("s3://granulo/../x?endpoint=http://host", "object key"),
    ],
)
def test_an_unusable_address_says_what_is_wrong(url: str, fault: str) -> None:
    with pytest.raises(GranuloError, match=fault) as caught:
        open_store(url)
    assert caught.value.reason is Reason.FIELD_INVALID
    assert "secret" not in caught.value.message.replace("GRANULO_S3_SECRET_KEY", "")


def test_missing_keys_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRANULO_S3_ACCESS_KEY", raising=False)
    monkeypatch.delenv("GRANULO_S3_SECRET_KEY", raising=False)
    with pytest.raises(GranuloError, match="GRANULO_S3_SECRET_KEY"):
        open_store("s3://granulo?endpoint=http://host")
