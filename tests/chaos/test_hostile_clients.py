# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that should not be here, against real server processes: each is refused, and told why.

What a server refuses leaves a line in its log; what TLS refuses never reaches it. Others are served
all the while.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import yaml
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from granulo.artifact.v1 import artifact_service_pb2 as artifact_pb
from granulo.artifact.v1 import artifact_service_pb2_grpc as artifact_rpc

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from certificates import Authority
from server_process import ServerProcess, channel_to, list_analyses

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NO_TOKEN = (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
BAD_TOKEN = (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")
LOW_ROLE = (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")
NOT_THERE = (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
BAD_FIELD = (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")

LIMIT_BYTES = 4 << 20
CHUNK = bytes(1 << 20)
TOKENS = {
    "reader": ("read", ""),
    "writer": ("submit", ""),
    "boss": ("admin", ""),
    "acme": ("admin", "acme"),
    "rival": ("admin", "rival"),
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """TLS, tokens, tenants, no reflection: as in production."""
    folder = tmp_path_factory.mktemp("server")
    tokens = folder / "tokens.yaml"
    tokens.write_text(
        yaml.safe_dump(
            [
                {
                    "sha256": hashlib.sha256(token(name).encode()).hexdigest(),
                    "subject": name,
                    "roles": [role],
                    "tenant": tenant,
                }
                for name, (role, tenant) in TOKENS.items()
            ]
        )
    )
    pair = authority.issue("server")
    own_token = folder / "token"
    own_token.write_text(token("service"))
    with ServerProcess(
        folder,
        tls_cert=pair.cert,
        tls_key=pair.key,
        auth="token",
        auth_tokens_file=tokens,
        reflection="false",
        max_upload_bytes=LIMIT_BYTES,
        health_listen="127.0.0.1:0",
        auth_token_file=own_token,
        # They belong into the environment of a service, whichever store it has.
        s3_access_key="secret-of-s3",
        s3_secret_key="secret-of-s3",
    ) as made:
        yield made


@pytest.fixture(scope="module")
def mutual(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that asks for client certificates."""
    pair = authority.issue("mutual")
    with ServerProcess(
        tmp_path_factory.mktemp("mutual"),
        tls_cert=pair.cert,
        tls_key=pair.key,
        tls_client_ca=authority.path,
    ) as made:
        yield made


def token(name: str) -> str:
    return f"secret-of-{name}"


def bearer(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token(name)}"),)


@pytest.fixture
def channel(server: ServerProcess, authority: Authority) -> Iterator[grpc.Channel]:
    with channel_to(server, authority) as made:
        yield made


def upload(
    channel: grpc.Channel, data: Iterator[bytes], name: str, size_bytes: int = 0
) -> artifact_pb.UploadArtifactResponse:
    def parts() -> Iterator[artifact_pb.UploadArtifactRequest]:
        yield artifact_pb.UploadArtifactRequest(
            header=artifact_pb.UploadArtifactRequest.Header(
                media_type="application/octet-stream", size_bytes=size_bytes
            )
        )
        for chunk in data:
            yield artifact_pb.UploadArtifactRequest(chunk=chunk)

    stub = artifact_rpc.ArtifactServiceStub(channel)
    return stub.UploadArtifact(parts(), timeout=60, metadata=bearer(name))


def download(channel: grpc.Channel, uri: str, name: str) -> bytes:
    stub = artifact_rpc.ArtifactServiceStub(channel)
    request = artifact_pb.DownloadArtifactRequest(uri=uri)
    parts = stub.DownloadArtifact(request, timeout=30, metadata=bearer(name))
    return b"".join(part.chunk for part in parts)


def refusal(
    server: ServerProcess, call: Callable[..., object], *args: object, **options: object
) -> tuple[grpc.StatusCode, str]:
    """Code and reason that the call is refused with; the server's log has to have the same."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **options)
    error = caught.value
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(error)
    assert status is not None, error.details()
    assert any(detail.Unpack(info) for detail in status.details)
    request_id = dict(error.trailing_metadata())["x-request-id"]
    # Other lines of the same call may stand before it.
    line = server.wait_for(
        lambda event: event.get("request_id") == request_id and "reason" in event
    )
    assert (line["event"], line["reason"]) == ("call refused", info.reason)
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    return error.code(), info.reason


def failure_unheard(
    server: ServerProcess, call: Callable[..., object], *args: object, **options: object
) -> grpc.StatusCode:
    """Code that the call fails with at the client, while no handler of the server hears of it."""
    before = len(server.events())
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **options)
    assert [e["event"] for e in server.events()[before:] if "method" in e] == []
    return caught.value.code()


class TestTokens:
    def test_no_token_is_unauthenticated(
        self, server: ServerProcess, channel: grpc.Channel
    ) -> None:
        assert refusal(server, list_analyses, channel) == NO_TOKEN

    @pytest.mark.parametrize(
        ("header", "why"),
        [
            ("Bearer wrong", BAD_TOKEN),
            ("Bearer " + "x" * 7000, BAD_TOKEN),
            ("Basic c2VjcmV0", NO_TOKEN),
            ("Bearer", NO_TOKEN),
            ("Bearer  ", NO_TOKEN),
        ],
    )
    def test_a_wrong_token_is_unauthenticated(
        self,
        server: ServerProcess,
        channel: grpc.Channel,
        header: str,
        why: tuple[grpc.StatusCode, str],
    ) -> None:
        metadata = (("authorization", header),)
        assert refusal(server, list_analyses, channel, metadata=metadata) == why

    def test_a_token_whose_role_is_too_low_is_denied(
        self, server: ServerProcess, channel: grpc.Channel
    ) -> None:
        list_analyses(channel, metadata=bearer("reader"))
        assert refusal(server, upload, channel, iter([b"x"]), "reader") == LOW_ROLE

    def test_a_stream_is_refused_before_it_is_read(
        self, server: ServerProcess, channel: grpc.Channel
    ) -> None:
        sent = []

        def endless() -> Iterator[bytes]:
            while True:
                sent.append(1)
                yield CHUNK

        assert refusal(server, upload, channel, endless(), "nobody") == BAD_TOKEN
        assert len(sent) < 64

    def test_another_tenants_token_finds_nothing(
        self, server: ServerProcess, channel: grpc.Channel
    ) -> None:
        uri = upload(channel, iter([b"of acme"]), "acme").artifact.uri
        assert download(channel, uri, "acme") == b"of acme"
        assert (server.store / "tenants" / "acme" / uri).is_file()
        for other in ("rival", "boss"):
            assert refusal(server, download, channel, uri, other) == NOT_THERE
        for foreign in (f"tenants/acme/{uri}", f"../acme/{uri}"):
            assert refusal(server, download, channel, foreign, "rival") == NOT_THERE

    def test_health_is_open_to_everybody_and_nothing_else_is(
        self, server: ServerProcess, channel: grpc.Channel
    ) -> None:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert (
            refusal(server, next, health.Watch(health_pb2.HealthCheckRequest(), timeout=30))
            == NO_TOKEN
        )

    def test_no_secret_is_in_the_log(self, server: ServerProcess, channel: grpc.Channel) -> None:
        for name in TOKENS:
            list_analyses(channel, metadata=bearer(name))
        with pytest.raises(grpc.RpcError):
            list_analyses(channel, metadata=bearer("nobody"))
        server.wait_for(lambda event: event.get("reason") == "TOKEN_INVALID")
        text = server.log.read_text()
        assert "secret-of" not in text
        assert "PRIVATE KEY" not in text


class TestCertificates:
    def test_one_of_the_authority_is_let_in(
        self, mutual: ServerProcess, authority: Authority
    ) -> None:
        with channel_to(mutual, authority, authority.issue("friend")) as channel:
            assert not list_analyses(channel).analyses

    def test_an_expired_one_reaches_no_handler(
        self, mutual: ServerProcess, authority: Authority
    ) -> None:
        pair = authority.issue("late", expired=True)
        with channel_to(mutual, authority, pair) as channel:
            assert failure_unheard(mutual, list_analyses, channel) is UNAVAILABLE

    def test_one_of_another_authority_reaches_no_handler(
        self, mutual: ServerProcess, authority: Authority, tmp_path: Path
    ) -> None:
        pair = Authority(tmp_path, "strangers").issue("stranger")
        with channel_to(mutual, authority, pair) as channel:
            assert failure_unheard(mutual, list_analyses, channel) is UNAVAILABLE

    def test_a_client_without_one_reaches_no_handler(
        self, mutual: ServerProcess, authority: Authority
    ) -> None:
        with channel_to(mutual, authority) as channel:
            assert failure_unheard(mutual, list_analyses, channel) is UNAVAILABLE

    def test_plaintext_to_a_tls_port_reaches_no_handler(self, server: ServerProcess) -> None:
        with channel_to(server, None) as channel:
            assert (
                failure_unheard(server, list_analyses, channel, metadata=bearer("boss"))
                is UNAVAILABLE
            )

    def test_a_server_of_another_authority_gets_no_call(
        self, server: ServerProcess, tmp_path: Path
    ) -> None:
        with channel_to(server, Authority(tmp_path)) as channel:
            assert (
                failure_unheard(server, list_analyses, channel, metadata=bearer("boss"))
                is UNAVAILABLE
            )


class TestRequests:
    @pytest.mark.parametrize(
        "uri",
        [
            "uploads/../operations/analyzer/x/operation.json",
            "uploads/%2e%2e/refs/models/default.json",
            "uploads/..%2f..%2f..%2fetc%2fpasswd",
            "uploads//etc/passwd",
            "uploads/.tmp/x",
            "uploads/a\\..\\..\\b",
            "uploads/\u2025/x",
            "uploads/x\n",
            "uploads/" + "a/" * 400 + "a",
        ],
    )
    def test_a_key_that_leaves_its_prefix_is_invalid(
        self, server: ServerProcess, channel: grpc.Channel, uri: str
    ) -> None:
        assert refusal(server, download, channel, uri, "boss") == BAD_FIELD

    @pytest.mark.parametrize(
        "uri", ["/etc/passwd", "../x", "operations/analyzer/x/operation.json", "refs/models/a.json",
                "pending/x", "tenants/acme/uploads/x", "file:///etc/passwd"],
    )  # fmt: skip
    def test_a_key_outside_of_the_public_prefixes_is_not_found(
        self, server: ServerProcess, channel: grpc.Channel, uri: str
    ) -> None:
        assert refusal(server, download, channel, uri, "boss") == NOT_THERE

    def test_a_link_out_of_the_store_is_invalid(
        self, server: ServerProcess, channel: grpc.Channel
    ) -> None:
        link = server.store / "uploads" / "link"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to("/etc")
        try:
            assert refusal(server, download, channel, "uploads/link/passwd", "boss") == BAD_FIELD
        finally:
            link.unlink()

    def test_an_upload_declared_as_ten_gigabytes_is_refused_at_once(
        self, server: ServerProcess, channel: grpc.Channel
    ) -> None:
        assert (
            refusal(server, upload, channel, iter([]), "writer", size_bytes=10 * 10**9) == BAD_FIELD
        )

    @pytest.mark.parametrize("declared", [0, 1000])
    def test_an_undeclared_upload_of_ten_gigabytes_is_stopped_and_leaves_nothing(
        self, server: ServerProcess, channel: grpc.Channel, declared: int
    ) -> None:
        sent: list[int] = []

        def zeros() -> Iterator[bytes]:
            for _ in range(10 * 10**9 // len(CHUNK)):
                sent.append(len(CHUNK))
                yield CHUNK

        before = sorted((server.store / "uploads").glob("*"))
        assert refusal(server, upload, channel, zeros(), "writer", size_bytes=declared) == BAD_FIELD
        # What the limit lets pass, and what is on its way when the refusal comes.
        assert sum(sent) < 20 * LIMIT_BYTES
        assert sorted((server.store / "uploads").glob("*")) == before
        list_analyses(channel, metadata=bearer("reader"))

    def test_reflection_is_unimplemented_where_it_is_off(
        self, server: ServerProcess, channel: grpc.Channel
    ) -> None:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.ServerReflectionInfo(iter([request]), timeout=30, metadata=bearer("boss")))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
