# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom a token belongs to: static tokens, and JWTs of an identity provider."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from granulo_core.errors import GranuloError, Reason
from granulo_core.security import oidc
from granulo_core.security.access import Identity, Role
from granulo_core.security.settings import SecuritySettings
from granulo_core.security.tokens import StaticTokens

ISSUER, AUDIENCE = "https://id.example.org", "granulo"


def entry(token: str, **changes: Any) -> dict[str, Any]:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return {"sha256": digest, "subject": "ann", "roles": ["read"], **changes}


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.yaml"
    path.write_text(yaml.safe_dump([entry("one"), entry("two", roles=["admin"], tenant="acme")]))
    return path


def reason_of(call: Callable[[], object]) -> Reason:
    with pytest.raises(GranuloError) as caught:
        call()
    return caught.value.reason


class TestStatic:
    def test_a_token_has_its_subject_role_and_tenant(self, tokens_file: Path) -> None:
        known = StaticTokens(str(tokens_file))
        assert known.identify("one") == Identity("ann", Role.READ)
        assert known.identify("two") == Identity("ann", Role.ADMIN, "acme")

    def test_an_unknown_token_is_refused_without_being_repeated(self, tokens_file: Path) -> None:
        with pytest.raises(GranuloError) as caught:
            StaticTokens(str(tokens_file)).identify("three-is-secret")
        assert caught.value.reason is Reason.TOKEN_INVALID
        assert "three" not in caught.value.message

    def test_a_digest_is_no_token(self, tokens_file: Path) -> None:
        known = StaticTokens(str(tokens_file))
        digest = entry("one")["sha256"]
        assert reason_of(lambda: known.identify(digest)) is Reason.TOKEN_INVALID

    def test_a_changed_file_counts_from_the_next_call_on(self, tokens_file: Path) -> None:
        known = StaticTokens(str(tokens_file))
        tokens_file.write_text(yaml.safe_dump([entry("new")]))
        assert known.identify("new").subject == "ann"
        assert reason_of(lambda: known.identify("one")) is Reason.TOKEN_INVALID

    def test_a_file_that_breaks_later_changes_nothing(self, tokens_file: Path) -> None:
        known = StaticTokens(str(tokens_file))
        for text in ("- {", "nonsense", ""):
            tokens_file.write_text(text)
            assert known.identify("one").subject == "ann"
        tokens_file.unlink()
        assert known.identify("one").subject == "ann"

    @pytest.mark.parametrize(
        "content",
        [
            [entry("a", sha256="secret-in-clear")],
            [entry("a", roles=["root"])],
            [entry("a", roles=[])],
            [entry("a", tenant="../b")],
            [entry("a", tenant="Acme")],
            [entry("a", password="secret-in-clear")],
            [entry("a"), entry("a")],
            {"a": 1},
            "secret-in-clear: [",
        ],
    )
    def test_an_unusable_file_is_named_and_not_quoted(self, tmp_path: Path, content: Any) -> None:
        path = tmp_path / "tokens.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        with pytest.raises(GranuloError) as caught:
            StaticTokens(str(path))
        assert caught.value.violations[0].field == "GRANULO_AUTH_TOKENS_FILE"
        assert str(path) in caught.value.message
        assert "secret-in-clear" not in caught.value.message


def signed_with(secret: bytes, head: str, body: str) -> str:
    """A JWT by HMAC, made by hand: PyJWT refuses public keys as secrets."""

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    fields = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    head = encoded(json.dumps({**fields, "alg": "HS256"}).encode())
    signature = hmac.digest(secret, f"{head}.{body}".encode(), "sha256")
    return f"{head}.{body}.{encoded(signature)}"


class Provider:
    """An identity provider: keys, and tokens signed with them."""

    def __init__(self) -> None:
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.add("k1")

    def add(self, kid: str) -> None:
        self.keys[kid] = ec.generate_private_key(ec.SECP256R1())

    def jwks(self) -> dict[str, Any]:
        return {
            "keys": [
                {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": "ES256"}
                for kid, key in self.keys.items()
            ]
        }

    def token(self, kid: str = "k1", **changes: Any) -> str:
        claims = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": time.time() + 600,
            "roles": ["submit"], "org": {"tenant": "acme"}, **changes,
        }  # fmt: skip
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(kept, self.keys[kid], "ES256", headers={"kid": kid})


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def jwks_file(tmp_path: Path, provider: Provider) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(provider.jwks()))
    return path


def tokens_of(source: Path | str, **changes: str) -> oidc.OidcTokens:
    return oidc.OidcTokens(
        SecuritySettings.model_construct(
            oidc_issuer=ISSUER, oidc_audience=AUDIENCE, oidc_jwks=str(source), **changes
        )
    )


