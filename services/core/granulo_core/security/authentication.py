# SPDX-License-Identifier: GPL-3.0-or-later
"""From a call's metadata to its caller."""

from collections.abc import Mapping
from typing import Protocol

from granulo_core.errors import GranuloError, Reason
from granulo_core.security.access import ANYBODY, METHODS, Identity, Role, check_allowed
from granulo_core.security.settings import SecuritySettings

AUTHORIZATION = "authorization"
_SCHEME = "bearer"
_MAX_TOKEN_LENGTH = 16_384
_NOBODY = Identity("nobody", Role.NONE)


class Authenticator(Protocol):
    """Knows tokens."""

    def identify(self, token: str) -> Identity:
        """Return the owner of a token; raise TOKEN_INVALID where there is none."""


class Gate:
    """Lets callers in.

    Parameters
    ----------
    authenticator : Authenticator, optional
        Without one everybody may do everything.
    """

    def __init__(self, authenticator: Authenticator | None) -> None:
        self._authenticator = authenticator

    def admit(self, method: str, metadata: Mapping[str, str | bytes]) -> Identity:
        """Return the caller of a method.

        Parameters
        ----------
        method : str
            Full name, ``/package.Service/Method``.
        metadata : mapping
            Of the call.

        Raises
        ------
        GranuloError
            TOKEN_MISSING, TOKEN_INVALID, ROLE_MISSING, or IDENTITY_PROVIDER_UNAVAILABLE.
        """
        if self._authenticator is None:
            return ANYBODY
        if METHODS.get(method) is Role.NONE:
            return _NOBODY
        identity = self._authenticator.identify(_bearer(metadata))
        check_allowed(identity, method)
        return identity


def make_gate(settings: SecuritySettings) -> Gate:
    """The gate that the settings ask for.

    Raises
    ------
    GranuloError
        FIELD_INVALID for an unusable file of tokens or keys.
    """
    if settings.auth == "token":
        from granulo_core.security.tokens import StaticTokens

        return Gate(StaticTokens(settings.auth_tokens_file))
    if settings.auth == "oidc":
        # Only who uses it pays for importing its library.
        from granulo_core.security.oidc import OidcTokens

        return Gate(OidcTokens(settings))
    return Gate(None)


def _bearer(metadata: Mapping[str, str | bytes]) -> str:
    header = metadata.get(AUTHORIZATION, "")
    scheme, _, token = (header if isinstance(header, str) else "").partition(" ")
    if scheme.lower() != _SCHEME or not token.strip():
        raise GranuloError(
            Reason.TOKEN_MISSING,
            "This server asks for a token in the metadata `authorization: Bearer …`. Give one, "
            "e.g. `granulo --token-file FILE`.",
        )
    if len(token) > _MAX_TOKEN_LENGTH:
        raise token_invalid("is longer than any that this server knows")
    return token.strip()


def token_invalid(fault: str) -> GranuloError:
    """Make the error for a token; the fault must not repeat it."""
    return GranuloError(
        Reason.TOKEN_INVALID,
        f"The token {fault}. Get a new one from who manages access to this server.",
    )
