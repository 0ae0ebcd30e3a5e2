# SPDX-License-Identifier: GPL-3.0-or-later
"""Big files straight to and from a real S3 service, through URLs that say what and for how long."""

import hashlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import grpc
import pytest

from granulo.artifact.v1 import artifact_service_pb2 as pb
from granulo.artifact.v1 import artifact_service_pb2_grpc as rpc
from granulo_client import presigned
from granulo_client.artifacts import Transfers
from granulo_client.channels import Channels
from granulo_client.errors import DataLossError
from granulo_core.rpc.server import build_server
from granulo_core.settings import CoreSettings
from granulo_core.store import LocalStore, ObjectStore, digest_of

LIMIT_BYTES = 1 << 20


@contextmanager
def serving(store: ObjectStore, **settings: object) -> Iterator[str]:
    server = build_server(
        [],
        runners=[],
        store=store,
        settings=CoreSettings.load(max_upload_bytes=LIMIT_BYTES, **settings),
    )
    try:
        yield server.start("127.0.0.1:0")
    finally:
        server.stop(0)


@pytest.fixture
def address(s3_store: ObjectStore, s3_url: str) -> Iterator[str]:
    endpoint = parse_qs(urlsplit(s3_url).query)["endpoint"][0]
    with serving(s3_store, presign_endpoint=endpoint, presign_expiry_s=60) as made:
        yield made


@pytest.fixture
def stub(address: str) -> Iterator[rpc.ArtifactServiceStub]:
    with grpc.insecure_channel(address) as channel:
        yield rpc.ArtifactServiceStub(channel)