class TestOidc:
    def test_a_token_has_its_subject_role_and_tenant(
        self, provider: Provider, jwks_file: Path
    ) -> None:
        known = tokens_of(jwks_file, oidc_tenant_claim="org.tenant")
        assert known.identify(provider.token()) == Identity("ann", Role.SUBMIT, "acme")
        assert tokens_of(jwks_file).identify(provider.token()).tenant == ""

    @pytest.mark.parametrize("roles", ["read admin", ["read", "admin"], ["admin", 7]])
    def test_roles_are_a_list_or_words(
        self, provider: Provider, jwks_file: Path, roles: object
    ) -> None:
        found = tokens_of(jwks_file, oidc_roles_claim="realm.roles").identify(
            provider.token(realm={"roles": roles})
        )
        assert found.role is Role.ADMIN

    @pytest.mark.parametrize("roles", [None, [], "root", 7, {"admin": True}])
    def test_no_known_role_is_no_right(
        self, provider: Provider, jwks_file: Path, roles: object
    ) -> None:
        assert tokens_of(jwks_file).identify(provider.token(roles=roles)).role is Role.NONE

    @pytest.mark.parametrize(
        "changes",
        [
            {"exp": 1}, {"exp": None}, {"aud": "other"}, {"aud": None}, {"iss": "https://evil"},
            {"iss": None}, {"sub": None}, {"nbf": 2**40}, {"org": None},
            {"org": {"tenant": 5}}, {"org": {"tenant": ""}}, {"org": {"tenant": "../x"}},
        ],
    )  # fmt: skip
    def test_whatever_is_wrong_with_it_is_refused(
        self, provider: Provider, jwks_file: Path, changes: dict[str, Any]
    ) -> None:
        known = tokens_of(jwks_file, oidc_tenant_claim="org.tenant")
        token = provider.token(**changes)
        assert reason_of(lambda: known.identify(token)) is Reason.TOKEN_INVALID

    @pytest.mark.parametrize("text", ["", "x", "a.b.c", "\u00e9.\u00e9.\u00e9"])
    def test_what_is_no_jwt_is_refused(self, jwks_file: Path, text: str) -> None:
        known = tokens_of(jwks_file)
        assert reason_of(lambda: known.identify(text)) is Reason.TOKEN_INVALID

    def test_signatures_count(self, provider: Provider, jwks_file: Path) -> None:
        known = tokens_of(jwks_file)
        stranger = Provider().token()
        head, body, signature = provider.token().split(".")
        unsigned = jwt.encode({"sub": "ann"}, None, "none")
        # The public key as the secret of a symmetric signature.
        public = json.dumps(provider.jwks()["keys"][0]).encode()
        symmetric = signed_with(public, head, body)
        other_body = provider.token(roles=["admin"]).split(".")[1]
        for token in (stranger, unsigned, symmetric, f"{head}.{other_body}.{signature}"):
            assert reason_of(lambda token=token: known.identify(token)) is Reason.TOKEN_INVALID
        assert known.identify(f"{head}.{body}.{signature}").subject == "ann"

    def test_a_new_key_in_the_file_is_known_at_once(
        self, provider: Provider, jwks_file: Path
    ) -> None:
        known = tokens_of(jwks_file)
        provider.add("k2")
        token = provider.token("k2")
        assert reason_of(lambda: known.identify(token)) is Reason.TOKEN_INVALID
        jwks_file.write_text(json.dumps(provider.jwks()))
        assert known.identify(token).subject == "ann"

    def test_an_unusable_file_of_keys_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "jwks.json"
        path.write_text("[]")
        with pytest.raises(GranuloError) as caught:
            tokens_of(path)
        assert caught.value.violations[0].field == "GRANULO_OIDC_JWKS"


class KeyServer:
    """Serves a provider's keys over HTTP, and counts."""

    def __init__(self, provider: Provider) -> None:
        self.asked = 0
        self.works = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                self.send_response(200 if outer.works else 500)
                self.end_headers()
                self.wfile.write(json.dumps(provider.jwks()).encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def key_server(provider: Provider) -> Iterator[KeyServer]:
    made = KeyServer(provider)
    yield made
    made.close()


class TestKeysAtAUrl:
    def test_they_are_asked_for_once(self, provider: Provider, key_server: KeyServer) -> None:
        known = tokens_of(key_server.url)
        for _ in range(5):
            assert known.identify(provider.token()).subject == "ann"
        assert key_server.asked == 1

    def test_unknown_keys_do_not_make_the_server_ask_again_and_again(
        self, provider: Provider, key_server: KeyServer
    ) -> None:
        known = tokens_of(key_server.url)
        known.identify(provider.token())
        strange = Provider()
        for number in range(20):
            strange.add(f"k-{number}")
            token = strange.token(f"k-{number}")
            assert reason_of(lambda token=token: known.identify(token)) is Reason.TOKEN_INVALID
        assert key_server.asked <= 2

    def test_a_new_key_is_asked_for(
        self, provider: Provider, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = tokens_of(key_server.url)
        known.identify(provider.token())
        monkeypatch.setattr(oidc, "_SHORTEST_PAUSE_S", 0.0)
        provider.add("k2")
        assert known.identify(provider.token("k2")).subject == "ann"

    def test_a_provider_that_does_not_answer_is_no_fault_of_the_token(
        self, provider: Provider, key_server: KeyServer
    ) -> None:
        key_server.works = False
        known = tokens_of(key_server.url)
        with pytest.raises(GranuloError) as caught:
            known.identify(provider.token())
        assert caught.value.reason is Reason.IDENTITY_PROVIDER_UNAVAILABLE
        assert caught.value.retry_after_s

    def test_known_keys_outlive_the_provider(
        self, provider: Provider, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = tokens_of(key_server.url)
        known.identify(provider.token())
        key_server.works = False
        monkeypatch.setattr(oidc, "_SHORTEST_PAUSE_S", 0.0)
        monkeypatch.setattr(oidc, "_KEYS_GOOD_FOR_S", 0.0)
        assert known.identify(provider.token()).subject == "ann"
        assert key_server.asked == 2
