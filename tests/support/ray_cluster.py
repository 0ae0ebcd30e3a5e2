# SPDX-License-Identifier: GPL-3.0-or-later
"""Real Ray nodes on this machine, each with the processes that it has on a machine of its own."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Self

import psutil

POOLS = ("cpu", "render", "train")
_START_S = 90.0
_STORE_BYTES = 100_000_000


class RayCluster:
    """A head that other nodes may join; its client server asks for a token.

    Parameters
    ----------
    folder : Path
        For logs and the token; its path must be short, because sockets are in it.
    cpus : int
        Cores of the head.
    importable : sequence of Path
        Folders whose modules tasks may use.
    """

    def __init__(self, folder: Path, cpus: int = 2, importable: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.token_file = folder / "token"
        self.token_file.write_text(secrets.token_hex(32))
        self._ports = free_ports(3)
        self._cpus = cpus
        self._environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": os.pathsep.join(map(str, importable)),
        }
        self.nodes: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        return f"ray://127.0.0.1:{self._ports[1]}"

    def __enter__(self) -> Self:
        try:
            self.start_head()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start_head(self) -> subprocess.Popen[bytes]:
        control, client, environments = self._ports
        # Ray 2.60 tells its client server the agent's port only where it is given.
        node = self._start(
            "--head", f"--port={control}", f"--ray-client-server-port={client}",
            f"--runtime-env-agent-port={environments}", "--include-dashboard=false",
            f"--temp-dir={self.folder / 'ray'}", cpus=self._cpus,
        )  # fmt: skip
        wait_for_port(client, node)
        return node

    def join(self, cpus: int) -> subprocess.Popen[bytes]:
        """Another node."""
        return self._start(f"--address=127.0.0.1:{self._ports[0]}", cpus=cpus)

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """End all processes of a node at once, as when its machine loses power."""
        processes = [node, *psutil.Process(node.pid).children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        node.wait(10)
        self.nodes.remove(node)

    def stop(self) -> None:
        for node in reversed(list(self.nodes)):
            self.kill(node)

    def _start(self, *options: str, cpus: int) -> subprocess.Popen[bytes]:
        pools = ", ".join(f'"pool_{name}": 1000' for name in POOLS)
        ray = str(Path(sys.executable).with_name("ray"))
        log = (self.folder / f"node{len(self.nodes)}.log").open("wb")
        node = subprocess.Popen(
            [
                ray, "start", "--block", *options, f"--num-cpus={cpus}",
                f"--object-store-memory={_STORE_BYTES}", f"--resources={{{pools}}}",
                "--disable-usage-stats", "--node-ip-address=127.0.0.1",
            ],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )  # fmt: skip
        log.close()
        self.nodes.append(node)
        return node


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + _START_S
    while time.monotonic() < end_s:
        assert process.poll() is None, f"the node ended with {process.returncode}"
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on {port}")
