# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for all tests: a data folder, both object stores, a free port, the shared pictures."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from minio import Minio

from granulo_core.store import LocalStore, ObjectStore, open_store

REPOSITORY = Path(__file__).resolve().parent.parent
_S3_PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "curl")
_S3_KEY = "granulo-test"


@dataclass(frozen=True)
class S3Server:
    """A running S3 service; its access key and its secret key are the same word."""

    endpoint: str
    bucket: str
    key: str = _S3_KEY

    def url(self, prefix: str) -> str:
        return f"s3://{self.bucket}/{prefix}?endpoint={self.endpoint}"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def local_store(data_dir: Path) -> LocalStore:
    """An empty object store in a folder."""
    return LocalStore(data_dir / "store")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One real S3 service (Ceph) for the whole test run, with one bucket."""
    missing = [name for name in _S3_PROGRAMS if shutil.which(name) is None]
    if missing:
        reason = f"no S3 server to test with: {', '.join(missing)} missing, see scripts/s3-up.sh"
        # In CI a skip would hide that one of the two adapters was not tested at all.
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    folder = Path(tempfile.mkdtemp(prefix="granulo-s3-"))
    state = folder / "ceph"
    monitor_port, s3_port = _free_ports(2)[0], _free_ports(1)[0]
    try:
        with (folder / "stderr").open("wb") as stderr:
            started = subprocess.run(
                [REPOSITORY / "scripts" / "s3-up.sh", state, str(monitor_port), str(s3_port)],
                env={**os.environ, "STORE": "memstore"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                timeout=150,
                check=False,
            )
        if started.returncode != 0:
            pytest.fail(f"s3-up.sh failed:\n{(folder / 'stderr').read_text()[-3000:]}")
        server = S3Server(f"http://127.0.0.1:{s3_port}", "granulo")
        client = Minio(
            endpoint=f"127.0.0.1:{s3_port}", access_key=_S3_KEY, secret_key=_S3_KEY, secure=False
        )
        client.make_bucket(server.bucket)
        yield server
    finally:
        if (state / "pids").exists():
            subprocess.run([REPOSITORY / "scripts" / "s3-down.sh", state], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def s3_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an empty S3 store; the keys are in the environment."""
    monkeypatch.setenv("GRANULO_S3_ACCESS_KEY", s3_server.key)
    monkeypatch.setenv("GRANULO_S3_SECRET_KEY", s3_server.key)
    return s3_server.url(f"test-{uuid4().hex[:12]}")


@pytest.fixture
def s3_store(s3_url: str) -> ObjectStore:
    """An empty object store in S3."""
    return open_store(s3_url)


@pytest.fixture
def free_port() -> int:
    """A loopback port that nothing listens on."""
    return _free_ports(1)[0]


@pytest.fixture(scope="session")
def shared_micrographs() -> Path:
    """Folder of real micrographs; a test that needs it skips where it is missing."""
    shared = Path(os.environ.get("GRANULO_SHARED", REPOSITORY.parent / "shared"))
    folder = shared / "micrographs"
    if not folder.is_dir():
        pytest.skip(f"no real micrographs: {folder} is missing (GRANULO_SHARED names its parent)")
    return folder


def _free_ports(count: int) -> list[int]:
    """Consecutive free loopback ports."""
    for _ in range(100):
        with closing(socket.socket()) as first:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
        try:
            for candidate in range(port, port + count):
                with closing(socket.socket()) as probe:
                    probe.bind(("127.0.0.1", candidate))
        except (OSError, OverflowError):
            continue
        return list(range(port, port + count))
    pytest.fail("found no free ports")