@pytest.fixture
def through_store(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Methods of the requests that went to the store; files of any size count as big."""
    monkeypatch.setattr(presigned, "BIG_BYTES", 1)
    seen: list[str] = []
    real = urllib.request.urlopen

    def noted(request: object, **options: object) -> object:
        seen.append(getattr(request, "method", None) or "GET")
        return real(request, **options)

    monkeypatch.setattr(urllib.request, "urlopen", noted)
    return seen


def put(url: str, data: bytes) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, data=data, method="PUT"), timeout=30):
        pass


def finish(stub: rpc.ArtifactServiceStub, upload: str, data: bytes) -> pb.FinishUploadResponse:
    return stub.FinishUpload(
        pb.FinishUploadRequest(
            upload=upload, media_type="image/tiff", expected_digest=digest_of(data)
        ),
        timeout=30,
    )


def code_of(caught: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    return caught.value.code()


def test_a_big_file_goes_there_and_back_without_passing_the_service(
    address: str, tmp_path: Path, through_store: list[str]
) -> None:
    source, target = tmp_path / "a.tif", tmp_path / "b.tif"
    source.write_bytes(os.urandom(700_000))
    told: list[int] = []
    with Channels({"analyzer": address}) as channels:
        transfers = Transfers(channels)
        artifact = transfers.upload(source, "analyzer", on_bytes=told.append)
        assert artifact.uri == f"uploads/{hashlib.sha256(source.read_bytes()).hexdigest()}"
        assert artifact.size_bytes == sum(told) == 700_000
        transfers.download(artifact, target, "analyzer")
    assert target.read_bytes() == source.read_bytes()
    assert through_store == ["PUT", "GET"]


def test_nothing_that_was_put_counts_before_it_is_checked(
    stub: rpc.ArtifactServiceStub, s3_store: ObjectStore
) -> None:
    given = stub.CreateUploadUrl(pb.CreateUploadUrlRequest(size_bytes=5))
    put(given.url, b"right")
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.DownloadArtifact(pb.DownloadArtifactRequest(uri=given.upload)))
    assert code_of(caught) is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError) as caught:
        finish(stub, given.upload, b"other")
    assert code_of(caught) is grpc.StatusCode.DATA_LOSS
    assert list(s3_store.list("")) == []


def test_more_than_the_limit_is_refused_before_and_after(
    stub: rpc.ArtifactServiceStub, s3_store: ObjectStore
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.CreateUploadUrl(pb.CreateUploadUrlRequest(size_bytes=LIMIT_BYTES + 1))
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    given = stub.CreateUploadUrl(pb.CreateUploadUrlRequest(size_bytes=1))
    data = bytes(LIMIT_BYTES + 1)
    put(given.url, data)
    with pytest.raises(grpc.RpcError) as caught:
        finish(stub, given.upload, data)
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    assert list(s3_store.list("")) == []


@pytest.mark.parametrize("upload", ["uploads/x", "pending/x", "datasets/a/manifest.json", "../x"])
def test_only_what_was_put_to_an_upload_url_is_taken_in(
    stub: rpc.ArtifactServiceStub, s3_store: ObjectStore, upload: str
) -> None:
    s3_store.put("uploads/x", b"x")
    s3_store.put("datasets/a/manifest.json", b"x")
    with pytest.raises(grpc.RpcError) as caught:
        finish(stub, upload, b"x")
    assert code_of(caught) is grpc.StatusCode.NOT_FOUND
    assert s3_store.exists("datasets/a/manifest.json")


@pytest.mark.parametrize(
    "uri", ["operations/render/x/operation.json", "refs/models/a.json", "pending/x"]
)
def test_no_url_reads_what_the_service_would_not(stub: rpc.ArtifactServiceStub, uri: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.CreateDownloadUrl(pb.CreateDownloadUrlRequest(uri=uri))
    assert code_of(caught) is grpc.StatusCode.NOT_FOUND


def test_a_url_is_for_one_object_one_verb_and_a_while(
    stub: rpc.ArtifactServiceStub, s3_store: ObjectStore
) -> None:
    s3_store.put("uploads/a", b"mine")
    s3_store.put("uploads/b", b"another's")
    given = stub.CreateDownloadUrl(pb.CreateDownloadUrlRequest(uri="uploads/a"))
    with urllib.request.urlopen(given.url, timeout=30) as answer:
        assert answer.read() == b"mine"
    assert 0 < given.expire_time.seconds - time.time() <= 60
    assert parse_qs(urlsplit(given.url).query)["X-Amz-Expires"] == ["60"]
    for url in (
        given.url.replace("uploads/a", "uploads/b"),
        given.url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000"),
        given.url.partition("?")[0],
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url, timeout=30)
        assert caught.value.code == 403
    with pytest.raises(urllib.error.HTTPError) as caught:
        put(given.url, b"overwritten")
    assert caught.value.code == 403


def test_a_store_that_cannot_be_reached_from_here_is_left_out(
    s3_store: ObjectStore, tmp_path: Path, through_store: list[str], free_port: int
) -> None:
    source = tmp_path / "a.tif"
    source.write_bytes(b"some bytes")
    nowhere = f"http://127.0.0.1:{free_port}"
    with (
        serving(s3_store, presign_endpoint=nowhere) as address,
        Channels({"analyzer": address}) as channels,
    ):
        transfers = Transfers(channels)
        artifact = transfers.upload(source, "analyzer")
        assert transfers.read(artifact, "analyzer") == b"some bytes"
    assert through_store == ["PUT", "GET"]


@pytest.mark.parametrize("settings", [{}, {"presign_endpoint": "https://s3.example.org"}])
def test_a_folder_has_no_urls_and_big_files_go_through_the_service(
    local_store: LocalStore, tmp_path: Path, through_store: list[str], settings: dict[str, str]
) -> None:
    source = tmp_path / "a.tif"
    source.write_bytes(b"some bytes")
    with serving(local_store, **settings) as address, Channels({"analyzer": address}) as channels:
        transfers = Transfers(channels)
        artifact = transfers.upload(source, "analyzer")
        assert transfers.read(artifact, "analyzer") == b"some bytes"
        local_store.put(artifact.uri, b"some byteS")
        with pytest.raises(DataLossError):
            transfers.read(artifact, "analyzer")
    assert through_store == []
