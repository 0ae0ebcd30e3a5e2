# SPDX-License-Identifier: GPL-3.0-or-later
"""A render job on real Ray nodes: one is killed half way, then the whole cluster goes away."""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc

from granulo.render.v1 import render_service_pb2 as pb
from granulo.render.v1 import render_service_pb2_grpc as rpc

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from ray_cluster import RayCluster
from server_process import ServerProcess

_LIMIT_S = 300.0
_SCENES = 24
pytestmark = [pytest.mark.long, pytest.mark.timeout(4 * _LIMIT_S)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A head that takes no tasks, as in deploy/k8s."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, RayCluster(Path(folder), 0) as made:
        yield made


class Job:
    """A data set that a render service makes; ``finished`` looks into its store."""

    def __init__(self, server: ServerProcess, seed: int) -> None:
        self._store = server.store
        self._channel = grpc.insecure_channel(server.address)
        dataset = pb.Dataset(preset="sio2", image_count=_SCENES, seed=seed, size_px=96)
        stub = rpc.RenderServiceStub(self._channel)
        self._name = stub.CreateDataset(pb.CreateDatasetRequest(dataset=dataset)).name

    def finished(self) -> dict[str, tuple[int, int]]:
        """Rendered objects that receipts speak of, and when each was written."""
        found = {}
        for path in self._store.glob("operations/render/*/shards/*"):
            for item in json.loads(path.read_text())["objects"]:
                state = (self._store / item["key"]).stat()
                found[item["key"]] = (state.st_ino, state.st_mtime_ns)
        return found

    def result(self) -> dict[str, str]:
        """Wait for the end: digests by key."""
        operations = operations_pb2_grpc.OperationsStub(self._channel)
        end_s = time.monotonic() + _LIMIT_S
        request = operations_pb2.GetOperationRequest(name=self._name)
        while not (operation := operations.GetOperation(request)).done:
            assert time.monotonic() < end_s, operation
            time.sleep(0.3)
        assert not operation.HasField("error"), operation.error
        dataset = pb.Dataset()
        operation.response.Unpack(dataset)
        manifest = json.loads((self._store / dataset.name / "manifest.json").read_text())
        return {item["key"]: item["digest"] for item in manifest["objects"]}


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + _LIMIT_S
    while not condition():
        assert time.monotonic() < end_s, what
        time.sleep(0.1)


def renders(node: psutil.Process) -> bool:
    """Whether a process below this node has Blender loaded."""
    for process in node.children(recursive=True):
        try:
            if any("bpy" in item.path for item in process.memory_maps(grouped=True)):
                return True
        except psutil.Error:
            continue
    return False


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, str]]:
    """What one machine makes of the same requests."""
    with ServerProcess(tmp_path_factory.mktemp("local"), module="granulo_render") as server:
        return {seed: Job(server, seed).result() for seed in (1, 2)}


def server_on(cluster: RayCluster, folder: Path) -> ServerProcess:
    return ServerProcess(
        folder,
        module="granulo_render",
        engine="ray",
        ray_address=cluster.address,
        ray_token_file=cluster.token_file,
    )


def test_a_killed_node_costs_only_what_it_had_in_hand(
    cluster: RayCluster, tmp_path: Path, expected: dict[int, dict[str, str]]
) -> None:
    first, second = cluster.join(1), cluster.join(1)
    both = [psutil.Process(node.pid) for node in (first, second)]
    with server_on(cluster, tmp_path) as server:
        job = Job(server, seed=1)
        wait_for(lambda: all(map(renders, both)), "only one node renders")
        half = 0.4 * len(expected[1])
        wait_for(lambda: len(job.finished()) > half, "the job stands")
        before = job.finished()
        cluster.kill(second)
        assert len(before) < len(expected[1]), "all was done before the kill"
        result = job.result()
    assert result == expected[1]
    after = {key: ((tmp_path / "store" / key).stat()) for key in before}
    again = [
        key for key, state in after.items() if (state.st_ino, state.st_mtime_ns) != before[key]
    ]
    assert again == [], "rendered twice"
    sys.stdout.write(f"{len(before)} of {len(result)} objects were finished at the kill\n")
    cluster.kill(first)


def test_services_survive_the_restart_of_the_cluster(
    cluster: RayCluster, tmp_path: Path, expected: dict[int, dict[str, str]]
) -> None:
    cluster.join(1)
    with server_on(cluster, tmp_path) as server:
        job = Job(server, seed=2)
        wait_for(lambda: len(job.finished()) > 0.2 * len(expected[2]), "the job stands")
        cluster.stop()
        before = job.finished()
        server.wait_for(lambda event: event.get("event") == "the cluster cannot be reached", 60)
        cluster.start_head()
        cluster.join(2)
        assert job.result() == expected[2]
        assert len(before) < len(expected[2])
        assert server.process.poll() is None
    kept = {key: (tmp_path / "store" / key).stat() for key in before}
    assert {k: (s.st_ino, s.st_mtime_ns) for k, s in kept.items()} == before
