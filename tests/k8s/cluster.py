# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands for a cluster: podman's pods, and Ceph's S3 gateway outside of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import podlike
import psutil
import yaml
from minio import Minio

ROOT = Path(__file__).resolve().parents[2]
NETWORK = "granulo-test"
SUBNET = "10.89.77"
GATEWAY = f"{SUBNET}.1"
S3_PORT = 26780
S3_KEY = "granulo-test"
BUCKET = "granulo"


def say(text: str) -> None:
    """A line of the log, with the time since the beginning."""
    sys.stdout.write(f"[{time.monotonic() - _BEGUN_S:7.1f} s] {text}\n")
    sys.stdout.flush()


_BEGUN_S = time.monotonic()


def podman(*words: str, check: bool = True) -> str:
    """Run podman and return what it prints."""
    done = subprocess.run(["podman", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"podman {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def wait_until(what: str, condition: Callable[[], bool], limit_s: float = 300.0) -> None:
    """Wait for something that may take its time on a slow machine."""
    end_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError(f"{what}: not within {limit_s:.0f} s")
        time.sleep(0.5)


class S3Gateway:
    """One-node Ceph whose gateway can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.endpoint = f"http://{GATEWAY}:{S3_PORT}"
        # The bridge has its address only while a pod is on it.
        environment = {**os.environ, "S3_HOST": "0.0.0.0"}
        command = [ROOT / "scripts" / "s3-up.sh", folder, "26700", str(S3_PORT)]
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True)
        self.client = Minio(
            endpoint=f"127.0.0.1:{S3_PORT}", access_key=S3_KEY, secret_key=S3_KEY, secure=False
        )
        self.client.make_bucket(BUCKET)
        self._gateway = int((folder / "pids").read_text().split()[-1])

    def kill(self) -> None:
        """SIGKILL to the gateway; the objects stay in the store behind it."""
        os.kill(self._gateway, signal.SIGKILL)

    def start(self) -> None:
        """Start the gateway again."""
        with (self._folder / "log" / "rgw.out").open("a") as log:
            process = subprocess.Popen(
                ["radosgw", "-n", "client.rgw.a", "-f"],
                env={**os.environ, "CEPH_CONF": str(self._folder / "ceph.conf")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._gateway = process.pid
        with (self._folder / "pids").open("a") as pids:
            pids.write(f"{process.pid}\n")

    def stop(self) -> None:
        """Stop all of it."""
        subprocess.run([ROOT / "scripts" / "s3-down.sh", self._folder], check=False)

    def objects(self, prefix: str) -> dict[str, tuple[str, str]]:
        """(ETag, time of writing) of every object below a prefix."""
        found = self.client.list_objects(BUCKET, prefix=prefix, recursive=True)
        return {
            str(item.object_name).removeprefix(prefix): (str(item.etag), str(item.last_modified))
            for item in found
        }

    def read(self, key: str) -> bytes:
        """One object."""
        response = self.client.get_object(BUCKET, key)
        try:
            return response.read()
        finally:
            response.close()
            response.release_conn()


@contextmanager
def network() -> Iterator[None]:
    """The pods' network, on this machine only."""
    podman("network", "rm", "--force", NETWORK, check=False)
    podman("network", "create", "--subnet", f"{SUBNET}.0/24", "--gateway", GATEWAY, NETWORK)
    try:
        yield
    finally:
        podman("network", "rm", "--force", NETWORK, check=False)


@contextmanager
def playing(pods: Mapping[str, dict[str, Any]], place: podlike.Place) -> Iterator[None]:
    """Run the pods; their logs stay in the place's folder."""
    for name, pod in pods.items():
        for volume in pod["spec"]["volumes"]:
            path = Path(volume["hostPath"]["path"])
            path.mkdir(parents=True, exist_ok=True)
            for item in (path, *path.iterdir()):
                shutil.chown(item, podlike.USER, podlike.USER)
        file = place.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(pod))
        file.chmod(0o600)
    try:
        for name in pods:
            words = ("--network", NETWORK, "--ip", place.address(name), "--log-driver", "k8s-file")
            podman("kube", "play", *words, str(place.folder / f"{name}.yaml"))
            say(f"pod {name} runs at {place.address(name)}")
        for service in podlike.SERVICES:
            wait_until(f"{service} is ready", lambda name=service: is_ready(name))
            say(f"{service} is ready")
        yield
    finally:
        for name, pod in pods.items():
            for container in pod["spec"]["containers"]:
                full_name = f"{name}-{container['name']}"
                with (place.folder / f"{full_name}.log").open("w") as log:
                    subprocess.run(
                        ["podman", "logs", full_name], stdout=log, stderr=log, check=False
                    )
            podman("pod", "rm", "--force", "--time", "10", name, check=False)


def is_ready(service: str) -> bool:
    """Ask as the kubelet does, by the command that is the image's health check."""
    probe = ("python", "-m", "granulo_core.rpc.healthcheck", "--service", "readiness")
    command = ["podman", "exec", f"{service}-service", *probe]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def main_process(service: str) -> psutil.Process:
    """The first process of a service's container, as this machine sees it."""
    inspected = json.loads(podman("inspect", f"{service}-service"))
    return psutil.Process(int(inspected[0]["State"]["Pid"]))


def kill_container(service: str) -> None:
    """SIGKILL to a service, with its workers; podman starts it again (restartPolicy)."""
    before = main_process(service)
    # Not by `podman kill`: what podman was told to end it does not start again.
    before.kill()
    wait_until(f"{service} is back", lambda: _is_another(service, before.pid))


def _is_another(service: str, pid: int) -> bool:
    with suppress(RuntimeError, psutil.Error, ValueError):
        return main_process(service).pid not in (0, pid)
    return False


def kill_worker(service: str) -> int:
    """SIGKILL to the worker that computes most; returns its process id.

    Raises
    ------
    RuntimeError
        The service has none.
    """
    workers = [
        item
        for item in main_process(service).children(recursive=True)
        if "resource_tracker" not in " ".join(item.cmdline())
    ]
    if not workers:
        raise RuntimeError(f"{service} has no worker process")
    busiest = max(workers, key=lambda item: sum(item.cpu_times()[:2]))
    busiest.kill()
    return int(busiest.pid)
