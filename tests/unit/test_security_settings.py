# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that do not go together are refused at the start, each by its name."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granulo_core.errors import GranuloError
from granulo_core.security.addresses import is_loopback
from granulo_core.security.tls import server_credentials
from granulo_core.settings import CoreSettings

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from certificates import Authority

TOKENS = "- {sha256: " + "0" * 64 + ", subject: a, roles: [read]}\n"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GRANULO_"):
            monkeypatch.delenv(name)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Usable files by a short name."""
    authority = Authority(tmp_path)
    server, client = authority.issue("server"), authority.issue("client")
    made = {
        "ca": authority.path, "cert": server.cert, "key": server.key,
        "client_cert": client.cert, "client_key": client.key,
    }  # fmt: skip
    for name, text in (
        ("tokens", TOKENS),
        ("sent", "x\n"),
        ("jwks", "{}"),
        ("rubbish", "rubbish"),
    ):
        made[name] = tmp_path / name
        made[name].write_text(text)
    return made


def refused(files: dict[str, Path], **settings: str) -> set[str]:
    """Names of the settings that the error is about."""
    chosen = {name: str(files.get(value, value)) for name, value in settings.items()}
    with pytest.raises(GranuloError) as caught:
        CoreSettings.load(**chosen)
    return {v.field.removeprefix("GRANULO_").lower() for v in caught.value.violations}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"tls_cert": "cert"}, {"tls_key"}),
        ({"tls_key": "key"}, {"tls_cert"}),
        ({"tls_client_ca": "ca"}, {"tls_client_ca"}),
        ({"tls_client_cert": "client_cert", "tls_ca": "ca"}, {"tls_client_key"}),
        ({"tls_client_cert": "client_cert", "tls_client_key": "client_key"}, {"tls_client_cert"}),
        ({"tls_cert": "cert", "tls_key": "client_key"}, {"tls_cert"}),
        ({"tls_cert": "rubbish", "tls_key": "key"}, {"tls_cert"}),
        ({"tls_cert": "cert", "tls_key": "key", "tls_client_ca": "rubbish"}, {"tls_client_ca"}),
        ({"tls_ca": "rubbish"}, {"tls_ca"}),
        ({"tls_ca": "/nowhere"}, {"tls_ca"}),
        ({"auth": "token"}, {"auth_tokens_file"}),
        ({"auth_tokens_file": "tokens"}, {"auth_tokens_file"}),
        ({"auth": "oidc"}, {"oidc_issuer", "oidc_audience", "oidc_jwks"}),
        ({"oidc_issuer": "https://id"}, {"oidc_issuer"}),
        (
            {
                "auth": "oidc",
                "oidc_issuer": "i",
                "oidc_audience": "a",
                "oidc_jwks": "http://id/keys",
            },
            {"oidc_jwks"},
        ),
        ({"auth": "token", "auth_tokens_file": "tokens", "listen": "0.0.0.0:8080"}, {"tls_cert"}),
        ({"listen": "127.0.0.1:8080", "health_listen": "127.0.0.1:8080"}, {"health_listen"}),
        ({"presign_endpoint": "s3.example.com"}, {"presign_endpoint"}),
        ({"max_connection_idle_s": "0"}, {"max_connection_idle_s"}),
    ],
)
def test_what_does_not_go_together_is_named(
    files: dict[str, Path], settings: dict[str, str], named: set[str]
) -> None:
    assert refused(files, **settings) == named


def test_what_goes_together_is_taken(files: dict[str, Path]) -> None:
    settings = CoreSettings.load(
        listen="0.0.0.0:8080",
        health_listen="0.0.0.0:8081",
        tls_cert=str(files["cert"]),
        tls_key=str(files["key"]),
        tls_client_ca=str(files["ca"]),
        tls_ca=str(files["ca"]),
        tls_client_cert=str(files["client_cert"]),
        tls_client_key=str(files["client_key"]),
        auth="token",
        auth_tokens_file=str(files["tokens"]),
        auth_token_file=str(files["sent"]),
    )
    assert server_credentials(settings) is not None


def test_shown_settings_hold_names_of_files_and_no_content(files: dict[str, Path]) -> None:
    settings = CoreSettings.load(tls_cert=str(files["cert"]), tls_key=str(files["key"]))
    shown = str(settings.shown())
    assert str(files["key"]) in shown
    assert "PRIVATE" not in shown


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:1",
        "127.8.8.8:1",
        "localhost:1",
        "[::1]:1",
        "::1",
        "unix:/run/x",
        "dns:///localhost:1",
    ],
)
def test_loopback_is_told(address: str) -> None:
    assert is_loopback(address)


@given(st.ip_addresses(v=4), st.integers(1, 65535))
def test_other_addresses_are_not_loopback(address: object, port: int) -> None:
    if not str(address).startswith("127."):
        assert not is_loopback(f"{address}:{port}")


@pytest.mark.parametrize(
    "address", ["localhost.evil.org:1", "127.0.0.1.evil.org:1", "", ":1", "[::]:1"]
)
def test_names_that_look_like_it_are_not(address: str) -> None:
    assert not is_loopback(address)
