# SPDX-License-Identifier: GPL-3.0-or-later
"""Encrypted channels between real servers and clients: rotation, health, tokens on their way."""

import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from granulo.artifact.v1 import artifact_service_pb2 as pb
from granulo.artifact.v1 import artifact_service_pb2_grpc as rpc
from granulo_core.errors import GranuloError, Reason
from granulo_core.rpc.channel import on_behalf_of, open_channel
from granulo_core.rpc.server import GranuloServer, build_server
from granulo_core.settings import CoreSettings
from granulo_core.store import LocalStore

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from certificates import Authority

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Files:
    """Certificates of a server and of its client, which can be replaced as a whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.renew()

    def renew(self) -> None:
        """A new authority, and new certificates of it, in the places of the old ones."""
        authority = Authority(self._folder)
        self.server, self.client = authority.issue("server"), authority.issue("client")
        self.authority = authority

    def settings(self, **changes: str) -> CoreSettings:
        return CoreSettings.load(
            tls_cert=str(self.server.cert),
            tls_key=str(self.server.key),
            tls_client_ca=str(self.authority.path),
            tls_ca=str(self.authority.path),
            tls_client_cert=str(self.client.cert),
            tls_client_key=str(self.client.key),
            **changes,
        )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "certificates")


@contextmanager
def serving(store: LocalStore, settings: CoreSettings) -> Iterator[GranuloServer]:
    server = build_server([], runners=[], store=store, settings=settings)
    server.start("127.0.0.1:0")
    try:
        yield server
    finally:
        server.stop(0)


def check(channel: grpc.Channel, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status


def upload(channel: grpc.Channel) -> str:
    header = pb.UploadArtifactRequest.Header(media_type="text/plain")
    parts = [pb.UploadArtifactRequest(header=header), pb.UploadArtifactRequest(chunk=b"x")]
    uri: str = rpc.ArtifactServiceStub(channel).UploadArtifact(iter(parts), timeout=20).artifact.uri
    return uri


def shown_certificate(server: GranuloServer, files: Files) -> int:
    """Serial number of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=files.authority.path)
    context.load_cert_chain(files.client.cert, files.client.key)
    host, _, port = server.address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=host) as encrypted,
    ):
        shown = encrypted.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number


def test_calls_of_every_kind_go_over_mutual_tls(local_store: LocalStore, files: Files) -> None:
    settings = files.settings()
    with (
        serving(local_store, settings) as server,
        open_channel(server.address, settings) as channel,
    ):
        assert check(channel) == SERVING
        uri = upload(channel)
        request = pb.DownloadArtifactRequest(uri=uri)
        parts = list(rpc.ArtifactServiceStub(channel).DownloadArtifact(request, timeout=20))
        assert parts[1].chunk == b"x"
        future = health_pb2_grpc.HealthStub(channel).Check.future(health_pb2.HealthCheckRequest())
        assert future.result(20).status == SERVING


def test_new_certificates_count_for_new_connections_on_both_sides_without_a_restart(
    local_store: LocalStore, files: Files
) -> None:
    settings = files.settings()
    with (
        serving(local_store, settings) as server,
        open_channel(server.address, settings) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)  # made once, as services do
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=20).status == SERVING
        before = shown_certificate(server, files)
        # Nothing of the old authority is trusted any more, in either direction.
        files.renew()
        after = shown_certificate(server, files)
        assert after != before
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=20).status == SERVING


def test_files_that_do_not_belong_together_leave_the_old_ones_in_use(
    local_store: LocalStore, files: Files
) -> None:
    with serving(local_store, files.settings()) as server:
        before = shown_certificate(server, files)
        good = files.server.cert.read_bytes(), files.server.key.read_bytes()
        files.server.key.write_bytes(files.client.key.read_bytes())
        assert shown_certificate(server, files) == before
        files.server.cert.write_text("half a fi")
        assert shown_certificate(server, files) == before
        files.server.cert.write_bytes(good[0])
        files.server.key.write_bytes(good[1])
        assert shown_certificate(server, files) == before


