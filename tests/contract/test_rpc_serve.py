# SPDX-License-Identifier: GPL-3.0-or-later
"""A service as a process of its own: it starts, says why not, and stops."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from granulo_core.rpc.channel import open_channel

COMMAND = [sys.executable, "-m", "granulo_analyzer"]


def environment(folder: Path, **changes: str) -> dict[str, str]:
    return {**os.environ, "GRANULO_STORE_URL": str(folder / "store"), **changes}


def test_a_service_serves_until_it_is_told_to_stop(tmp_path: Path, free_port: int) -> None:
    address = f"127.0.0.1:{free_port}"
    process = subprocess.Popen(COMMAND, env=environment(tmp_path, GRANULO_LISTEN=address))
    try:
        with open_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
            request = health_pb2.HealthCheckRequest(service="granulo.analyzer.v1.AnalyzerService")
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            second = subprocess.run(
                COMMAND,
                env=environment(tmp_path, GRANULO_LISTEN=address),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        assert second.returncode == 2
        assert f"{address} cannot be bound" in second.stderr
        assert "Traceback" not in second.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("variable", "value"), [("GRANULO_WORKERS", "many"), ("GRANULO_STORE_URL", "ftp://x/y")]
)
def test_unusable_settings_are_named_and_end_with_status_two(
    tmp_path: Path, variable: str, value: str
) -> None:
    ended = subprocess.run(
        COMMAND,
        env=environment(tmp_path, **{variable: value}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert variable.removeprefix("GRANULO_").lower() in ended.stderr.lower()
    assert "Traceback" not in ended.stderr
