# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of servers and clients: checked at the start, read again when their files change."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import structlog
from cryptography import x509

from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.security.settings import SecuritySettings
from granulo_core.security.watched import Watched

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Certificates:
    """PEM bytes: one's own certificate and key, and the authority of the other side's.

    Each may be empty.
    """

    cert: bytes
    key: bytes
    authority: bytes


def check_server(settings: SecuritySettings) -> None:
    """Raise FIELD_INVALID where the server's files are unusable or do not belong together."""
    _read("tls_cert", settings.tls_cert, settings.tls_key, "tls_client_ca", settings.tls_client_ca)


def check_client(settings: SecuritySettings) -> None:
    """Raise FIELD_INVALID where the files for calls are unusable or do not belong together."""
    _read("tls_client_cert", settings.tls_client_cert, settings.tls_client_key,
          "tls_ca", settings.tls_ca)  # fmt: skip


def server_credentials(settings: SecuritySettings) -> grpc.ServerCredentials | None:
    """Credentials for the server's port, asked for their files at every handshake.

    Returns
    -------
    ServerCredentials or None
        None where the settings name no certificate: plaintext.
    """
    if not settings.tls_cert:
        return None
    files = [settings.tls_cert, settings.tls_key, settings.tls_client_ca]
    watched = Watched([path for path in files if path], lambda: _server_certificates(settings))
    in_use = watched.get()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal in_use
        found = watched.get()
        if found is in_use:
            return None
        in_use = found
        return _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(in_use),
        changed,  # type: ignore[arg-type]  # None is "as it was", whatever the stubs say
        require_client_authentication=bool(settings.tls_client_ca),
    )


def client_certificates(settings: SecuritySettings) -> Watched[Certificates] | None:
    """What calls to other servers need; None where they are plaintext."""
    if not settings.tls_ca:
        return None
    files = [settings.tls_ca, settings.tls_client_cert, settings.tls_client_key]
    return Watched(
        [path for path in files if path],
        lambda: _read("tls_client_cert", settings.tls_client_cert, settings.tls_client_key,
                      "tls_ca", settings.tls_ca),
    )  # fmt: skip


def channel_credentials(found: Certificates) -> grpc.ChannelCredentials:
    """Credentials of a channel."""
    return grpc.ssl_channel_credentials(
        root_certificates=found.authority,
        private_key=found.key or None,
        certificate_chain=found.cert or None,
    )


def _server_certificates(settings: SecuritySettings) -> Certificates:
    found = _read("tls_cert", settings.tls_cert, settings.tls_key,
                  "tls_client_ca", settings.tls_client_ca)  # fmt: skip
    try:
        end = x509.load_pem_x509_certificates(found.cert)[0].not_valid_after_utc
    except ValueError as error:
        raise _invalid("tls_cert", f"{settings.tls_cert} is no X.509 certificate") from error
    tell = _log.info if end > datetime.now(UTC) else _log.error
    tell("server certificate", path=settings.tls_cert, valid_until=end.isoformat())
    return found


def _configuration(found: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(found.key, found.cert)], root_certificates=found.authority or None
    )


def _read(
    cert_field: str, cert: str, key: str, authority_field: str, authority: str
) -> Certificates:
    """Read the files; the standard library's TLS knows whether key and certificate match."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        if cert and key:
            # Without the callback it would ask the terminal for an encrypted key's password.
            context.load_cert_chain(cert, key, password=lambda: "")
    except OSError as error:
        raise _invalid(
            cert_field,
            f"{cert} and the key {key} are no unencrypted PEM files that belong together "
            f"({_cause(error)})",
        ) from error
    try:
        if authority:
            context.load_verify_locations(cafile=authority)
    except OSError as error:
        raise _invalid(
            authority_field, f"{authority} holds no PEM certificates ({_cause(error)})"
        ) from error
    try:
        return Certificates(*(Path(path).read_bytes() if path else b""
                              for path in (cert, key, authority)))  # fmt: skip
    except OSError as error:
        raise _invalid(cert_field, f"{error.filename} cannot be read: {error.strerror}") from error


def _invalid(field: str, fault: str) -> Exception:
    return invalid_fields([FieldViolation(field, f"{fault}.")])


def _cause(error: OSError) -> str:
    return error.reason if isinstance(error, ssl.SSLError) and error.reason else str(error)
