# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens of an OpenID Connect provider: signed JWTs, checked with the provider's public keys."""

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import structlog

from granulo_core.errors import FieldViolation, GranuloError, Reason, invalid_fields
from granulo_core.security.access import TENANT, Identity, highest
from granulo_core.security.authentication import token_invalid
from granulo_core.security.settings import SecuritySettings
from granulo_core.security.watched import Watched

_log = structlog.get_logger(__name__)
# Asymmetric ones only: with HS256 the provider's public key would do as a secret.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
_LEEWAY_S = 30.0
_KEYS_GOOD_FOR_S = 300.0
_SHORTEST_PAUSE_S = 10.0
"""Between questions to the provider, however many unknown keys the tokens of callers name."""
_FETCH_TIMEOUT_S = 5.0


class OidcTokens:
    """JWTs of one issuer for one audience.

    Parameters
    ----------
    settings : SecuritySettings

    Raises
    ------
    GranuloError
        FIELD_INVALID for an unusable file of keys. A URL is asked at the first call.
    """

    def __init__(self, settings: SecuritySettings) -> None:
        self._settings = settings
        source = settings.oidc_jwks
        self._keys: _FileKeys | _RemoteKeys = (
            _RemoteKeys(source) if source.startswith(("https:", "http:")) else _FileKeys(source)
        )

    def identify(self, token: str) -> Identity:
        """Return the owner of a token; raise TOKEN_INVALID where something about it is wrong."""
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            claims = jwt.decode(
                token,
                self._keys.find(kid),
                algorithms=_ALGORITHMS,
                audience=self._settings.oidc_audience,
                issuer=self._settings.oidc_issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise token_invalid("has expired") from None
        except jwt.InvalidAudienceError:
            raise token_invalid("is for another audience than this server") from None
        except jwt.InvalidIssuerError:
            raise token_invalid("is of another issuer than this server trusts") from None
        except jwt.PyJWTError as error:
            raise token_invalid(f"is no valid JWT ({type(error).__name__})") from None
        role = highest(_names(_claim(claims, self._settings.oidc_roles_claim)))
        return Identity(str(claims["sub"]), role, self._tenant(claims))

    def _tenant(self, claims: Mapping[str, Any]) -> str:
        name = self._settings.oidc_tenant_claim
        if not name:
            return ""
        tenant = _claim(claims, name)
        # Without one it would get the store of those who have none.
        if not isinstance(tenant, str) or not TENANT.fullmatch(tenant):
            raise token_invalid(
                f"has no usable tenant in its claim {name} (letters a to z, digits, hyphens)"
            )
        return tenant


class _FileKeys:
    """Keys in a file."""

    def __init__(self, path: str) -> None:
        self._set = Watched([path], lambda: _read(path))

    def find(self, kid: str | None) -> jwt.PyJWK:
        """The key of a name; a set of one key needs no names."""
        return _find(self._set.get(), kid)


class _RemoteKeys:
    """Keys at a URL, asked for when they are old or a token names one that is not among them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=_FETCH_TIMEOUT_S)
        self._lock = threading.Lock()
        self._set: jwt.PyJWKSet | None = None
        self._fetched_s = self._tried_s = float("-inf")

    def find(self, kid: str | None) -> jwt.PyJWK:
        """The key of a name."""
        with self._lock:
            if time.monotonic() - self._fetched_s > _KEYS_GOOD_FOR_S:
                self._fetch()
            found = self._set
        if found is None:
            raise GranuloError(
                Reason.IDENTITY_PROVIDER_UNAVAILABLE,
                f"The keys at {self._url} cannot be had, so that no token can be checked; the "
                "server's log says why.",
                retry_after_s=_SHORTEST_PAUSE_S,
            )
        try:
            return _find(found, kid)
        except GranuloError:
            with self._lock:
                self._fetch()
                found = self._set or found
            return _find(found, kid)

    def _fetch(self) -> None:
        """Ask, unless that was done a moment ago; what cannot be had leaves the old keys in use."""
        if time.monotonic() - self._tried_s < _SHORTEST_PAUSE_S:
            return
        self._tried_s = time.monotonic()
        try:
            self._set = self._client.get_jwk_set()
            self._fetched_s = time.monotonic()
        except (jwt.PyJWTError, OSError, ValueError) as error:
            _log.error("keys of the identity provider not read", url=self._url, error=str(error))


def _find(keys: jwt.PyJWKSet, kid: str | None) -> jwt.PyJWK:
    fitting = [key for key in keys.keys if kid in (None, key.key_id)]
    if len(fitting) != 1:
        raise token_invalid("is signed by a key that this server does not know")
    return fitting[0]


def _read(path: str) -> jwt.PyJWKSet:
    try:
        return jwt.PyJWKSet.from_dict(json.loads(Path(path).read_text()))
    except (OSError, ValueError, AttributeError, jwt.PyJWTError) as error:
        raise invalid_fields(
            [
                FieldViolation(
                    "GRANULO_OIDC_JWKS",
                    f"{path} is no file of public keys (JWKS): {error}.",
                )
            ]
        ) from error


def _names(roles: Any) -> list[str]:
    """Role names, as a list or as words; providers differ."""
    if isinstance(roles, str):
        return roles.split()
    if isinstance(roles, list):
        return [name for name in roles if isinstance(name, str)]
    return []


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    value: Any = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
