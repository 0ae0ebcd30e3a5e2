# SPDX-License-Identifier: GPL-3.0-or-later
"""The `granulo` command over TLS, with tokens; what is wrong is said so that it can be mended."""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from granulo_client import Client, Security, UnauthenticatedError, UsageError
from granulo_client.cli import run_command
from granulo_client.standalone import Standalone
from granulo_core.rpc.server import build_server
from granulo_core.settings import CoreSettings
from granulo_core.store import LocalStore

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from certificates import Authority, Pair

FAILED, USAGE = 1, 2


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("strangers"), "strangers")


@contextmanager
def serving(folder: Path, pair: Pair | None = None, **settings: str) -> Iterator[str]:
    """Address of a server without a service of its own: it has operations and artifacts."""
    chosen = {"tls_cert": str(pair.cert), "tls_key": str(pair.key)} if pair else {}
    server = build_server(
        [],
        runners=[],
        store=LocalStore(folder / "store"),
        settings=CoreSettings.load(**chosen, **settings),
        for_tenant=lambda _: [],
    )
    try:
        yield server.start("127.0.0.1:0")
    finally:
        server.stop(0)


def run(capsys: pytest.CaptureFixture[str], address: str, *options: object) -> tuple[int, str]:
    """Exit code and standard error of a command that makes one call."""
    words = ["operations", "list", "--json", "--server", address, *map(str, options)]
    code = run_command(words)
    return code, capsys.readouterr().err


def options_of(authority: Authority, pair: Pair | None = None) -> tuple[object, ...]:
    shown = ("--client-cert", pair.cert, "--client-key", pair.key) if pair else ()
    return ("--tls-ca", authority.path, *shown)


