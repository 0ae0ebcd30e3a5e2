# SPDX-License-Identifier: GPL-3.0-or-later
"""The standalone process: started, joined, left, refused; and its model server."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from granulo_client import Client
from granulo_client.standalone import Standalone, command, read_lock
from granulo_standalone.model_server import ModelServer

_PATIENCE_S = 90.0


def test_commands_on_one_folder_share_a_standalone_until_the_last_has_left(data_dir: Path) -> None:
    first = Standalone.join(data_dir)
    second = Standalone.join(data_dir)

    assert second.address == first.address
    assert (first.started_here, second.started_here) == (True, False)
    first.leave()
    assert second.alive()
    with Client(second.address) as client:
        assert {preset.id for preset in client.presets()} >= {"sio2", "tio2"}
    second.leave()
    assert not second.alive()
    assert read_lock(data_dir) is None


def test_a_standalone_whose_command_was_killed_stops_by_itself(data_dir: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from granulo_client.standalone import Standalone\n"
        "print(Standalone.join(Path(sys.argv[1])).address, flush=True); time.sleep(600)"
    )
    user = subprocess.Popen(
        [sys.executable, "-c", code, str(data_dir)], stdout=subprocess.PIPE, text=True
    )
    assert user.stdout is not None
    assert user.stdout.readline().startswith("127.0.0.1:")
    running = read_lock(data_dir)
    assert running is not None

    user.kill()
    user.communicate()

    _wait_for(lambda: not psutil.pid_exists(running.pid))


def test_a_standalone_is_ready_says_so_and_ends_on_sigterm(data_dir: Path, free_port: int) -> None:
    listen = f"127.0.0.1:{free_port}"
    process = subprocess.Popen(
        command(data_dir, ["--listen", listen, "--announce"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["address"] == listen
        running = read_lock(data_dir)
        assert running is not None
        assert (running.address, running.pid, running.ephemeral) == (listen, process.pid, False)
        joined = Standalone.join(data_dir)
        joined.leave()
        assert joined.alive(), "a command must not stop what `granulo up` started"

        second = _refused(data_dir, "127.0.0.1:0")
        assert "already runs" in second
        assert listen in second
        other = _refused(data_dir.parent / "other", listen)
        assert f"{listen} cannot be bound" in other
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert read_lock(data_dir) is None


def test_a_lock_file_left_by_a_killed_standalone_means_nothing(data_dir: Path) -> None:
    stale = {"address": "127.0.0.1:9", "pid": os.getpid(), "ephemeral": False}
    (data_dir / "standalone.lock").write_text(json.dumps(stale))

    assert read_lock(data_dir) is None
    with Client.standalone(data_dir) as client:
        assert client.presets()


def test_the_model_server_starts_at_the_first_call_and_again_after_its_death(
    data_dir: Path,
) -> None:
    pytest.importorskip("tensorflow_serving")
    children = psutil.Process().children
    before = {child.pid for child in children()}

    def server() -> list[psutil.Process]:
        return [child for child in children() if child.pid not in before]

    with ModelServer(data_dir, eager=False) as models:
        time.sleep(0.6)
        assert server() == []
        _wait_for(lambda: _is_serving(models.address))
        first = server()[0]
        first.kill()
        _wait_for(lambda: any(child.pid != first.pid for child in server()))
        _wait_for(lambda: _is_serving(models.address))
    assert server() == []


def _refused(data: Path, listen: str) -> str:
    done = subprocess.run(
        command(data, ["--listen", listen]),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def _is_serving(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=2.0
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.1)


def test_a_port_held_by_another_program_is_refused_before_anything_is_made(
    tmp_path: Path,
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        said = _refused(tmp_path / "data", f"127.0.0.1:{other.getsockname()[1]}")
    assert "Choose another port" in said
