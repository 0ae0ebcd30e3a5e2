# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of encryption, authentication and limits, and which of them do not go together."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field
from pydantic_settings import BaseSettings

from granulo_core.errors import FieldViolation, GranuloError
from granulo_core.security.addresses import is_loopback

_OIDC = ("oidc_issuer", "oidc_audience", "oidc_jwks")


class SecuritySettings(BaseSettings):
    """What `CoreSettings` says about who may talk to a service, and how services talk.

    All values are names of files and addresses: no secret is a setting.
    """

    tls_cert: str = ""
    """PEM file with the server's certificate and its chain; without it the server speaks
    plaintext."""
    tls_key: str = ""
    """PEM file with its private key."""
    tls_client_ca: str = ""
    """PEM file with the authority of client certificates: from then on each client needs one."""
    tls_ca: str = ""
    """PEM file with the authority of servers that are called; without it calls are plaintext."""
    tls_client_cert: str = ""
    """PEM file with the certificate to show to servers that are called."""
    tls_client_key: str = ""
    """PEM file with its private key."""
    auth_token_file: str = ""
    """File with the token to send to services that are called."""
    auth: Literal["none", "token", "oidc"] = "none"
    """How callers prove who they are."""
    auth_tokens_file: str = ""
    """YAML file with the known tokens, for ``token``."""
    oidc_issuer: str = ""
    """``iss`` of accepted tokens, for ``oidc``."""
    oidc_audience: str = ""
    """``aud`` of accepted tokens."""
    oidc_jwks: str = ""
    """The issuer's public keys: a file, or an https URL."""
    oidc_roles_claim: str = "roles"
    """Claim with the roles; dots go into objects (``realm_access.roles``)."""
    oidc_tenant_claim: str = ""
    """Claim with the tenant, which every token must then have; without it all share the store."""
    reflection: bool = True
    """Whether servers describe their methods to anybody who may read."""
    health_listen: str = ""
    """``host:port`` of a second, plaintext port that serves ``grpc.health.v1`` and nothing else."""
    max_upload_bytes: int = Field(default=8 << 30, ge=1)
    """Largest upload."""
    max_connection_idle_s: float = Field(default=300.0, ge=1.0)
    """Connections without a call are closed after so long, and those that never shook hands."""
    max_connection_age_s: float = Field(default=0.0, ge=0.0)
    """Connections are closed after so long, so that new certificates and balancing take hold; 0
    never. Calls that run then have a minute to end."""
    max_connections: int = Field(default=0, ge=0)
    """Connections at once; 0 takes half of the files that the process may open."""
    presign_endpoint: str = ""
    """``https://host`` of the S3 service as clients reach it; presigned URLs are off without it."""
    presign_expiry_s: int = Field(default=900, ge=1, le=7 * 24 * 3600)
    """How long presigned URLs are good for."""

    def security_violations(self, listen: str) -> list[FieldViolation]:
        """What is wrong with these settings, or does not go together.

        Parameters
        ----------
        listen : str
            Where the server will listen.
        """
        return [
            FieldViolation(f"GRANULO_{field.upper()}", f"{fault}.")
            for faults in (self._pairs(), self._who(listen), self._sources(), self._files())
            for field, fault in faults
        ]

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for cert, key in (("tls_cert", "tls_key"), ("tls_client_cert", "tls_client_key")):
            for field, other in ((cert, key), (key, cert)):
                if not getattr(self, field) and getattr(self, other):
                    yield field, f"is required beside {other}; set both or none"
        if self.tls_client_ca and not self.tls_cert:
            yield "tls_client_ca", "asks for client certificates, which needs tls_cert and tls_key"
        if self.tls_client_cert and not self.tls_ca:
            yield "tls_client_cert", "is shown over TLS only; set tls_ca, too"

    def _who(self, listen: str) -> Iterator[tuple[str, str]]:
        if self.auth == "token" and not self.auth_tokens_file:
            yield "auth_tokens_file", "is required by auth=token"
        if self.auth != "token" and self.auth_tokens_file:
            yield "auth_tokens_file", f"has no effect with auth={self.auth}; set auth=token"
        for field in _OIDC:
            if self.auth == "oidc" and not getattr(self, field):
                yield field, "is required by auth=oidc"
            if self.auth != "oidc" and getattr(self, field):
                yield field, f"has no effect with auth={self.auth}; set auth=oidc"
        if self.auth != "none" and not self.tls_cert and not is_loopback(listen):
            yield (
                "tls_cert",
                (
                    f"is required: auth={self.auth} on {listen} would take tokens over an "
                    "unencrypted network. Set tls_cert and tls_key, or listen on 127.0.0.1"
                ),
            )
        if self.health_listen and self.health_listen == listen and not listen.endswith(":0"):
            yield "health_listen", "must be another port than listen"

    def _sources(self) -> Iterator[tuple[str, str]]:
        jwks = urlsplit(self.oidc_jwks)
        if jwks.scheme == "http" and not is_loopback(jwks.netloc):
            yield (
                "oidc_jwks",
                "must be a file or an https URL: keys that came in clear prove nothing",
            )
        endpoint = urlsplit(self.presign_endpoint)
        if self.presign_endpoint and (
            endpoint.scheme not in ("http", "https") or not endpoint.netloc or endpoint.path
        ):
            yield "presign_endpoint", "must have the form https://host or https://host:port"

    def _files(self) -> Iterator[tuple[str, str]]:
        for field in (
            "tls_cert", "tls_key", "tls_client_ca", "tls_ca", "tls_client_cert", "tls_client_key",
            "auth_token_file", "auth_tokens_file",
        ):  # fmt: skip
            if path := getattr(self, field):
                try:
                    with Path(path).open("rb"):
                        pass
                except OSError as error:
                    yield field, f"names {path}, which cannot be read: {error.strerror}"
                    return
        # Only now: what they hold.
        from granulo_core.security import tls

        for check in (tls.check_server, tls.check_client):
            try:
                check(self)
            except GranuloError as error:
                for violation in error.violations:
                    yield violation.field, violation.description.rstrip(".")
