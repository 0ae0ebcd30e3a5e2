# SPDX-License-Identifier: Apache-2.0
"""Addresses of the services and one channel for each distinct address."""

import json
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

import grpc

from granulo_client.errors import (
    GranuloClientError,
    UnavailableError,
    UsageError,
    from_rpc_error,
)
from granulo_client.security import Security
from granulo_client.tls_diagnosis import diagnose

SERVICES = ("render", "trainer", "segmenter", "analyzer")

_MESSAGE_LIMIT = 8 * 1024 * 1024
# Creations are repeatable too: equal requests meet the same result.
_SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)


def parse_server(text: str) -> dict[str, str]:
    """Read ``HOST:PORT`` or ``render=HOST:PORT,trainer=…`` into addresses by service.

    Raises
    ------
    UsageError
        The text is neither, or names an unknown service.
    """
    if "=" not in text:
        address = text.strip()
        _check_address(address)
        return dict.fromkeys(SERVICES, address)
    routes: dict[str, str] = {}
    for part in text.split(","):
        service, _, address = (word.strip() for word in part.partition("="))
        if service not in SERVICES:
            raise UsageError(
                f"--server names the service {service!r}; known are {', '.join(SERVICES)}."
            )
        _check_address(address)
        routes[service] = address
    return routes


class Channels:
    """Channels to the services, opened at first use.

    Parameters
    ----------
    routes : mapping of str to str
        Address by service; services may share one.
    security : Security, optional
        Plaintext without a token where absent.
    """

    def __init__(self, routes: Mapping[str, str], security: Security | None = None) -> None:
        self.routes = dict(routes)
        self._security = security or Security()
        self._open: dict[str, grpc.Channel] = {}

    def address(self, service: str) -> str:
        """Address of a service.

        Raises
        ------
        UsageError
            No address was given for it.
        """
        if service not in self.routes:
            raise UsageError(
                f"No address of the {service} service is known; "
                f"add {service}=HOST:PORT to --server."
            )
        return self.routes[service]

    def to(self, service: str) -> grpc.Channel:
        """Channel to a service."""
        address = self.address(service)
        if address not in self._open:
            self._open[address] = self._security.open(
                address,
                [
                    ("grpc.service_config", _SERVICE_CONFIG),
                    ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
                    ("grpc.max_send_message_length", _MESSAGE_LIMIT),
                    ("grpc.max_reconnect_backoff_ms", 2000),
                    ("grpc.enable_http_proxy", 0),
                ],
            )
        return self._open[address]

    def failed(self, error: grpc.RpcError, service: str) -> GranuloClientError:
        """The exception for a failed call, which says what is wrong where it is encryption."""
        address = self.address(service)
        found = from_rpc_error(error, address)
        if isinstance(found, UnavailableError) and not found.reason:
            fault = diagnose(address, self._security)
            if fault:
                return UnavailableError(f"The server at {address} cannot be called. {fault}")
        return found

    def one_per_address(self) -> Iterator[str]:
        """One service for every distinct address."""
        seen: set[str] = set()
        for service, address in self.routes.items():
            if address not in seen:
                seen.add(address)
                yield service

    def close(self) -> None:
        """Close all channels."""
        for channel in self._open.values():
            channel.close()
        self._open.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if address.startswith(("unix:", "dns:")):
        return
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(
            f"--server: {address!r} is no address; give HOST:PORT, e.g. 127.0.0.1:50050, "
            "or render=HOST:PORT,trainer=HOST:PORT,segmenter=HOST:PORT,analyzer=HOST:PORT."
        )
