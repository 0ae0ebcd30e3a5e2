# SPDX-License-Identifier: Apache-2.0
"""Why a server cannot be reached over TLS: gRPC says only that it is unavailable."""

import socket
import ssl

from granulo_client.security import Security

_TIMEOUT_S = 3.0
_ANSWER_S = 1.0
"""How long a server takes at most to refuse a client's certificate after the handshake."""


def diagnose(address: str, security: Security) -> str:
    """Connect once more and say what is wrong with encryption or certificates.

    Parameters
    ----------
    address : str
        ``host:port``
    security : Security

    Returns
    -------
    str
        A sentence on what to do; empty where nothing is wrong, or nobody answers at all.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not port.isdigit():
        return ""
    try:
        connection = socket.create_connection((host, int(port)), timeout=_TIMEOUT_S)
    except OSError:
        return ""
    with connection:
        if security.tls_ca is None:
            return _of_plaintext(connection)
        return _of_tls(connection, host, security)


def _of_plaintext(connection: socket.socket) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with context.wrap_socket(connection):
            return "It speaks TLS: give the authority of its certificate with --tls-ca FILE."
    except OSError:
        return ""


def _of_tls(connection: socket.socket, host: str, security: Security) -> str:
    try:
        context = ssl.create_default_context(cafile=security.tls_ca)
        context.set_alpn_protocols(["h2"])
    except OSError:
        return f"{security.tls_ca} holds no certificates that could be used (--tls-ca)."
    if security.client_cert and security.client_key:
        try:
            context.load_cert_chain(security.client_cert, security.client_key, lambda: "")
        except OSError:
            return (
                f"{security.client_cert} and {security.client_key} are no certificate and its "
                "unencrypted key (--client-cert, --client-key)."
            )
    try:
        with context.wrap_socket(connection, server_hostname=host) as encrypted:
            # With TLS 1.3 a server refuses a client's certificate only after the handshake; gRPC's
            # hangs up then without a word, where it would send its HTTP/2 settings otherwise.
            encrypted.settimeout(_ANSWER_S)
            if not encrypted.recv(1):
                return _of_client(security)
    except ssl.SSLCertVerificationError as error:
        return _of_verification(error, host, security)
    except ssl.SSLError as error:
        return _of_refusal(error, security)
    except TimeoutError:
        return ""
    except OSError:
        return "It ends the connection during the TLS handshake; does it speak TLS at this port?"
    return ""


def _of_verification(error: ssl.SSLCertVerificationError, host: str, security: Security) -> str:
    fault = error.verify_message
    if "expired" in fault or "not yet valid" in fault:
        return f"Its certificate is out of date ({fault}); it needs a new one."
    if "mismatch" in fault or "not valid for" in fault:
        return f"Its certificate is for another name than {host} ({fault})."
    return f"Its certificate is not of the authority in {security.tls_ca} ({fault})."


def _of_refusal(error: ssl.SSLError, security: Security) -> str:
    reason = error.reason or ""
    if reason == "WRONG_VERSION_NUMBER":
        return "It does not speak TLS at this port: leave --tls-ca out, or name its TLS port."
    if "ALERT" in reason and ("CERTIFICATE" in reason or "CA" in reason.split("_")):
        return _of_client(security)
    return f"The TLS handshake failed ({reason or error})."


def _of_client(security: Security) -> str:
    if not security.client_cert:
        return "It asks for a client certificate: give --client-cert and --client-key."
    return (
        f"It refuses {security.client_cert}: the certificate has expired, or is not of the "
        "authority that the server trusts."
    )
