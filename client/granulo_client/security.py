# SPDX-License-Identifier: Apache-2.0
"""Encryption and the caller's token for channels of the client."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from granulo_client.errors import UsageError
from granulo_client.interceptors import HandsTraceOn, SendsToken


@dataclass(frozen=True)
class Security:
    """Files by which client and server know each other.

    Raises
    ------
    UsageError
        A file cannot be read, or one of them makes no sense without another.
    """

    tls_ca: Path | None = None
    """PEM file with the authority of the server's certificate; without it calls are plaintext."""
    client_cert: Path | None = None
    """PEM file with the certificate to show, where the server asks for one."""
    client_key: Path | None = None
    """PEM file with its private key."""
    token_file: Path | None = None
    """File with the token to send; read again at every call, so that it may be replaced."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, before anything is sent."""
        if (self.client_cert is None) != (self.client_key is None):
            raise UsageError("--client-cert and --client-key belong together; give both or none.")
        if self.client_cert and not self.tls_ca:
            raise UsageError("--client-cert is shown over TLS only; give --tls-ca, too.")
        for option, path in (
            ("--tls-ca", self.tls_ca),
            ("--client-cert", self.client_cert),
            ("--client-key", self.client_key),
        ):
            if path and b"-----BEGIN " not in _read(option, path):
                raise UsageError(f"{option}: {path} is no PEM file.")
        if self.token_file:
            self.token()

    @property
    def is_encrypted(self) -> bool:
        """Whether calls go over TLS."""
        return self.tls_ca is not None

    def token(self) -> str:
        """The token, as the file has it now.

        Raises
        ------
        UsageError
            The file cannot be read or holds none.
        """
        assert self.token_file is not None
        token = _read("--token-file", self.token_file).decode(errors="replace").strip()
        if not token or not token.isascii() or not token.isprintable():
            raise UsageError(f"--token-file: {self.token_file} holds no token.")
        return token

    def open(self, address: str, options: Sequence[tuple[str, Any]]) -> grpc.Channel:
        """Open a channel.

        Parameters
        ----------
        address : str
        options : sequence of (str, value)
            Arguments of gRPC.

        Raises
        ------
        UsageError
            The token would leave this machine unencrypted.
        """
        if self.tls_ca is None:
            if self.token_file and not _is_loopback(address):
                raise UsageError(
                    f"The token would go to {address} unencrypted. Give --tls-ca, so that the "
                    "server is called over TLS."
                )
            channel = grpc.insecure_channel(address, options)
        else:
            channel = grpc.secure_channel(address, self._credentials(self.tls_ca), options)
        if self.token_file is not None:
            channel = grpc.intercept_channel(channel, SendsToken(self.token))
        return grpc.intercept_channel(channel, HandsTraceOn())

    def _credentials(self, authority: Path) -> grpc.ChannelCredentials:
        cert, key = self.client_cert, self.client_key
        return grpc.ssl_channel_credentials(
            root_certificates=_read("--tls-ca", authority),
            private_key=_read("--client-key", key) if key else None,
            certificate_chain=_read("--client-cert", cert) if cert else None,
        )


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{option}: {path} cannot be read: {error.strerror}.") from error


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    return address.startswith("unix:") or host in ("localhost", "::1") or host.startswith("127.")