def test_old_connections_are_ended_and_calls_go_on_over_new_ones(local_store: LocalStore) -> None:
    settings = CoreSettings(max_connection_age_s=1)
    with serving(local_store, settings) as server, open_channel(server.address) as channel:
        lost = threading.Event()

        def changed(state: grpc.ChannelConnectivity) -> None:
            if was_ready and state is not grpc.ChannelConnectivity.READY:
                lost.set()
            was_ready.extend([state] * (state is grpc.ChannelConnectivity.READY))

        was_ready: list[grpc.ChannelConnectivity] = []
        channel.subscribe(changed, try_to_connect=True)
        assert check(channel) == SERVING
        assert lost.wait(60)
        assert check(channel) == SERVING


def test_the_health_port_is_plaintext_and_serves_nothing_but_health(
    local_store: LocalStore, files: Files
) -> None:
    settings = files.settings(health_listen="127.0.0.1:0")
    with (
        serving(local_store, settings) as server,
        grpc.insecure_channel(server.health_address) as channel,
    ):
        assert check(channel) == check(channel, "liveness") == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            upload(channel)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


class Unreachable(LocalStore):
    """A store that can be taken away."""

    gone = False

    def exists(self, key: str) -> bool:
        if self.gone:
            raise GranuloError(Reason.STORE_UNAVAILABLE, "gone")
        return super().exists(key)


def test_readiness_follows_the_store_and_liveness_does_not(tmp_path: Path) -> None:
    store = Unreachable(tmp_path / "store")
    with (
        serving(store, CoreSettings(health_listen="127.0.0.1:0")) as server,
        grpc.insecure_channel(server.health_address) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service="readiness"), timeout=60
        )
        wait_for(watch, SERVING)
        store.gone = True
        wait_for(watch, NOT_SERVING)
        assert check(channel, "liveness") == SERVING
        store.gone = False
        wait_for(watch, SERVING)


def wait_for(watch: Iterator[health_pb2.HealthCheckResponse], status: int) -> None:
    assert any(answer.status == status for answer in watch)


class Echo:
    """A server that says which token came; what it is asked for in between does not matter."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.seen += [value for key, value in on_behalf_of(context)]
        return b""


@pytest.fixture
def echo() -> Iterator[tuple[Echo, str]]:
    from concurrent.futures import ThreadPoolExecutor

    made, server = Echo(), grpc.server(ThreadPoolExecutor(1))
    handler = grpc.unary_unary_rpc_method_handler(made)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("test.Echo", {"Say": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, f"127.0.0.1:{port}"
    server.stop(0)


def say(channel: grpc.Channel) -> Callable[..., bytes]:
    method: Callable[..., bytes] = channel.unary_unary("/test.Echo/Say")
    return method


def test_the_token_is_sent_and_the_one_of_a_caller_goes_before_it(
    echo: tuple[Echo, str], tmp_path: Path
) -> None:
    server, address = echo
    path = tmp_path / "token"
    path.write_text("mine\n")
    with open_channel(address, CoreSettings(auth_token_file=str(path))) as channel:
        say(channel)(b"")
        say(channel)(b"", metadata=(("authorization", "Bearer of a caller"),))
        path.write_text("my-next\n")
        say(channel)(b"")
    assert server.seen == ["Bearer mine", "Bearer of a caller", "Bearer my-next"]


def test_no_token_leaves_the_machine_unencrypted(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("mine")
    with pytest.raises(GranuloError) as caught:
        open_channel("segmenter:8080", CoreSettings(auth_token_file=str(path)))
    assert caught.value.violations[0].field == "GRANULO_TLS_CA"
    assert "mine" not in caught.value.message


@pytest.mark.parametrize("content", ["", "\n", "two\nlines", "\u00e9"])
def test_a_file_without_a_token_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(GranuloError) as caught:
        open_channel("127.0.0.1:1", CoreSettings(auth_token_file=str(path)))
    assert caught.value.violations[0].field == "GRANULO_AUTH_TOKEN_FILE"
