# SPDX-License-Identifier: GPL-3.0-or-later
"""A server's port: how it is bound, and what it takes from connections."""

import resource
from collections.abc import Sequence
from typing import Any

import grpc

from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.security.settings import SecuritySettings

_HANDSHAKE_TIMEOUT_S = 20
"""Who connects and says nothing is sent away after it; gRPC's own limit is two minutes."""
_AGE_GRACE_S = 60
_MANY_FILES = 1 << 20


def server_options(settings: SecuritySettings, max_message_bytes: int) -> Sequence[tuple[str, Any]]:
    """Arguments of gRPC for a server.

    Parameters
    ----------
    settings : SecuritySettings
    max_message_bytes : int
    """
    handshake_s = min(_HANDSHAKE_TIMEOUT_S, settings.max_connection_idle_s)
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # A client that is gone without a word is noticed within 80 s.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # One that pings more often than this is told GOAWAY.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.server_handshake_timeout_ms", int(handshake_s * 1000)),
        ("grpc.max_connection_idle_ms", int(settings.max_connection_idle_s * 1000)),
        # Two servers on one port would share its calls silently.
        ("grpc.so_reuseport", 0),
        # Connections that nobody accepts would otherwise take the files of those that are served.
        ("grpc.max_allowed_incoming_connections", settings.max_connections or _open_files() // 2),
    ]
    if settings.max_connection_age_s:
        options += [
            ("grpc.max_connection_age_ms", int(settings.max_connection_age_s * 1000)),
            ("grpc.max_connection_age_grace_ms", _AGE_GRACE_S * 1000),
        ]
    return options


def _open_files() -> int:
    """How many files this process may open; from now on as many as it may allow itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return _MANY_FILES if hard == resource.RLIM_INFINITY else hard


def bind(
    server: grpc.Server,
    listen: str,
    credentials: grpc.ServerCredentials | None,
    field: str = "listen",
) -> int:
    """Give a server its port, encrypted where there are credentials.

    Returns
    -------
    int
        The port.

    Raises
    ------
    GranuloError
        FIELD_INVALID when the address cannot be bound.
    """
    try:
        if credentials is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, credentials)
    except RuntimeError:
        port = 0
    if port == 0 or not listen.rpartition(":")[0]:
        text = (
            f"{listen} cannot be bound: it is no host:port of this machine, or another "
            "program has the port. Choose another port; 0 takes a free one."
        )
        raise invalid_fields([FieldViolation(field, text)])
    return port