def test_a_command_goes_over_mutual_tls(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = authority.issue("server")
    with serving(tmp_path, pair, tls_client_ca=str(authority.path)) as address:
        friend = authority.issue("friend")
        assert run(capsys, address, *options_of(authority, friend)) == (0, "")


def test_the_options_come_from_the_environment_too(
    tmp_path: Path,
    authority: Authority,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(tmp_path, authority.issue("server")) as address:
        monkeypatch.setenv("GRANULO_TLS_CA", str(authority.path))
        assert run(capsys, address) == (0, "")


class TestWhatIsWrong:
    def test_plaintext_to_a_tls_port(
        self, tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with serving(tmp_path, authority.issue("server")) as address:
            code, said = run(capsys, address)
        assert code == FAILED
        assert "speaks TLS: give the authority of its certificate with --tls-ca" in said

    def test_tls_to_a_plaintext_port(
        self, tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with serving(tmp_path) as address:
            code, said = run(capsys, address, *options_of(authority))
        assert code == FAILED
        assert "does not speak TLS at this port" in said

    def test_another_authority(
        self,
        tmp_path: Path,
        authority: Authority,
        strangers: Authority,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        with serving(tmp_path, authority.issue("server")) as address:
            code, said = run(capsys, address, *options_of(strangers))
        assert code == FAILED
        assert f"not of the authority in {strangers.path}" in said

    def test_an_expired_server(
        self, tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with serving(tmp_path, authority.issue("old", expired=True)) as address:
            code, said = run(capsys, address, *options_of(authority))
        assert code == FAILED
        assert "certificate is out of date" in said

    def test_another_name(
        self, tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with serving(tmp_path, authority.issue("else", hosts=("granulo.example",))) as address:
            code, said = run(capsys, address, *options_of(authority))
        assert code == FAILED
        assert "for another name than 127.0.0.1" in said

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("none", "asks for a client certificate: give --client-cert and --client-key"),
            ("expired", "late.pem: the certificate has expired, or"),
            ("stranger", "stranger.pem: the certificate has expired, or is not of the authority"),
        ],
    )
    def test_the_clients_certificate(
        self,
        tmp_path: Path,
        authority: Authority,
        strangers: Authority,
        capsys: pytest.CaptureFixture[str],
        kind: str,
        expected: str,
    ) -> None:
        pairs = {
            "none": None,
            "expired": authority.issue("late", expired=True),
            "stranger": strangers.issue("stranger"),
        }
        pair = authority.issue("server")
        with serving(tmp_path, pair, tls_client_ca=str(authority.path)) as address:
            code, said = run(capsys, address, *options_of(authority, pairs[kind]))
        assert code == FAILED
        assert expected in said

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (["--client-cert", "ca"], "belong together"),
            (["--client-cert", "ca", "--client-key", "ca"], "give --tls-ca, too"),
            (["--tls-ca", "nowhere"], "nowhere cannot be read"),
            (["--tls-ca", "rubbish"], "is no PEM file"),
            (["--token-file", "empty"], "holds no token"),
            (["--token-file", "rubbish", "--server", "granulo.example:1"], "unencrypted"),
        ],
    )
    def test_options_are_refused_before_anything_is_sent(
        self,
        tmp_path: Path,
        authority: Authority,
        capsys: pytest.CaptureFixture[str],
        options: list[str],
        expected: str,
    ) -> None:
        (tmp_path / "rubbish").write_text("rubbish")
        (tmp_path / "empty").write_text("\n")
        names = {"ca": authority.path} | {n: tmp_path / n for n in ("nowhere", "rubbish", "empty")}
        code, said = run(capsys, "127.0.0.1:1", *(names.get(word, word) for word in options))
        assert code == USAGE
        assert expected in said


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.yaml"
    digest = hashlib.sha256(b"good").hexdigest()
    path.write_text(yaml.safe_dump([{"sha256": digest, "subject": "ann", "roles": ["read"]}]))
    return path


def test_a_token_opens_what_its_role_may(
    tmp_path: Path, authority: Authority, tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "token"
    token.write_text("good\n")
    pair = authority.issue("server")
    with serving(tmp_path, pair, auth="token", auth_tokens_file=str(tokens)) as address:
        encrypted = options_of(authority)
        assert run(capsys, address, *encrypted, "--token-file", token) == (0, "")
        code, said = run(capsys, address, *encrypted)
        assert (code, "give one" in said.lower()) == (FAILED, True)
        token.write_text("wrong")
        code, said = run(capsys, address, *encrypted, "--token-file", token)
        assert code == FAILED
        assert "unknown to this server" in said
        assert "wrong" not in said
        token.write_text("good")
        words = ["operations", "cancel", "operations/render/x", "--json", "--server", address]
        code = run_command([*words, *map(str, encrypted), "--token-file", str(token)])
        written = capsys.readouterr().out
        document = json.loads(written[written.index("{") :])  # behind the server's own log
        assert (code, document["error"]["reason"]) == (FAILED, "ROLE_MISSING")


def test_a_token_file_may_be_replaced_under_a_client(
    tmp_path: Path, authority: Authority, tokens: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("wrong")
    pair = authority.issue("server")
    security = Security(tls_ca=authority.path, token_file=token)
    with (
        serving(tmp_path, pair, auth="token", auth_tokens_file=str(tokens)) as address,
        Client(address, security=security) as client,
    ):
        with pytest.raises(UnauthenticatedError):
            list(client.operations.list())
        token.write_text("good")
        assert list(client.operations.list()) == []


def test_shown_settings_name_files_and_hold_no_secret(
    data_dir: Path,
    authority: Authority,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = tmp_path / "token"
    token.write_text("the-token")
    pair = authority.issue("shown")
    for name, value in {
        "TLS_CERT": pair.cert,
        "TLS_KEY": pair.key,
        "AUTH_TOKEN_FILE": token,
        "S3_ACCESS_KEY": "the-access-key",
        "S3_SECRET_KEY": "the-secret-key",
    }.items():
        monkeypatch.setenv(f"GRANULO_{name}", str(value))
    assert run_command(["config", "show", "--data", str(data_dir), "--json"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["analyzer"]["tls_key"] == str(pair.key)
    for secret in ("the-token", "the-access-key", "the-secret-key", "PRIVATE KEY"):
        assert secret not in shown
    monkeypatch.setenv("GRANULO_TLS_KEY", str(token))
    assert run_command(["config", "show", "--data", str(data_dir)]) == USAGE
    said = capsys.readouterr().err
    assert "GRANULO_TLS_CERT" in said
    assert "the-token" not in said


def test_a_standalone_says_itself_that_it_speaks_tls(
    data_dir: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = authority.issue("standalone")
    monkeypatch.setenv("GRANULO_TLS_CERT", str(pair.cert))
    monkeypatch.setenv("GRANULO_TLS_KEY", str(pair.key))
    running = Standalone.join(data_dir)
    try:
        with pytest.raises(UsageError, match="--tls-ca"):
            Client.standalone(data_dir)
        with Client.standalone(data_dir, security=Security(tls_ca=authority.path)) as client:
            assert {preset.id for preset in client.presets()} >= {"sio2"}
    finally:
        running.leave()
