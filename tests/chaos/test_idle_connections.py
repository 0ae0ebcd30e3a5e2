# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that connect and do nothing: they are sent away, and others are served all the while."""

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from certificates import Authority
from server_process import ServerProcess, channel_to, list_analyses


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.long)])
def test_idle_ones_are_closed_and_others_are_served(
    authority: Authority, tmp_path: Path, count: int
) -> None:
    pair = authority.issue("idle")
    with (
        ServerProcess(
            tmp_path,
            tls_cert=pair.cert,
            tls_key=pair.key,
            max_connection_idle_s=5,
            max_connections=count + 100,
        ) as server,
        channel_to(server, authority) as channel,
        ExitStack() as held,
    ):
        silent = [held.enter_context(connection(server)) for _ in range(count)]
        # They hold connections, but none of the server's threads.
        list_analyses(channel)
        idle = [held.enter_context(channel_to(server, authority)) for _ in range(5)]
        closed = [closed_after_ready(other) for other in idle]
        list_analyses(channel)
        wait_until_closed(silent)
        assert all(event.wait(60) for event in closed)
        list_analyses(channel)


def test_more_than_there_may_be_are_closed_at_once(authority: Authority, tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path, max_connections=20) as server,
        ExitStack() as held,
        channel_to(server, None) as channel,
    ):
        list_analyses(channel)
        more = [held.enter_context(connection(server)) for _ in range(40)]
        # 19 wait for a handshake, for 20 s; the others are gone.
        assert sum(map(is_closed, more)) >= 20
        list_analyses(channel)


@contextmanager
def connection(server: ServerProcess) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as made:
        yield made


def closed_after_ready(channel: grpc.Channel) -> threading.Event:
    """Set once the server has closed the connection of a channel that was ready."""
    ready, closed = threading.Event(), threading.Event()

    def changed(state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY:
            ready.set()
        elif ready.is_set():
            closed.set()

    channel.subscribe(changed, try_to_connect=True)
    assert ready.wait(60)
    return closed


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        pass
    return True


def wait_until_closed(connections: list[socket.socket], timeout_s: float = 120.0) -> None:
    end_s = time.monotonic() + timeout_s
    for each in connections:
        each.settimeout(max(0.1, end_s - time.monotonic()))
        try:
            while each.recv(4096):
                pass
        except ConnectionResetError:
            pass
