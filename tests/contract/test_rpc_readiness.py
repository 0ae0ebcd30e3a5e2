# SPDX-License-Identifier: GPL-3.0-or-later
"""What probes are told: alive whatever happens, ready while the dependencies answer."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from grpc_health.v1 import health, health_pb2_grpc

from granulo_core.errors import GranuloError, Reason
from granulo_core.rpc import healthcheck
from granulo_core.rpc.healthcheck import LIVENESS, READINESS
from granulo_core.rpc.readiness import Readiness, check_answers


@contextmanager
def health_port() -> Iterator[tuple[health.HealthServicer, str]]:
    server = grpc.server(ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def probe(address: str, service: str) -> int:
    return healthcheck.main(["--address", address, "--service", service])


@pytest.mark.parametrize(
    "trouble", [GranuloError(Reason.STORE_UNAVAILABLE, "No answer."), ConnectionRefusedError()]
)
def test_a_failing_dependency_takes_the_readiness_and_never_the_liveness(
    trouble: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = threading.Event()

    def check_store() -> None:
        if broken.is_set():
            raise trouble

    with health_port() as (servicer, address):
        readiness = Readiness(servicer, {"store": check_store, "other": lambda: None}, 3600.0)
        with readiness:
            assert readiness.look()
            assert (probe(address, LIVENESS), probe(address, READINESS)) == (0, 0)
            broken.set()
            assert not readiness.look()
            assert (probe(address, LIVENESS), probe(address, READINESS)) == (0, 1)
            assert "readiness is NOT_SERVING" in capsys.readouterr().err
            broken.clear()
            assert readiness.look()
            assert probe(address, READINESS) == 0


def test_a_dependency_that_hangs_does_not_hold_up_a_probe() -> None:
    release = threading.Event()
    checks = {"store": lambda: release.wait(60)}
    with health_port() as (servicer, address), Readiness(servicer, checks):
        assert (probe(address, LIVENESS), probe(address, READINESS)) == (0, 1)
        release.set()


def test_a_model_server_answers_or_is_said_to_be_unavailable(free_port: int) -> None:
    with health_port() as (_, address):
        check_answers(address)
    with pytest.raises(GranuloError) as raised:
        check_answers(f"127.0.0.1:{free_port}")
    assert raised.value.reason is Reason.MODEL_SERVER_UNAVAILABLE


def test_the_probe_is_a_command_that_names_what_it_did_not_reach(free_port: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "granulo_core.rpc.healthcheck"],
        env={"GRANULO_HEALTH_LISTEN": f"0.0.0.0:{free_port}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"127.0.0.1:{free_port}: UNAVAILABLE: ")
    assert "Traceback" not in ended.stderr
