# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m granulo_core.rpc.healthcheck``: asks a server's health port, for containers' probes.

The images have no ``curl`` and no ``grpc_health_probe``; this is the HEALTHCHECK of all of them.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

LIVENESS = "liveness"
"""Name in the health service: SERVING while the process answers, whatever it depends on."""
READINESS = "readiness"
"""Name in the health service: SERVING while everything that the service depends on answers."""

_TIMEOUT_S = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 where the named health service is SERVING, else 1 and say why on standard error."""
    options = _parse(arguments)
    try:
        # The health port is plaintext: who probes has no certificate.
        with grpc.insecure_channel(options.address) as channel:
            request = health_pb2.HealthCheckRequest(service=options.service)
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(request, timeout=_TIMEOUT_S)
    except grpc.RpcError as error:
        sys.stderr.write(f"{options.address}: {error.code().name}: {error.details()}\n")
        return 1
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        state = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        sys.stderr.write(f"{options.address}: {options.service or 'server'} is {state}\n")
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m granulo_core.rpc.healthcheck",
        description="Ask a server's plaintext health port; exits with 0 where it is SERVING.",
    )
    parser.add_argument(
        "--address",
        default=_own_address(os.environ.get("GRANULO_HEALTH_LISTEN", "")),
        help="HOST:PORT; this container's own by default",
    )
    parser.add_argument("--service", default=LIVENESS, help="name in the health service")
    return parser.parse_args(arguments)


def _own_address(listen: str) -> str:
    """Where a server that listens so is reached from its own container."""
    return f"127.0.0.1:{listen.rpartition(':')[2] or '8081'}"


if __name__ == "__main__":
    raise SystemExit(main())
