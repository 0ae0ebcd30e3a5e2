# SPDX-License-Identifier: GPL-3.0-or-later
"""Channels between services: one per target, encrypted and with a token where the settings say so.

A service that answers a call on behalf of its caller hands the caller's token on, so that the
next one acts for the same tenant: ``stub.Method(request, metadata=on_behalf_of(context))``.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc

from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.rpc.outgoing import HandsContextOn, SendsToken
from granulo_core.rpc.renewed import RenewedChannel
from granulo_core.security import tls
from granulo_core.security.addresses import is_loopback
from granulo_core.security.authentication import AUTHORIZATION
from granulo_core.security.settings import SecuritySettings
from granulo_core.security.watched import Watched

MAX_MESSAGE_BYTES = 8 * 1024 * 1024

_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "3s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
_OPTIONS: Mapping[str, Any] = {
    "grpc.service_config": json.dumps(_SERVICE_CONFIG),
    "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.keepalive_time_ms": 60_000,
}


def open_channel(
    target: str,
    security: SecuritySettings | None = None,
    options: Mapping[str, Any] = _OPTIONS,
) -> grpc.Channel:
    """Open a channel to a service; keep it, a channel per call is slow.

    Parameters
    ----------
    target : str
        ``host:port``, or ``unix:PATH``, which is never encrypted.
    security : SecuritySettings, optional
        ``tls_ca`` and its neighbours, and ``auth_token_file``; plaintext without a token where
        absent. Changed files are taken up by the next call.
    options : mapping of str to value
        Arguments of gRPC; by default those of a channel to one of Granulo's services.

    Raises
    ------
    GranuloError
        FIELD_INVALID for unusable files, and where a token would leave this machine unencrypted.
    """
    security = security or SecuritySettings.model_construct()
    arguments = list(options.items())
    token = _token_of(security.auth_token_file) if security.auth_token_file else None
    # What never leaves this machine needs no encryption: file permissions guard it.
    is_socket = target.startswith("unix:")
    certificates = None if is_socket else tls.client_certificates(security)
    if token and certificates is None and not is_loopback(target):
        text = f"is required: the token of auth_token_file would go to {target} unencrypted."
        raise invalid_fields([FieldViolation("GRANULO_TLS_CA", text)])
    if certificates is None:
        channel = grpc.insecure_channel(target, options=arguments)
    else:
        channel = RenewedChannel(
            certificates.get,
            lambda found: grpc.secure_channel(target, tls.channel_credentials(found), arguments),
        )
    if token:
        channel = grpc.intercept_channel(channel, SendsToken(token))
    return grpc.intercept_channel(channel, HandsContextOn())


def on_behalf_of(context: grpc.ServicerContext) -> tuple[tuple[str, str], ...]:
    """Metadata by which a call that is made for another one has the rights of that one's caller."""
    return tuple(
        (key, value)
        for key, value in context.invocation_metadata()
        if key == AUTHORIZATION and isinstance(value, str)
    )


def _token_of(path: str) -> Callable[[], str]:
    def read() -> str:
        try:
            token = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise _unusable(f"names {path}, which cannot be read: {error}.") from error
        if not token or not token.isascii() or not token.isprintable():
            raise _unusable(f"names {path}, which holds no token.")
        return token

    return Watched([path], read).get


def _unusable(text: str) -> Exception:
    return invalid_fields([FieldViolation("GRANULO_AUTH_TOKEN_FILE", text)])
